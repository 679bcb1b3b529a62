"""The reward trainer: answers become preferences on disk, preferences become versions;
a kill loses neither.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import redis

from rlhp.labeling.teachers import BPrefTeacher
from rlhp.labeling.worker import LabelerWorker
from rlhp.preferences.answers import REUSED
from rlhp.preferences.dataset import PreferenceDataset
from rlhp.queue.queue import QueryQueue
from rlhp.queue.records import body_of
from rlhp.reward.trainer import RewardTrainer
from rlhp.reward.versions import RewardStore
from rlhp.storage.lease import TakenOver
from rlhp.system.roles import RewardTrainerStatus
from rlhp.types import Query, encode, query_id
from tests.preferences.dataset_samples import answer, segment
from tests.reward.trainer_parts import (
    LABELER,
    PAGE,
    DiesBeforeAck,
    Run,
    as_json,
    config,
    known_rows,
    transitions,
)


@pytest.fixture
def run(redis_url: str, tmp_path: Path) -> Run:
    return Run(redis_url, tmp_path)


def worked(trainer: RewardTrainer, env_steps: int) -> RewardTrainerStatus:
    """The status once nothing is left to do at this env step."""
    while trainer.step(env_steps):
        pass
    return trainer.status()


def updates(status: RewardTrainerStatus) -> float:
    """Gradient steps so far."""
    count = status.metrics["reward/updates"]
    assert count is not None
    return count


# Version 1


def test_version_1_is_fitted_once_all_initial_answers_are_in(run: Run) -> None:
    trainer = run.trainer()
    run.answer("first", "second", "tie")
    status = worked(trainer, 100)
    assert (status.version, status.answered, updates(status)) == (
        0,
        3,
        0,
    )
    assert run.published == []
    run.answer("first")
    status = worked(trainer, 120)
    assert status.version == 1
    assert status.trainable == 4
    assert status.published_steps == 120
    assert updates(status) == 2, "two epochs of one minibatch"
    assert run.published == [1]
    assert run.newest().version == 1


def test_offline_waits_for_the_whole_budget(run: Run) -> None:
    trainer = run.trainer(config(labels={"schedule": "offline", "budget": 5}))
    run.answer(*4 * ["first"])
    assert worked(trainer, 0).version == 0
    run.answer("second")
    assert worked(trainer, 0).version == 1


def test_an_incomparable_pair_counts_as_answered_and_is_never_trained_on(run: Run) -> None:
    trainer = run.trainer()
    run.answer("first", "incomparable", "incomparable", "tie")
    status = worked(trainer, 0)
    assert status.version == 1
    assert (
        status.answered,
        status.metrics["labels/incomparable"],
        status.metrics["labels/ties"],
    ) == (
        4,
        2,
        1,
    )
    assert status.trainable == 2
    assert run.dataset().counts()["incomparable"] == 2


def test_nothing_is_fitted_to_incomparable_answers_alone(run: Run) -> None:
    trainer = run.trainer()
    run.answer(*4 * ["incomparable"])
    status = worked(trainer, 0)
    assert (status.version, updates(status)) == (1, 0), "nothing more is asked before version 1"
    run.answer(*4 * ["second"])  # a lone one is out of every bag one time in twenty
    assert updates(worked(trainer, 1000)) > 0


def test_version_1_waits_until_somebody_knows_recent_transitions(run: Run) -> None:
    known: list[bool] = []
    trainer = run.trainer(recent=lambda count: transitions(count) if known else None)
    run.answer(*4 * ["first"])
    assert worked(trainer, 0).version == 0
    known.append(True)
    assert worked(trainer, 0).version == 1


def test_reused_answers_alone_make_version_1_and_are_not_counted_as_this_runs(run: Run) -> None:
    pairs = [(segment(100 + 2 * n), segment(101 + 2 * n)) for n in range(3)]
    store = run.dataset()
    store.add_segments([each for pair in pairs for each in pair])
    store.add_events([answer(*pair, note=f"{REUSED}elsewhere") for pair in pairs])
    trainer = run.trainer(config(labels={"budget": 0, "reuse": "elsewhere"}))
    status = worked(trainer, 0)
    assert (status.version, status.answered, status.trainable) == (
        1,
        0,
        3,
    )


# Later versions


def test_fitting_is_paid_by_env_steps(run: Run) -> None:
    trainer = run.trainer(config(reward={"publish_every_steps": 1_000_000}))
    run.answer(*4 * ["first"])
    before = updates(worked(trainer, 1000))
    for env_steps, earned in [(1000, 0), (1019, 0), (1020, 1), (1100, 5), (1100, 5), (1410, 20)]:
        assert updates(worked(trainer, env_steps)) - before == earned, env_steps
    run.answer("second", "tie")
    assert updates(worked(trainer, 1410)) - before == 20, "answers are no reason to fit more"


def test_one_turn_fits_no_more_than_what_lets_it_look_at_the_stream_again(run: Run) -> None:
    trainer = run.trainer(config(reward={"publish_every_steps": 1_000_000}))
    run.answer(*4 * ["first"])
    before = updates(worked(trainer, 0))
    assert trainer.step(10_000)
    assert updates(trainer.status()) - before == 50
    run.answer("second")
    assert trainer.step(10_000)
    assert trainer.status().answered == 5


def test_a_version_is_published_every_so_many_env_steps(run: Run) -> None:
    trainer = run.trainer()
    run.answer(*4 * ["first"])
    worked(trainer, 50)
    found = [
        worked(trainer, env_steps).version for env_steps in (50, 149, 150, 151, 249, 250, 900, 901)
    ]
    assert found == [1, 1, 2, 2, 2, 3, 4, 4]
    assert run.published == [1, 2, 3, 4]
    assert trainer.status().published_steps == 900


def test_without_a_gradient_step_there_is_no_new_version(run: Run) -> None:
    trainer = run.trainer(config(reward={"label_uses_per_step": 0}))
    run.answer(*4 * ["first"])
    assert worked(trainer, 0).version == 1
    assert worked(trainer, 100_000).version == 1


def test_a_version_is_on_disk_before_anyone_is_rewarded_by_it(run: Run) -> None:
    seen: list[int] = []
    trainer = run.trainer(
        publish=lambda weights: seen.append(run.newest().version - weights.version)
    )
    run.answer(*4 * ["first"])
    worked(trainer, 0)
    worked(trainer, 200)
    assert seen == [0, 0]


# Answers


def test_a_retracted_answer_is_forgotten(run: Run) -> None:
    trainer = run.trainer()
    *_, last = run.answer("first", "second", "tie", "first")
    worked(trainer, 0)
    undo = run.queue.undo(query=last, labeler=LABELER, page=PAGE, rev=1)
    status = worked(trainer, 0)
    assert (status.answered, status.trainable) == (3, 3)
    assert undo.token is not None
    run.queue.answer(
        query=last, labeler=LABELER, page=PAGE, token=undo.token, answer="second", rev=2
    )
    status = worked(trainer, 0)
    assert (status.answered, status.trainable) == (4, 4)
    (preference,) = [p for p in run.dataset().preferences() if p.query == last]
    assert preference.answer == "second"


def test_an_answer_changed_to_incomparable_leaves_the_training_data(run: Run) -> None:
    trainer = run.trainer()
    query, *_ = run.answer(*4 * ["first"])
    worked(trainer, 0)
    undo = run.queue.undo(query=query, labeler=LABELER, page=PAGE, rev=1)
    assert undo.token is not None
    run.queue.answer(
        query=query, labeler=LABELER, page=PAGE, token=undo.token, answer="incomparable", rev=2
    )
    status = worked(trainer, 0)
    assert (
        status.answered,
        status.metrics["labels/incomparable"],
        status.trainable,
    ) == (4, 1, 3)


def test_an_answer_is_acknowledged_only_when_it_is_on_disk(run: Run) -> None:
    run.answer("first", "second", "tie")
    dying = run.trainer(answers=DiesBeforeAck(run.queue))
    with pytest.raises(SystemExit):
        dying.step(0)
    assert len(known_rows(run)) == 3
    assert run.queue.stats().unacked == 3
    restarted = run.trainer()
    status = worked(restarted, 0)
    assert status.answered == 3
    assert len(known_rows(run)) == len(set(known_rows(run))) == 3, "delivered twice, stored once"
    assert run.queue.stats().backlog == 0


def test_an_answer_that_could_not_be_stored_is_delivered_again(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.answer("first")

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    trainer = run.trainer()
    with monkeypatch.context() as patch:
        patch.setattr(PreferenceDataset, "add_events", full)
        with pytest.raises(OSError, match="No space left"):
            trainer.step(0)
    assert run.queue.stats().unacked == 1
    assert worked(run.trainer(), 0).answered == 1
    assert run.queue.stats().backlog == 0


ODD: list[dict[str, str]] = [
    {"rev": "99999"},
    {"body": '{"env_steps": "many"}'},
    {"body": '{"strategy": null}'},
    {"body": '{"purpose": []}'},
    {"hidden": '{"predicted_first": "x"}'},
    {"hidden": '{"gold": 1}'},
    {"meta": "[" * 90_000},
    {"meta": '"words"'},
    {"by": "a b"},
    {"made": "1" * 17},
    {"second": "s0"},
    {"ev": "applause"},
    {"body": '{"score": {}}'},
]
"""What differs from an entry that the queue wrote."""


def test_an_entry_that_makes_no_row_is_set_aside_and_hides_nothing(run: Run) -> None:
    whole = {
        "ev": "answer",
        "by": "ann",
        "page": "p",
        "tok": "1",
        "rev": "1",
        "ans": "first",
        "how": "ok",
        "meta": "{}",
        "first": "s0",
        "second": "s1",
        "body": "{}",
        "made": "1700000000000",
        "hidden": "{}",
    }
    with redis.Redis.from_url(run.url) as client:
        for number, change in enumerate(ODD):
            client.xadd(f"rlhp:{{{run.name}}}:answers", {**whole, "id": f"odd{number}", **change})
    run.answer("first", "second", "tie")
    assert worked(run.trainer(), 0).answered == 3
    assert (run.queue.stats().set_aside, run.queue.stats().backlog) == (len(ODD), 0)
    assert worked(run.trainer(), 0).answered == 3, "nor is a resume stopped by it"
    assert len(known_rows(run)) == 3


def test_a_trainer_whose_run_was_taken_over_publishes_nothing_more(run: Run) -> None:
    run.answer(*4 * ["first"])
    trainer = run.trainer(answers=run.queue, drain_every_seconds=3600)
    assert trainer.step(0), "the answers are taken in"
    QueryQueue(run.url, run=run.name).open(cap=9, config_sha256="c0ffee", resume=True)
    with pytest.raises(TakenOver):
        trainer.step(0)
    assert run.published == []
    assert RewardStore(run.folder / "reward").newest() is None


# Restarts


def test_a_restarted_trainer_goes_on_where_it_was(run: Run) -> None:
    trainer = run.trainer()
    run.answer("first", "second", "tie", "incomparable")
    worked(trainer, 40)
    before = worked(trainer, 260)
    assert before.version == 2
    again = run.trainer()
    assert run.published == [1, 2, 2], "replicas that lost a push get the newest version again"
    after = again.status()
    assert updates(after) == updates(before)
    for name in ("version", "published_steps", "answered", "trainable"):
        assert getattr(after, name) == getattr(before, name), name
    worked(again, 260)
    assert updates(again.status()) == updates(before), "what was paid for is not paid again"
    run.answer("second")
    assert worked(again, 360).version == 3
    assert run.published == [1, 2, 2, 3]


def test_a_trainer_killed_between_state_and_version_never_repeats_a_version(run: Run) -> None:
    trainer = run.trainer()
    run.answer(*4 * ["first"])
    worked(trainer, 0)
    worked(trainer, 100)
    (run.folder / "reward" / "version-000002.reward").unlink()
    again = run.trainer()
    assert run.published == [1, 2, 1]
    assert worked(again, 200).version == 3


def test_a_trainer_killed_before_its_first_version_starts_anew(run: Run) -> None:
    trainer = run.trainer()
    run.answer(*4 * ["first"])
    worked(trainer, 0)
    (run.folder / "reward" / "version-000001.reward").unlink()
    assert worked(run.trainer(), 0).version == 1


def test_the_ensemble_after_a_restart_is_the_one_that_never_died(run: Run) -> None:
    run.answer("first", "second", "tie", "first", "second")
    whole = run.trainer()
    worked(whole, 0)
    restarted = run.trainer()
    for trainer in (whole, restarted):
        trainer.step(400)
    states = [trainer._fitter.publish(9).to_bytes() for trainer in (whole, restarted)]
    assert states[0] == states[1]


def test_the_metrics_of_the_status_are_plain_numbers(run: Run) -> None:
    trainer = run.trainer()
    run.answer(*4 * ["first"])
    status = worked(trainer, 0)
    assert as_json(status.metrics)["reward/train_accuracy"] is not None
    assert status.fit_seconds > 0


def test_the_best_of_four_goes_from_the_queue_through_a_teacher_into_the_fit(run: Run) -> None:
    run.answer("second")
    shown = tuple(segment(number) for number in range(4))
    asked = Query(
        id=query_id(run=run.name, purpose="train", candidates=[each.id for each in shown]),
        candidates=shown,
    )
    run.dataset().add_segments(shown)
    payloads = {each.id: encode(each) for each in shown}
    put = run.queue.put(
        query=asked.id, candidates=list(payloads), body=body_of(asked), payloads=payloads
    )
    assert put == "ok"
    assert LabelerWorker(run.queue, BPrefTeacher(), name="teacher").step() == 1
    trainer = run.trainer()
    trainer.step(0)
    best = max(range(4), key=lambda place: shown[place].true_return)
    target = trainer._fitter._examples.target.tolist()
    assert sorted(target) == sorted(
        [[float(place == best) for place in range(4)], [0.0, 1.0, 0.0, 0.0]]
    )
    assert run.dataset().counts()["answers"] == 2
