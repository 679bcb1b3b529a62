"""What can be refused is refused before anything starts, and leaves no run directory
behind.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from rlhp.cli import main
from rlhp.preferences.dataset import PreferenceDataset
from rlhp.run.preflight import check, opened_queue
from rlhp.storage.rundir import RunDir
from tests.preferences.dataset_samples import NESTED, PLAIN, K, answer, header, segment
from tests.small_runs import SMALL, small

SAMPLES = "tests.reward.fit_samples"


def refusal(**changes: Any) -> str:
    with pytest.raises(ValueError, match=r".") as caught:
        check(small(**changes))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_run_that_can_work_has_its_facts() -> None:
    assert check(small()).spaces == PLAIN
    assert (
        check(small(labels={"source": "none"}, reward={"module": "nowhere:Name"})).episode_limit
        == 20
    )


@pytest.mark.parametrize(
    ("reward", "words"),
    [
        ({"module": "nowhere:Name"}, "reward.module='nowhere:Name': 'nowhere' cannot be imported"),
        (
            {"module": f"{SAMPLES}:Fussy"},
            "could not be built with the keywords action_size, obs_size",
        ),
        (
            {"module": f"{SAMPLES}:Linear", "module_kwargs": {"widht": 3}},
            "keywords action_size, obs_size, widht",
        ),
        (
            {"module": f"{SAMPLES}:TwoDimensional"},
            "returns rewards [B]; with B = 2 it returned [2, 1]",
        ),
        ({"device": "warp:9"}, "reward.device='warp:9' cannot be used here"),
    ],
)
def test_a_reward_model_is_built_once_to_see_whether_it_can_be(
    reward: dict[str, Any], words: str
) -> None:
    assert words in refusal(reward={**SMALL["reward"], **reward})


def test_a_device_of_another_machine_is_its_own_affair() -> None:
    check(small(reward={"device": "cuda:7"}, ray={"address": "auto"}))


def test_a_cluster_that_nobody_answers_at_is_refused_at_once() -> None:
    with pytest.raises(
        ConnectionError,
        match=r"^ray\.address=127\.0\.0\.1:1: nothing answers there \(.*\); start the head",
    ):
        check(small(ray={"address": "127.0.0.1:1"}))


def test_a_built_in_teacher_needs_env_rewards() -> None:
    words = refusal(labels={"share_env_reward": False, "teacher": {"name": "noisy"}})
    assert words == (
        "the built-in teacher 'noisy' judges by env rewards, which labels.share_env_reward=false "
        "keeps from it; leave that key out, or name a teacher of your own"
    )
    check(small(labels={"share_env_reward": False}))  # this one looks at observations
    people = {"source": "human", "teacher": {"name": "noisy"}}
    check(small(labels=people, clips={"enabled": False}))  # nobody starts it


def preferences(folder: Path, **changes: Any) -> Path:
    """A dataset with one answer."""
    changes.setdefault("spaces", PLAIN)
    dataset = PreferenceDataset.create(folder / "preferences", header=header(**changes))
    first, second = (segment(number, changes["spaces"]) for number in range(2))
    dataset.add_segments([first, second])
    dataset.add_events([answer(first, second)])
    return folder


def test_answers_to_reuse_must_be_there_and_fit(tmp_path: Path) -> None:
    fits = preferences(tmp_path / "fits")
    check(small(labels={"reuse": str(fits)}))
    assert str(tmp_path / "none") in refusal(labels={"reuse": str(tmp_path / "none")})
    other = preferences(tmp_path / "other", spaces=NESTED)
    assert refusal(labels={"reuse": str(other)}).startswith(
        "answers about other spaces cannot be reused: observation"
    )
    words = refusal(labels={"reuse": str(fits)}, query={"segment_length": K - 1})
    assert words.endswith(f"set query.segment_length={K}")
    empty = PreferenceDataset.create(tmp_path / "empty" / "preferences", header=header())
    assert refusal(labels={"reuse": str(empty.path)}) == (
        f"there is no answer to reuse in {empty.path}; name another run, or leave labels.reuse "
        "empty"
    )


def test_a_resumed_run_has_its_copies_and_does_not_ask_for_the_source(tmp_path: Path) -> None:
    gone = small(labels={"reuse": str(tmp_path / "gone")})
    check(gone, resume=True)
    check(small(labels={"source": "none", "reuse": str(tmp_path / "gone")}))


@pytest.mark.parametrize("command", ["train", "compare"])
@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("env.id=Pendulumm-v1", "env.id='Pendulumm-v1' is no Gymnasium id"),
        (
            "reward.module=nowhere:Name",
            "reward.module='nowhere:Name': 'nowhere' cannot be imported",
        ),
        ("labels.reuse=nowhere", "nowhere"),
        ("learner.rllib.gamma=0.9", "say it as learner.gamma"),
        ("labels.teacher.name=orakle", "did you mean 'oracle'?"),
    ],
)
def test_what_is_refused_leaves_no_run_directory(
    command: str, setting: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "small.yaml"
    file.write_text(yaml.dump({**SMALL, "runs_dir": str(tmp_path / "runs")}))
    assert main.run([command, str(file), "--set", setting]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert words in line
    assert [path.name for path in tmp_path.iterdir()] == ["small.yaml"]


def test_there_is_nothing_to_compare_without_preferences(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "small.yaml"
    file.write_text(yaml.dump({**SMALL, "runs_dir": str(tmp_path / "runs")}))
    assert main.run(["compare", str(file), "--set", "labels.source=none"]) == 2
    assert (
        "compare adds the control arm by itself, got labels.source=none" in capsys.readouterr().err
    )
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("share", "said"), [(None, "yes"), (False, "no")])
def test_the_queue_knows_whether_env_rewards_come_with_a_query(
    share: bool | None, said: str, tmp_path: Path, redis_url: str
) -> None:
    config = small(
        name=f"shares-{said}",
        runs_dir=str(tmp_path),
        redis={"url": redis_url},
        labels={"share_env_reward": share},
    )
    rundir = RunDir.create(config, "small")
    with opened_queue(config, rundir, check(config), resume=False) as queue:
        assert queue.info()["shares_env_reward"] == said
        assert rundir.redis_url() == redis_url
    assert queue.state == "closed"
    queue.disconnect()
