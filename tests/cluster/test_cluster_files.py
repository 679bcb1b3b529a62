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

from rlhp.cli import main
from rlhp.config import loading
from rlhp.config.schema import RunConfig
from rlhp.experiments import sweep
from rlhp.workers.resources import bundles

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
    return {"head": spec["headGroupSpec"]} | {
        each["groupName"]: each for each in spec["workerGroupSpecs"]
    }


def offered(params: dict[str, str]) -> dict[str, float]:
    """What Ray offers on a pod with these rayStartParams."""
    custom = yaml.safe_load(yaml.safe_load(params["resources"])) if "resources" in params else {}  # noqa: TID251
    return {
        "CPU": float(params["num-cpus"]),
        **{name: float(value) for name, value in custom.items()},
    }


@pytest.mark.parametrize("name", LAUNCHER)
def test_ray_takes_the_launcher_file(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Ray's own imports
        from ray.autoscaler._private.util import prepare_config, validate_config

        config = prepare_config(copy.deepcopy(one(CLUSTER / f"{name}.yaml")))
        validate_config(config)
    assert config["provider"]["type"] == name
    assert {"secrets", "runs", ".git"} <= set(config["rsync_exclude"]), (
        "what is sent to every node holds no secret"
    )
    starts = " ".join(config["head_start_ray_commands"] + config["worker_start_ray_commands"])
    assert "--num-cpus=0" in starts, "nothing runs on the head but the driver"
    assert "RAY_AUTH_MODE=token" in starts
    assert "dashboard-host=127.0.0.1" in starts


@pytest.mark.parametrize(
    ("name", "machine", "own"),
    [("aws", "InstanceType", "Ebs"), ("gcp", "machineType", "diskSizeGb")],
)
def test_the_keys_of_a_node_are_those_of_its_cloud(name: str, machine: str, own: str) -> None:
    types = one(CLUSTER / f"{name}.yaml")["available_node_types"]
    assert set(types) == {"head", "rollout", "learner"}
    assert types["head"]["resources"] == {"CPU": 0}
    for node in types.values():
        assert machine in node["node_config"]
        assert own in yaml.dump(node["node_config"])
    assert (
        sum(node.get("max_workers", 0) for node in types.values())
        == one(CLUSTER / f"{name}.yaml")["max_workers"]
    )


def fits(config: RunConfig, nodes: list[dict[str, float]]) -> list[str]:
    """Who of a run finds no kind of node that could hold it."""
    wanted = dict(bundles(config))
    return [
        who
        for who, bundle in wanted.items()
        if not any(
            all(node.get(name, 0) >= amount for name, amount in bundle.items()) for node in nodes
        )
    ]


def test_every_resource_that_the_cluster_config_asks_for_is_offered() -> None:
    config = loading.load(CLUSTER / "halfcheetah.yaml")
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
        assert (
            fits(config, [offered(group["rayStartParams"]) for group in groups(spec).values()])
            == []
        )
        rollout = groups(spec)["rollout"]
        least = config.rollout.min_env_runners
        assert least is not None
        assert rollout["minReplicas"] * offered(rollout["rayStartParams"])["rollout"] >= least
        assert (
            rollout["maxReplicas"] * offered(rollout["rayStartParams"])["rollout"]
            >= config.rollout.num_env_runners
        )
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
                pod = {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "metadata": {"name": name, **group["template"]["metadata"]},
                }
                validate.validate(
                    {**pod, "spec": group["template"]["spec"]}, KUBERNETES_VERSION, strict=True
                )
        else:
            validate.validate(document, KUBERNETES_VERSION, strict=True)


ENVELOPE = {
    "cluster": (
        "rayVersion authOptions enableInTreeAutoscaling autoscalerOptions headGroupSpec "
        "workerGroupSpecs"
    ),
    "head": "rayStartParams template",
    "worker": "groupName replicas minReplicas maxReplicas rayStartParams template",
    "autoscaler": "idleTimeoutSeconds upscalingMode securityContext volumeMounts",
    "job": "entrypoint runtimeEnvYAML submissionMode shutdownAfterJobFinishes "
    "ttlSecondsAfterFinished backoffLimit "
    "submitterPodTemplate rayClusterSpec",
}
"""The keys of KubeRay's objects that we use; a misspelled one would be dropped in
silence.
"""


@pytest.mark.parametrize("name", ["raycluster", "rayjob"])
def test_pods_are_strict_and_keys_of_ray_are_spelled_right(name: str) -> None:
    spec = cluster_spec(name)
    assert set(spec) <= set(ENVELOPE["cluster"].split())
    if name == "rayjob":
        assert set(one(KUBERNETES / "rayjob.yaml")["spec"]) <= set(ENVELOPE["job"].split())
    assert spec["rayVersion"] == pinned("ray")
    assert set(spec["autoscalerOptions"]) <= set(ENVELOPE["autoscaler"].split())
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    for group, found in groups(spec).items():
        assert set(found) <= set(ENVELOPE["head" if group == "head" else "worker"].split())
        assert all(isinstance(value, str) for value in found["rayStartParams"].values()), (
            "KubeRay takes texts only"
        )
        strict(found["template"]["spec"])
    assert cluster_spec("rayjob") == cluster_spec("raycluster"), "one cluster, described twice"


VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
"""What the Pod Security standard `restricted` lets a pod mount."""


def strict(pod: dict[str, Any]) -> None:
    """As the Pod Security standard `restricted` has it, and a bound for memory."""
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"].get("runAsUser") != 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    assert {
        kind for volume in pod.get("volumes", ()) for kind in volume if kind != "name"
    } <= VOLUMES
    for container in [*pod["containers"], *pod.get("initContainers", ())]:
        strict_container(container["securityContext"])
        assert not any("hostPort" in port for port in container.get("ports", ()))
        assert "memory" in container["resources"]["limits"]


def strict_container(context: dict[str, Any]) -> None:
    """The same of a container alone."""
    assert context["allowPrivilegeEscalation"] is False
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert context.get("privileged", False) is False
    assert context.get("runAsUser") != 0
    assert context.get("runAsNonRoot", True) is True


def test_the_namespace_refuses_what_is_not_strict_and_what_kuberay_adds_passes() -> None:
    assert (
        one(KUBERNETES / "namespace.yaml")["metadata"]["labels"][
            "pod-security.kubernetes.io/enforce"
        ]
        == "restricted"
    )
    for name in ("raycluster", "rayjob"):
        strict_container(cluster_spec(name)["autoscalerOptions"]["securityContext"])
    submitter = one(KUBERNETES / "rayjob.yaml")["spec"]["submitterPodTemplate"]
    strict(submitter["spec"])
    assert submitter["spec"]["restartPolicy"] == "Never"


def pods() -> Iterator[dict[str, Any]]:
    """The spec of every pod that our files describe."""
    for name in ("raycluster", "rayjob"):
        yield from (group["template"]["spec"] for group in groups(cluster_spec(name)).values())
    yield one(KUBERNETES / "rayjob.yaml")["spec"]["submitterPodTemplate"]["spec"]
    yield from (
        each["spec"]["template"]["spec"]
        for each in documents(KUBERNETES / "redis.yaml")
        if "template" in each["spec"]
    )


def test_nobody_but_the_autoscaler_holds_a_token_of_kubernetes_and_it_deletes_no_pod() -> None:
    assert all(pod["automountServiceAccountToken"] is False for pod in pods())
    where = "/var/run/secrets/kubernetes.io/serviceaccount"
    for name in ("raycluster", "rayjob"):
        spec = cluster_spec(name)
        (mount,) = spec["autoscalerOptions"]["volumeMounts"]
        head = spec["headGroupSpec"]["template"]["spec"]
        (volume,) = [each for each in head["volumes"] if each["name"] == mount["name"]]
        files = {
            source["serviceAccountToken"]["path"] for source in volume["projected"]["sources"][:1]
        }
        assert (mount["mountPath"], files) == (where, {"token"})
        assert not any(
            mounted["name"] == mount["name"]
            for each in head["containers"]
            for mounted in each["volumeMounts"]
        )
        assert head["serviceAccountName"] == "autoscaler"
    objects = {each["kind"]: each for each in documents(KUBERNETES / "autoscaler.yaml")}
    assert objects["ServiceAccount"]["automountServiceAccountToken"] is False
    assert objects["RoleBinding"]["subjects"] == [{"kind": "ServiceAccount", "name": "autoscaler"}]
    rights = {
        resource: set(rule["verbs"])
        for rule in objects["Role"]["rules"]
        for resource in rule["resources"]
    }
    assert rights == {"pods": {"get", "list", "watch"}, "rayclusters": {"get", "patch"}}


def test_nobody_reaches_ray_or_redis_but_those_who_have_to() -> None:
    policies = {
        each["metadata"]["name"]: each["spec"] for each in documents(KUBERNETES / "network.yaml")
    }
    assert policies["nobody"] == {"podSelector": {}, "policyTypes": ["Ingress"]}, (
        "what nothing allows is refused"
    )
    ray = {"podSelector": {"matchLabels": {"ray.io/is-ray-node": "yes"}}}  # a label of KubeRay's
    assert policies["ray"] == {**ray, "policyTypes": ["Ingress"], "ingress": [{"from": [ray]}]}
    (jobs,) = policies["ray-jobs"]["ingress"]
    assert jobs["ports"] == [{"port": 8265}]
    submitter = one(KUBERNETES / "rayjob.yaml")["spec"]["submitterPodTemplate"]["metadata"][
        "labels"
    ]
    assert {"podSelector": {"matchLabels": submitter}} in jobs["from"]
    assert all("podSelector" in each for each in jobs["from"])


def test_everything_but_the_job_is_applied_at_once() -> None:
    resources = set(one(KUBERNETES / "kustomization.yaml")["resources"])
    assert resources == {file.name for file in KUBERNETES.glob("*.yaml")} - {
        "kustomization.yaml",
        "rayjob.yaml",
    }


def test_no_service_of_compose_is_root_and_each_can_read_its_secrets() -> None:
    compose = one(CLUSTER / "compose.yaml")
    for service in compose["services"].values():
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert set(service["secrets"]) <= set(compose["secrets"])
    assert compose["services"]["redis"]["user"].split(":")[0] not in ("0", "root")
    assert re.search(r"^USER rlhp$", (CLUSTER / "Dockerfile").read_text(), re.MULTILINE)
    head = (CLUSTER / "compose.yaml").read_text().partition("\nname:")[0]
    assert "mkdir -m 700 secrets" in head
    assert "chmod 444 secrets/*" in head, (
        "a file's mode is the secret's, and no container runs as who made it"
    )
    assert {Path(secret["file"]).parent for secret in compose["secrets"].values()} == {
        Path("../secrets")
    }
    ignored = (
        (ROOT / ".gitignore").read_text().splitlines(),
        (ROOT / ".dockerignore").read_text().splitlines(),
    )
    assert all("secrets/" in lines for lines in ignored)


def test_redis_keeps_its_data_and_its_password() -> None:
    objects = {each["kind"]: each for each in documents(KUBERNETES / "redis.yaml")}
    pod = objects["StatefulSet"]["spec"]["template"]["spec"]
    strict(pod)
    (container,) = pod["containers"]
    assert "appendonly yes" in container["args"][0]
    assert "maxmemory-policy noeviction" in container["args"][0]
    (password,) = [volume["secret"] for volume in pod["volumes"] if "secret" in volume]
    head = cluster_spec("raycluster")["headGroupSpec"]["template"]
    assert password["secretName"] in [
        volume.get("secret", {}).get("secretName") for volume in head["spec"]["volumes"]
    ]
    allowed = objects["NetworkPolicy"]["spec"]["ingress"][0]["from"][0]["podSelector"][
        "matchLabels"
    ]
    assert allowed.items() <= head["metadata"]["labels"].items()
    environment = {each["name"]: each["value"] for each in head["spec"]["containers"][0]["env"]}
    assert (
        environment["RLHP_REDIS_URL"] == f"redis://{objects['Service']['metadata']['name']}:6379/0"
    )
    for file in CLUSTER.rglob("*.yaml"):
        assert not re.search(r"redis://[^/\s]*:[^/\s]+@", file.read_text()), f"a password in {file}"


def test_images_and_versions_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    image = f"rlhp:{project['version']}"
    dockerfile = (CLUSTER / "Dockerfile").read_text()
    python = re.search(r"^ARG PYTHON_IMAGE=python:(\d+\.\d+)-slim", dockerfile, re.MULTILINE)
    assert "\nFROM ${PYTHON_IMAGE}\n" in dockerfile
    assert python is not None
    assert python[1] == project["requires-python"].removeprefix(">=")
    assert f"-t {image} ." in dockerfile
    compose = one(CLUSTER / "compose.yaml")
    assert {compose["services"]["head"]["image"], compose["services"]["worker"]["image"]} == {
        f"${{RLHP_IMAGE:-{image}}}"
    }
    submitter = one(KUBERNETES / "rayjob.yaml")["spec"]["submitterPodTemplate"]["spec"][
        "containers"
    ]
    assert [each["image"] for each in submitter] == [image]
    for name in ("raycluster", "rayjob"):
        for group in groups(cluster_spec(name)).values():
            assert group["template"]["spec"]["containers"][0]["image"] == image
    entries = {
        f"{each['name']}:{each['newTag']}"
        for each in one(KUBERNETES / "kustomization.yaml")["images"]
    }
    redis = objects_image(KUBERNETES / "redis.yaml")
    assert entries == {image, redis}
    assert compose["services"]["redis"]["image"] == f"${{REDIS_IMAGE:-{redis}}}"


def objects_image(path: Path) -> str:
    (pod,) = [
        each["spec"]["template"]["spec"]
        for each in documents(path)
        if each["kind"] == "StatefulSet"
    ]
    return str(pod["containers"][0]["image"])


def commands() -> Iterator[tuple[str, list[str]]]:
    """Every `rlhp ...` that a file about clusters tells somebody to type, and where."""
    files = [
        *CLUSTER.rglob("*.yaml"),
        CLUSTER / "README.md",
        CLUSTER / "Dockerfile",
        ROOT / "docs/cluster.md",
    ]
    for file in files:
        for line in file.read_text().splitlines():
            text = line.split("  #")[0].split(" # ")[0]
            for match in re.finditer(r"(?:^|[\s`])(rlhp (?!:)[a-z]+(?: [^`|;&]*)?)", text):
                words = match[1]
                if re.match(
                    r"rlhp (train|submit|job|tune|status|serve|label|labeler|eval|doctor|export"
                    r"|plot)\b",
                    words,
                ):
                    yield f"{file.name}: {words.strip()}", shlex.split(words)[1:]


@pytest.mark.parametrize(
    ("where", "arguments"), [pytest.param(*each, id=each[0]) for each in commands()]
)
def test_every_command_in_these_files_can_be_parsed(where: str, arguments: list[str]) -> None:
    command: click.Command = main.rlhp
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
        loading.parse({"env": {"id": "E"}}, sets=[text])
    config = parsed.params.get("config")
    if isinstance(config, Path) and "/" in str(config) and "NAME" not in str(config):
        if command.name == "tune":
            sweep.load(ROOT / config, sets=parsed.params["sets"])
        else:
            loading.load(ROOT / config)
