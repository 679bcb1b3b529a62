"""Configuration files: what is read, what is refused and how, what is written."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhp.config import addresses, errors, loading, yamlfile
from rlhp.config.loading import ConfigError
from rlhp.config.schema import RunConfig, TeacherConfig

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))


def write(folder: Path, text: str, *, name: str = "a.yaml") -> Path:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


def refusal(path: Path, *sets: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        loading.load(path, sets=sets)
    assert str(caught.value) == "\n".join(caught.value.problems)
    return list(caught.value.problems)


def test_only_the_environment_is_required(tmp_path: Path) -> None:
    config = loading.load(write(tmp_path, "env: {id: CartPole-v1}"))
    assert config.env.id == "CartPole-v1"
    assert config.labels.budget == 700


def test_numbers_and_booleans_are_those_of_yaml_1_2(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        "env: {id: E, kwargs: {a: 1e-4, b: on, c: 2026-01-02, d: 010, e: 0x1f, f: .5, g: 1:30}}",
    )
    assert loading.load(file).env.kwargs == {
        "a": 1e-4, "b": "on", "c": "2026-01-02", "d": 10, "e": 31, "f": 0.5, "g": "1:30",
    }  # fmt: skip


def test_a_key_that_is_gone_is_ignored_in_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old = "env: {id: E}\nclips: {crf: 20, fps: 9}\nrollout: {label_timeout_seconds: 60.0}\n"
    config = loading.load(write(tmp_path, old), sets=["reward.l2_low=1.1"])
    assert config.clips.fps == 9
    (line,) = caplog.messages  # the others had the value that holds now
    assert line == "clips.crf=20 is ignored: this key is gone, and 32 holds now; take it out"
    assert not set(loading.GONE) & set(loading.flat(config))


def test_a_group_without_keys_is_an_empty_group(tmp_path: Path) -> None:
    config = loading.load(
        write(tmp_path, "env: {id: E}\nlabels:\n  teacher:\nquery:\n  # pool: 5\n")
    )
    assert config.query.pool == 1000


def test_a_file_extends_another_and_is_merged_over_it(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    write(
        tmp_path,
        "env: {id: E, kwargs: {a: 1, b: 2}}\nreward: {hidden: [8, 8], lr: 1e-3}",
        name="base.yaml",
    )
    write(tmp_path, "extends: base.yaml\nreward: {lr: 2e-3}", name="middle.yaml")
    file = write(
        tmp_path / "sub", "extends: ../middle.yaml\nenv: {kwargs: {b: 3}}\nreward: {hidden: [4]}"
    )
    config = loading.load(file)
    assert config.env.kwargs == {"a": 1, "b": 3}
    assert config.reward.hidden == (4,)
    assert config.reward.lr == 2e-3


def test_files_extending_each_other_are_refused(tmp_path: Path) -> None:
    file = write(tmp_path, "extends: b.yaml")
    write(tmp_path, "extends: a.yaml", name="b.yaml")
    assert refusal(file) == [
        "extends: files cannot extend each other in a circle, got a.yaml -> b.yaml -> a.yaml; "
        "take one out"
    ]


def test_a_missing_file_is_named_with_its_neighbor(tmp_path: Path) -> None:
    write(tmp_path, "env: {id: E}", name="pendulum.yaml")
    (problem,) = refusal(tmp_path / "pendlum.yaml")
    assert problem.endswith(f"no such config file; did you mean {tmp_path / 'pendulum.yaml'}?")
    (problem,) = refusal(write(tmp_path, "extends: gone.yml"))
    assert "gone.yml (named in a.yaml): no such config file" in problem


def test_set_is_parsed_like_the_file_and_wins(tmp_path: Path) -> None:
    file = write(tmp_path, "env: {id: E, kwargs: {a: 1}}\nlearner: {lr: 1e-3}")
    config = loading.load(
        file, sets=["learner.lr=1e-5", "env.kwargs.b=[1, x]", "labels.budget=1e3", "seed=4"]
    )
    assert loading.flat(config)["learner.lr"] == 1e-5
    assert config.env.kwargs == {"a": 1, "b": [1, "x"]}
    assert config.labels.budget == 1000
    assert config.seed == 4


KEPT = """env: {id: E, kwargs: {a: 1, b: 2}}
reward: {module_kwargs: {size: 1}, lr: 0.5}
labels: {teacher: {kwargs: {c: 3}}}
"""


def test_set_replaces_a_mapping_of_ones_own_and_merges_groups_of_keys(tmp_path: Path) -> None:
    file = write(tmp_path, KEPT)
    sets = ["env.kwargs={}", "reward={module_kwargs: {depth: 2}}", "labels.teacher.kwargs={d: 4}"]
    config = loading.load(file, sets=sets)
    assert config.env.kwargs == {}
    assert config.env.id == "E"
    assert (config.reward.module_kwargs, config.reward.lr) == ({"depth": 2}, 0.5)
    assert config.labels.teacher.kwargs == {"d": 4}


def test_set_of_one_entry_keeps_the_others_of_a_mapping(tmp_path: Path) -> None:
    config = loading.load(
        write(tmp_path, KEPT), sets=["env.kwargs.a=5", "env.kwargs={c: 7}", "env.kwargs.d=8"]
    )
    assert config.env.kwargs == {"c": 7, "d": 8}
    assert loading.load(write(tmp_path, KEPT), sets=["env.kwargs.a=5"]).env.kwargs == {
        "a": 5,
        "b": 2,
    }


def test_every_mapping_of_ones_own_can_be_cleared(tmp_path: Path) -> None:
    free = [key.name for key in errors.all_keys() if key.type == "mapping"]
    assert free == [
        "env.kwargs",
        "rollout.resources",
        "labels.teacher.kwargs",
        "reward.module_kwargs",
        "learner.resources",
        "learner.rllib",
    ]
    file = write(tmp_path, "env: {id: E}")
    filled = loading.load(file, sets=[f"{name}.x=1" for name in free])
    cleared = loading.load(
        file, sets=[*(f"{name}.x=1" for name in free), *(f"{name}={{}}" for name in free)]
    )
    for name in free:
        assert (loading.flat(filled)[name], loading.flat(cleared)[name]) == ({"x": 1}, {})


def test_set_without_a_value_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path, "env: {id: E}")
    example = "for example learner.lr=1e-4"
    assert refusal(file, "seed", "a..b=1", "seed=[") == [
        f"--set: takes key=value with a dotted key, got 'seed'; {example}",
        f"--set: takes key=value with a dotted key, got 'a..b=1'; {example}",
        "--set seed line 1: not YAML: expected the node content, but found '<stream end>'; "
        "look at the indentation and quotes around it",
    ]


def test_every_problem_is_told_at_once_with_its_place_and_the_way_out(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        "env: {id: E}\nlearner:\n  lr: -1\n  hidden: [8, x]\n  minibatch_size: 4096\n  "
        "num_epochs: true\n"
        "labels: {source: orcale}\nreward: {lr: .nan, members: 1}\nquery: 5\n",
    )
    assert refusal(file, "reward.dropout=1", "tensorboard=maybe") == [
        "learner.num_epochs: must be a whole number >= 1, got true (a.yaml line 6); the default "
        "is 10",
        "labels.source: must be one of 'none', 'oracle' or 'human', got 'orcale' (a.yaml line 7); "
        "did you mean oracle?",
        "query: must be a group of keys, got 5 (a.yaml line 9); its keys are segment_length, "
        "pool, newest, selection, random_share, candidate_factor, max_open, lease_seconds",
        "reward.dropout: must be less than 1, got 1 (--set reward.dropout); the default is 0.0",
        "reward.lr: must be a finite number, got nan (a.yaml line 8); the default is 0.003",
        "learner.lr: must be greater than 0, got -1 (a.yaml line 3); the default is 0.001",
        "learner.hidden[1]: must be a whole number, got 'x' (a.yaml line 4); the default is [64, "
        "64]",
        "tensorboard: must be true or false, got 'maybe' (--set tensorboard); the default is true",
        "query.selection=disagreement needs at least two members: with one, every pair scores "
        "zero. Got reward.members=1; set reward.members=3 or query.selection=random",
        "learner.minibatch_size=4096 cannot exceed learner.train_batch_size=2048",
    ]


def test_rules_across_keys_are_one_line_each(tmp_path: Path) -> None:
    file = write(tmp_path, "env: {id: E}\nlabels: {labelers: 0}\nlearner: {minibatch_size: 4096}\n")
    assert [problem.partition(" ")[0] for problem in refusal(file)] == [
        "labels.budget=700",
        "learner.minibatch_size=4096",
    ]


def test_a_rule_across_keys_is_silent_about_a_key_that_is_wrong_in_itself(tmp_path: Path) -> None:
    file = write(tmp_path, "env: {id: E, max_episode_steps: 20}\nquery: {segment_length: -1}\n")
    (problem,) = refusal(file)
    assert problem.startswith("query.segment_length: must be at least 1, got -1")


def test_a_missing_environment_is_told_with_its_meaning(tmp_path: Path) -> None:
    way_out = (
        "is required, got nothing; set it (A Gymnasium id, or `package.module:factory` "
        "called with `kwargs`.)"
    )
    for text in ("", "env:", "env: {}"):
        assert refusal(write(tmp_path, text)) == [f"env.id: {way_out}"]


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("learner.lrr", "did you mean learner.lr?"),
        ("lr", "did you mean reward.lr or learner.lr?"),
        ("lerner.lr", "did you mean learner?"),
        ("budgget", "did you mean labels.budget?"),
        ("segment_length", "did you mean query.segment_length?"),
        ("learner.schedule_c", "did you mean labels.schedule_c?"),
        ("fragment_length", "here it is called query.segment_length"),
        ("total_comparisons", "here it is called labels.budget"),
        ("query.feed_type", "here it is called query.selection"),
        ("teacher_eps_mistake", "here it is called labels.teacher.mistake"),
        ("ray.qqq", "the keys of ray are address, num_cpus"),
        ("qqq.zzz", "the keys of a run are name, runs_dir, seed, env"),
    ],
)
def test_an_unknown_key_comes_with_a_suggestion(tmp_path: Path, key: str, hint: str) -> None:
    (problem,) = refusal(write(tmp_path, "env: {id: E}"), f"{key}=1")
    assert ": unknown key, got " in problem
    assert hint in problem


def test_a_learner_is_one_that_there_is_and_ppo_where_none_is_named(tmp_path: Path) -> None:
    file = write(tmp_path, "env: {id: E}\nlearner: {algorithm: ppp, lr: -1}")
    assert refusal(file) == [
        "learner.algorithm: must be one of 'ppo', got 'ppp' (a.yaml line 2); did you mean ppo?"
    ]
    assert refusal(file, "learner.algorithm=[1]")[0].startswith(
        "learner.algorithm: must be one of 'ppo', got [1]"
    )
    plain = loading.load(write(tmp_path, "env: {id: E}\nlearner: {clip: 0.1}"))
    assert plain == loading.load(tmp_path / "a.yaml", sets=["learner.algorithm=ppo"])
    assert loading.flat(plain)["learner.clip"] == 0.1
    (line,) = refusal(tmp_path / "a.yaml", "learner.clop=1")
    assert line.endswith(
        "got 1 (--set learner.clop) with learner.algorithm=ppo; did you mean learner.clip?"
    )


def test_every_habit_names_a_key_that_exists() -> None:
    known = {key.name for key in errors.all_keys()}
    assert set(errors.HABITS.values()) <= known


def test_a_key_written_twice_is_refused_with_both_lines(tmp_path: Path) -> None:
    file = write(tmp_path, "env:\n  id: A\n  id: B\nseed: 1\nseed: 2\n")
    assert refusal(file) == [
        "a.yaml line 3: env.id is written twice, first on line 2; keep one",
        "a.yaml line 5: seed is written twice, first on line 4; keep one",
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("env: {id: E\n", "a.yaml line 2: not YAML: expected ',' or '}'"),
        ("env:\n\tid: E\n", "a.yaml line 2: not YAML: found character '\\t'"),
        ("- 1\n", "a configuration is a mapping of keys to values, got list"),
        ("a: 1\n---\nb: 2\n", "a.yaml line 2: not YAML: but found another document"),
        ("1: a\n", "a.yaml line 1: a key is a text, got '1'; put it in quotes"),
        ("env: &e {id: E, kwargs: {self: *e}}\n", "an anchor cannot contain itself"),
        ("extends: [a, b]\n", "extends: must be the path of one file, got ['a', 'b']"),
        ("\x00", "a.yaml: not YAML: unacceptable character"),
    ],
)
def test_text_that_is_no_configuration_is_named(tmp_path: Path, text: str, problem: str) -> None:
    assert any(problem in found for found in refusal(write(tmp_path, text)))


def test_a_binary_file_and_a_directory_are_refused(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00")
    assert "not a text file" in refusal(tmp_path / "b.yaml")[0]
    assert "cannot be read: Is a directory" in refusal(tmp_path)[0]


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(min_size=1), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(values)
def test_what_is_shown_is_read_back_as_the_same(data: Any) -> None:
    assert yamlfile.parse(yamlfile.show({"key": data}), source="x")[0] == {"key": data}


def test_a_dumped_configuration_loads_as_the_same(tmp_path: Path) -> None:
    texts = {
        "a": "1e-4",
        "b": "yes",
        "c": "null",
        "d": "2026-01-02",
        "e": "",
        "f": "0x1",
        "g": [1, 2.5, None],
    }
    config = RunConfig.model_validate(
        {"env": {"id": "E", "kwargs": texts}, "learner": {"lr": 1e-7}}
    )
    again = loading.load(write(tmp_path, loading.dump(config)))
    assert again == config
    assert loading.sha256(again) == loading.sha256(config)


def test_the_hash_can_leave_out_the_seed() -> None:
    one, two = (loading.parse({"env": {"id": "E"}, "seed": seed}) for seed in (1, 2))
    assert loading.sha256(one) != loading.sha256(two)
    assert loading.sha256(one, without=["seed"]) == loading.sha256(two, without=["seed"])


def test_passwords_are_never_written() -> None:
    config = loading.parse({"env": {"id": "E"}}, sets=["redis.url=rediss://ann:secret@host:7000/1"])
    assert "rediss://ann:***@host:7000/1" in loading.dump(config)
    assert "secret" not in loading.dump(config) + str(loading.flat(config))
    assert (
        addresses.redact("unix:///x.sock?db=1&password=secret")
        == "unix:///x.sock?db=1&password=***"
    )
    with pytest.raises(ConfigError) as caught:
        loading.parse({"env": {"id": "E"}}, sets=["redis.urll=redis://:secret@host"])
    assert "secret" not in str(caught.value)


def test_a_teacher_is_changed_by_the_same_rules() -> None:
    assert loading.teacher(TeacherConfig(name="noisy"), sets=["mistake=0.2"]).mistake == 0.2
    with pytest.raises(
        ConfigError,
        match=r"labels\.teacher\.mistake: must be at most 1, got 2; the default is null",
    ):
        loading.teacher(TeacherConfig(), sets=["mistake=2"])
    own = TeacherConfig(name="a:B", kwargs={"margin": 1, "tie": 2})
    assert loading.teacher(own, sets=["kwargs.tie=3"]).kwargs == {"margin": 1, "tie": 3}
    assert loading.teacher(own, sets=["kwargs={tie: 4}"]).kwargs == {"tie": 4}
    with pytest.raises(ConfigError, match="--set-teacher: takes key=value"):
        loading.teacher(TeacherConfig(), sets=["mistake"])


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_every_shipped_configuration_is_valid(file: Path) -> None:
    extended = {
        yamlfile.parse(other.read_text(), source=other.name)[0].get("extends") for other in CONFIGS
    }
    if file.name in extended and "id" not in yamlfile.parse(file.read_text(), source=file.name)[
        0
    ].get("env", {}):
        loading.load(file, sets=["env.id=SomeTask-v1"])  # a base for others, which name the task
    else:
        loading.load(file)


ALIASES = "a0: &a0 [x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{f'*a{n - 1}, ' * 8}]\n" for n in range(1, 12)
)  # which stand for a hundred billion texts


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (ALIASES, "values"),
        ("labels: " + "{a: " * 900 + "1" + "}" * 900, "at most 40 deep"),
        ("seed: " + "9" * 6000, "too many digits"),
        ("env: {id: !!timestamp 2026-99-99}", "cannot be taken as"),
        ("".join(f"key{n}: {n}\n" for n in range(5000)), "4,981 more keys are wrong"),
        ("reward: {<<: 3}", "merge key takes a group"),
    ],
    ids=["aliases", "depth", "digits", "tag", "unknown keys", "merge"],
)  # fmt: skip
def test_what_no_person_writes_is_refused_in_few_lines(
    tmp_path: Path, text: str, words: str
) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        loading.load(tmp_path / "a.yaml")
    assert words in str(caught.value)
    assert len(caught.value.problems) <= 23


@pytest.mark.parametrize(
    "text",
    [
        f"seed={10**30}",
        f"learner.total_env_steps={2**64}",
        f"query.pool={2**40}",
        "rollout.num_envs_per_env_runner=1e9",
        "reward.members=100000",
        "reward.hidden=[0]",
        "learner.hidden=[64, 1000000000]",
    ],
)
def test_a_size_that_no_machine_has_is_refused(tmp_path: Path, text: str) -> None:
    file = write(tmp_path, "env: {id: Pendulum-v1}")
    (line,) = refusal(file, text)
    assert line.startswith(text.partition("=")[0] + ":")
    assert "at most" in line
    assert "--set" in line
    loading.load(file, sets=[f"seed={2**53}"])


def test_merge_keys_are_taken_and_own_keys_win(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "env: {id: E}\nlearner: &small\n  lr: 1e-3\n  hidden: [8]\nreward:\n  <<: *small\n  lr: "
        "0.5\n"
    )
    config = loading.load(tmp_path / "a.yaml")
    assert (config.reward.lr, config.reward.hidden) == (0.5, (8,))
    assert loading.flat(config)["learner.lr"] == 1e-3


def test_a_pipe_and_a_long_chain_are_not_followed(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(ConfigError, match="pipe or a device"):
        loading.load(tmp_path / "pipe.yaml")
    for n in range(30):
        (tmp_path / f"{n}.yaml").write_text(f"extends: {n + 1}.yaml")
    with pytest.raises(ConfigError, match="chain of at most 20"):
        loading.load(tmp_path / "0.yaml")
