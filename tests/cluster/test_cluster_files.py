"""The files to start a cluster with: all that can be told of them without a cloud."""

from __future__ import annotations

import copy
import re
import shlex
import tomllib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from rlhp import cli, configfile, tuning
from rlhp.config import RunConfig
from rlhp.running.room import bundles

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"
KUBERNETES = CLUSTER / "kubernetes"
LAUNCHER = ("aws", "gcp", "local")
KUBERNETES_VERSION = "1.31"


def documents(path: Path) -> list[dict[str, Any]]:
    return [each for each in yaml.safe_load_all(path.read_text()) if each is not None]


def one(path: Path) -> dict[str, Any]:
    (found,) = documents(path)
    return found


def pinned(package: str) -> str:
    match = re.search(rf"^{package}==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert match is not None
    return match[1]


def cluster_spec(name: str) -> dict[str, Any]:
    """The `RayClusterSpec` in raycluster.yaml or rayjob.yaml."""
    spec: dict[str, Any] = one(KUBERNETES / f"{name}.yaml")["spec"]
    return spec if name == "raycluster" else spec["rayClusterSpec"]


def groups(spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {"head": spec["headGroupSpec"]} | {each["groupName"]: each for each in spec["workerGroupSpecs"]}


def offered(params: dict[str, str]) -> dict[str, float]:
    """What Ray offers on a pod with these rayStartParams."""
    custom = yaml.safe_load(yaml.safe_load(params["resources"])) if "resources" in params else {}  # noqa: TID251
    return {"CPU": float(params["num-cpus"]), **{name: float(value) for name, value in custom.items()}}


@pytest.mark.parametrize("name", LAUNCHER)
def test_ray_takes_the_launcher_file(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Ray's own imports
        from ray.autoscaler._private.util import prepare_config, validate_config

        config = prepare_config(copy.deepcopy(one(CLUSTER / f"{name}.yaml")))
        validate_config(config)
    assert config["provider"]["type"] == name
    starts = " ".join(config["head_start_ray_commands"] + config["worker_start_ray_commands"])
    assert "--num-cpus=0" in starts, "nothing runs on the head but the driver"
    assert "RAY_AUTH_MODE=token" in starts
    assert "dashboard-host=127.0.0.1" in starts


@pytest.mark.parametrize(
    ("name", "machine", "own"), [("aws", "InstanceType", "Ebs"), ("gcp", "machineType", "diskSizeGb")]
)
def test_the_keys_of_a_node_are_those_of_its_cloud(name: str, machine: str, own: str) -> None:
    types = one(CLUSTER / f"{name}.yaml")["available_node_types"]
    assert set(types) == {"head", "rollout", "learner"}
    assert types["head"]["resources"] == {"CPU": 0}
    for node in types.values():
        assert machine in node["node_config"]
        assert own in yaml.dump(node["node_config"])
    assert sum(node.get("max_workers", 0) for node in types.values()) == one(CLUSTER / f"{name}.yaml")["max_workers"]


def fits(config: RunConfig, nodes: list[dict[str, float]]) -> list[str]:
    """Who of a run finds no kind of node that could hold it."""
    wanted = dict(bundles(config))
    return [
        who
        for who, bundle in wanted.items()
        if not any(all(node.get(name, 0) >= amount for name, amount in bundle.items()) for node in nodes)
    ]


def test_every_resource_that_the_cluster_config_asks_for_is_offered() -> None:
    config = configfile.load(CLUSTER / "halfcheetah.yaml")
    assert config.ray.address == "auto"
    for name in ("aws", "gcp"):
        types = one(CLUSTER / f"{name}.yaml")["available_node_types"].values()
        assert fits(config, [node["resources"] for node in types]) == []
        room = {
            kind: sum(node.get("max_workers", 0) * node["resources"].get(kind, 0) for node in types)
            for kind in ("rollout", "learner")
        }
        assert room["rollout"] >= config.rollout.num_env_runners
        assert room["learner"] >= config.learner.num_learners
    for name in ("raycluster", "rayjob"):
        spec = cluster_spec(name)
        assert fits(config, [offered(group["rayStartParams"]) for group in groups(spec).values()]) == []
        rollout = groups(spec)["rollout"]
        least = config.rollout.min_env_runners
        assert least is not None
        assert rollout["minReplicas"] * offered(rollout["rayStartParams"])["rollout"] >= least
        assert rollout["maxReplicas"] * offered(rollout["rayStartParams"])["rollout"] >= config.rollout.num_env_runners
    worker = (CLUSTER / "compose.yaml").read_text()
    assert all(f'\\"{name}\\"' in worker for name in ("rollout", "learner"))


@pytest.mark.parametrize("file", sorted(KUBERNETES.glob("*.yaml")), ids=lambda file: str(file.name))
def test_kubernetes_knows_every_object(file: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        validate = pytest.importorskip("kubernetes_validate")
    for document in documents(file):
        if document["apiVersion"].startswith("kustomize"):
            missing = [name for name in document["resources"] if not (KUBERNETES / name).is_file()]
            assert missing == []
        elif document["apiVersion"].startswith("ray.io/"):
            for name, group in groups(cluster_spec(file.stem)).items():
                pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, **group["template"]["metadata"]}}
                validate.validate({**pod, "spec": group["template"]["spec"]}, KUBERNETES_VERSION, strict=True)
        else:
            validate.validate(document, KUBERNETES_VERSION, strict=True)


ENVELOPE = {
    "cluster": """rayVersion authOptions enableInTreeAutoscaling autoscalerOptions headGroupSpec workerGroupSpecs""",
    "head": "rayStartParams template",
    "worker": "groupName replicas minReplicas maxReplicas rayStartParams template",
    "job": "entrypoint runtimeEnvYAML submissionMode shutdownAfterJobFinishes ttlSecondsAfterFinished backoffLimit "
    "rayClusterSpec",
}
"""The keys of KubeRay's objects that we use; a misspelt one would be dropped in silence."""


@pytest.mark.parametrize("name", ["raycluster", "rayjob"])
def test_pods_are_strict_and_keys_of_ray_are_spelt_right(name: str) -> None:
    spec = cluster_spec(name)
    assert set(spec) <= set(ENVELOPE["cluster"].split())
    if name == "rayjob":
        assert set(one(KUBERNETES / "rayjob.yaml")["spec"]) <= set(ENVELOPE["job"].split())
    assert spec["rayVersion"] == pinned("ray")
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    for group, found in groups(spec).items():
        assert set(found) <= set(ENVELOPE["head" if group == "head" else "worker"].split())
        assert all(isinstance(value, str) for value in found["rayStartParams"].values()), "KubeRay takes texts only"
        strict(found["template"]["spec"])
    assert cluster_spec("rayjob") == cluster_spec("raycluster"), "one cluster, described twice"


def strict(pod: dict[str, Any]) -> None:
    """No root, no privileges, a bound for memory."""
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in pod["containers"]:
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert "memory" in container["resources"]["limits"]


def test_redis_keeps_its_data_and_its_password() -> None:
    objects = {each["kind"]: each for each in documents(KUBERNETES / "redis.yaml")}
    pod = objects["StatefulSet"]["spec"]["template"]["spec"]
    strict(pod)
    (container,) = pod["containers"]
    assert "appendonly yes" in container["args"][0]
    assert "maxmemory-policy noeviction" in container["args"][0]
    (password,) = [volume["secret"] for volume in pod["volumes"] if "secret" in volume]
    head = cluster_spec("raycluster")["headGroupSpec"]["template"]
    assert password["secretName"] in [volume.get("secret", {}).get("secretName") for volume in head["spec"]["volumes"]]
    allowed = objects["NetworkPolicy"]["spec"]["ingress"][0]["from"][0]["podSelector"]["matchLabels"]
    assert allowed.items() <= head["metadata"]["labels"].items()
    environment = {each["name"]: each["value"] for each in head["spec"]["containers"][0]["env"]}
    assert environment["RLHP_REDIS_URL"] == f"redis://{objects['Service']['metadata']['name']}:6379/0"
    for file in CLUSTER.rglob("*.yaml"):
        assert not re.search(r"redis://[^/\s]*:[^/\s]+@", file.read_text()), f"a password in {file}"


def test_images_and_versions_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    image = f"rlhp:{project['version']}"
    dockerfile = (CLUSTER / "Dockerfile").read_text()
    python = re.search(r"^FROM python:(\d+\.\d+)-slim", dockerfile, re.MULTILINE)
    assert python is not None
    assert python[1] == project["requires-python"].removeprefix(">=")
    assert f"-t {image} ." in dockerfile
    compose = one(CLUSTER / "compose.yaml")
    assert {compose["services"]["head"]["image"], compose["services"]["worker"]["image"]} == {image}
    for name in ("raycluster", "rayjob"):
        for group in groups(cluster_spec(name)).values():
            assert group["template"]["spec"]["containers"][0]["image"] == image
    (entry,) = one(KUBERNETES / "kustomization.yaml")["images"]
    assert f"{entry['name']}:{entry['newTag']}" == image
    redis = objects_image(KUBERNETES / "redis.yaml")
    assert redis == compose["services"]["redis"]["image"]


def objects_image(path: Path) -> str:
    (pod,) = [each["spec"]["template"]["spec"] for each in documents(path) if each["kind"] == "StatefulSet"]
    return str(pod["containers"][0]["image"])


def commands() -> Iterator[tuple[str, list[str]]]:
    """Every `rlhp ...` that a file about clusters tells somebody to type, and where."""
    files = [*CLUSTER.rglob("*.yaml"), CLUSTER / "README.md", CLUSTER / "Dockerfile", ROOT / "docs/cluster.md"]
    for file in files:
        for line in file.read_text().splitlines():
            text = line.split("  #")[0].split(" # ")[0]
            for match in re.finditer(r"(?:^|[\s`])(rlhp (?!:)[a-z]+(?: [^`|;&]*)?)", text):
                words = match[1]
                if re.match(
                    r"rlhp (train|submit|job|tune|status|serve|label|labeler|eval|doctor|export|plot)\b", words
                ):
                    yield f"{file.name}: {words.strip()}", shlex.split(words)[1:]


@pytest.mark.parametrize(("where", "arguments"), [pytest.param(*each, id=each[0]) for each in commands()])
def test_every_command_in_these_files_can_be_parsed(where: str, arguments: list[str]) -> None:
    command: click.Command = cli.rlhp
    context = click.Context(command, info_name="rlhp")
    while isinstance(command, click.Group):
        if not arguments:
            return  # named, not to be typed
        name, *arguments = arguments
        found = command.get_command(context, name)
        assert found is not None, where
        command = found
    if not arguments or arguments == ["..."]:
        return
    parsed = command.make_context(command.name, list(arguments), resilient_parsing=False)
    for text in parsed.params.get("sets") or ():
        configfile.parse({"env": {"id": "E"}}, sets=[text])
    config = parsed.params.get("config")
    if isinstance(config, Path) and "/" in str(config) and "NAME" not in str(config):
        if command.name == "tune":
            tuning.load(ROOT / config, sets=parsed.params["sets"])
        else:
            configfile.load(ROOT / config)
