"""Fifty labelers at one labeling server, half of them killed: is every answer counted
once, and how fast is it?

    python -m benchmarks.labelers                 # ten minutes, 5 processes of 10 labelers
    python -m benchmarks.labelers --minutes 1
    python -m benchmarks.labelers --minutes 2 --watching 450  # and so many who look on

A labeler is a thread with connections of its own that leases, fetches both clips,
thinks, answers and now and then undoes, skips or repeats a call, as the page does.
Processes are killed with SIGKILL in the middle of whatever they do and new ones take
their place, as many times as there are processes. Each writes down what it was told
before it goes on.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import signal
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx

from benchmarks.report import rows
from rlhp.queue.clips import SIDES, Clips
from rlhp.queue.embedded import EmbeddedRedis
from rlhp.queue.queue import Event, QueryQueue

PROCESSES = 5
LABELERS_EACH = 10
THINK_SECONDS = 1.0
LOOK_EVERY_SECONDS = 20.0
"""Each connection of those who look on."""
PLACES = 8
"""Addresses of theirs: a server gives one address half of its connections at most."""
LEASE_SECONDS = 5.0
OPEN = 400
CLIPS_BYTES, ROOM_SECONDS = 128 * 2**20, 5.0
"""As a run: those of queries finished longest ago go first."""
SHARED = 10
"""Load average that this bench does not reach by itself on two cores."""
CLIP = b"\x1a\x45\xdf\xa3" + bytes(100_000)


def label(address: str, *, name: str, diary: Path, seed: int) -> None:
    """One labeler until the process is killed; every accepted answer goes to the diary,
    every call's time too.
    """
    dice = random.Random(seed)
    page, http = f"{name}-{seed}", httpx.Client(base_url=address, timeout=30)
    http.headers["Authorization"] = f"Bearer {os.environ['RLHP_TOKEN_' + name.replace('-', '_')]}"
    with diary.open("a", encoding="utf-8", buffering=1) as out:

        def call(path: str, **said: Any) -> Any:
            while True:
                began = time.monotonic()
                reply = http.post(path, json={"page": page, **said})
                if reply.status_code == 200:
                    out.write(
                        json.dumps({"call": path, "ms": 1000 * (time.monotonic() - began)}) + "\n"
                    )
                    return reply.json()
                assert reply.status_code == 503, reply.text
                time.sleep(1)

        while True:
            leases = call("/api/leases")["leases"]
            if not leases:
                time.sleep(dice.uniform(0.5, 1.0))
                continue
            lease = leases[0]
            for side in ("left", "right"):
                assert len(http.get(lease[side]).content) == len(CLIP)
            time.sleep(dice.expovariate(1 / THINK_SECONDS))
            _judge(call, lease, dice, out=out)


def _judge(call: Any, lease: Mapping[str, Any], dice: random.Random, *, out: Any) -> None:
    said = {"query": lease["query"], "token": lease["token"]}
    if dice.random() < 0.02:
        call("/api/skips", **said)
        return
    rev, choice = lease["rev"], dice.choice(["left", "right", "tie", "incomparable"])
    out.write(json.dumps({"sends": lease["query"], "rev": rev}) + "\n")
    status = call("/api/answers", **said, choice=choice, rev=rev)["status"]
    if dice.random() < 0.1:  # the reply was lost, so it is sent again
        assert call("/api/answers", **said, choice=choice, rev=rev)["status"] in (
            "same",
            "gone",
            "denied",
            "conflict",
        )
    out.write(json.dumps({"told": status, "query": lease["query"], "rev": rev}) + "\n")
    if status in ("ok", "late") and dice.random() < 0.05:
        out.write(json.dumps({"undoes": lease["query"], "rev": rev}) + "\n")
        undone = call("/api/undo", query=lease["query"], rev=rev)
        if undone["status"] == "ok":
            rev = undone["lease"]["rev"]
            again = {**said, "token": undone["lease"]["token"], "rev": rev}
            out.write(json.dumps({"sends": lease["query"], "rev": rev}) + "\n")
            status = call("/api/answers", **again, choice="tie")["status"]
            out.write(json.dumps({"told": status, "query": lease["query"], "rev": rev}) + "\n")


def look_on(address: str, *, count: int, until: threading.Event) -> None:
    """So many connections, each of which asks for the state of the run now and then, as
    an open page does.
    """
    name = "onlooker"
    headers = {"Authorization": f"Bearer {os.environ['RLHP_TOKEN_' + name]}"}
    context = ssl.create_default_context()
    places = [f"127.0.0.{2 + number % PLACES}" for number in range(count)]
    clients = [
        httpx.Client(
            base_url=address,
            timeout=30,
            headers=headers,
            transport=httpx.HTTPTransport(
                verify=context, local_address=place, limits=httpx.Limits(max_connections=1)
            ),
        )
        for place in places
    ]
    with ExitStack() as stack:
        for client in clients:
            stack.enter_context(client)
        while not until.is_set():
            for client in clients:
                client.get("/api/run").raise_for_status()
                if until.wait(LOOK_EVERY_SECONDS / count):
                    return


def crowd(address: str, names: list[str], folder: str, seed: int) -> None:
    """One process of labelers."""
    threads = [
        threading.Thread(
            target=label,
            args=(address,),
            kwargs={"name": name, "diary": Path(folder) / f"{name}.{seed}", "seed": seed},
            daemon=True,
        )
        for name in names
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def measure(minutes: float, *, folder: Path, watching: int) -> dict[str, Any]:
    """Run the crowd; the row. AssertionError where an answer is lost or counted twice."""
    with (
        EmbeddedRedis(folder / "redis") as server,
        QueryQueue(server.url, run="load", lease_seconds=LEASE_SECONDS) as queue,
    ):
        facts = {"source": "human", "lease_seconds": str(LEASE_SECONDS)}
        queue.open(cap=OPEN, config_sha256="load", info=facts)
        names = [[f"labeler-{p}-{k}" for k in range(LABELERS_EACH)] for p in range(PROCESSES)]
        _admit(queue, ["onlooker", *(name for group in names for name in group)])
        with subprocess.Popen(
            [
                sys.executable,
                "-m",
                "rlhp",
                "serve",
                "--redis",
                server.url,
                "--run",
                "load",
                "--port",
                ("0"),
            ],
            stdout=subprocess.PIPE,
            text=True,
        ) as page:
            try:
                assert page.stdout is not None
                address = page.stdout.readline().split(": ", 1)[1].partition("/#")[0]
                over = threading.Event()
                onlooker = threading.Thread(
                    target=look_on, args=(address,), kwargs={"count": watching, "until": over}
                )
                onlooker.start()
                asked, killed = _mayhem(queue, address, names, folder=folder, seconds=60 * minutes)
                assert onlooker.is_alive(), "somebody who looks on was turned away"
                over.set()
                onlooker.join()
                load = round(os.getloadavg()[1], 1)
            finally:
                page.send_signal(signal.SIGTERM)
        return {
            "minutes": minutes,
            "watching": watching,
            "asked": asked,
            "killed": killed,
            "load": load,
            **_verdict(queue, folder),
        }


def _admit(queue: QueryQueue, names: list[str]) -> None:

    labelers = queue.accounts
    for name in names:
        os.environ["RLHP_TOKEN_" + name.replace("-", "_")] = labelers.add(name)


def _mayhem(
    queue: QueryQueue, address: str, names: list[list[str]], *, folder: Path, seconds: float
) -> tuple[int, int]:
    """Keep the queue full and the crowd whole, killing a process now and then; queries
    asked, labelers killed.
    """
    spawn, clips, dice = (
        multiprocessing.get_context("spawn"),
        queue.clips,
        random.Random(0),
    )
    kills = sorted(dice.uniform(0.1, 0.9) * seconds for _ in range(PROCESSES))
    began, asked, killed, seed, made_room = time.monotonic(), 0, 0, 0, 0.0

    def start(group: list[str]) -> Any:
        nonlocal seed
        seed += 1
        process = spawn.Process(target=crowd, args=(address, group, str(folder), seed), daemon=True)
        process.start()
        return process

    processes = [start(group) for group in names]
    try:
        while (now := time.monotonic() - began) < seconds:
            asked += _fill(queue, clips, start=asked)
            if now > made_room + ROOM_SECONDS:
                clips.room(CLIPS_BYTES)
                made_room = now
            if kills and now > kills[0]:
                kills.pop(0)
                victim = dice.randrange(PROCESSES)
                processes[victim].kill()
                processes[victim].join()
                killed += LABELERS_EACH
                processes[victim] = start(names[victim])
            assert all(process.is_alive() for process in processes), (
                "a labeler met something it did not expect"
            )
            time.sleep(0.2)
    finally:
        for process in processes:
            process.kill()
            process.join()
    return asked, killed


def _fill(queue: QueryQueue, clips: Clips, *, start: int) -> int:
    stats = queue.stats()
    for number in range(start, start + max(0, OPEN // 2 - stats.open)):
        name = f"q{number}"
        queue.put(
            query=name, candidates=(f"{name}-a", f"{name}-b"), body={}, payloads={}, ready=False
        )
        for side in SIDES:
            clips.store(query=name, side=side, data=CLIP)
        queue.ready(query=name)
    return max(0, OPEN // 2 - stats.open)


def _verdict(queue: QueryQueue, folder: Path) -> dict[str, Any]:
    """Compare what labelers were told with what the log holds."""
    log: list[Event] = []
    while events := queue.events(consumer="verdict"):
        log += events
        queue.ack([event.stream_id for event in events])
    answers = Counter(
        (event.query, event.labeler, event.rev) for event in log if event.event == "answer"
    )
    standing = _standing(log)
    told, sent, times = _diaries(folder)
    lost = [
        key
        for key, status in told.items()
        if status in ("ok", "late", "extra", "same") and not answers[key]
    ]
    invented = [key for key in answers if key not in sent]
    twice = [key for key, count in answers.items() if count > 1]
    counted_twice = [query for query, count in standing.items() if count > 1]
    wrong = {
        "lost": lost,
        "invented": invented,
        "twice in the log": twice,
        "counted twice": counted_twice,
    }
    assert not any(wrong.values()), {name: found[:3] for name, found in wrong.items()}
    assert queue.stats().answered == len(standing)
    return {
        "answers": sum(answers.values()),
        "counted": len(standing),
        "expired": queue.stats().expired,
        "late": sum(event.how == "late" for event in log),
        "extra": sum(event.how == "extra" for event in log),
        **{f"{name}_ms": percentiles(found) for name, found in sorted(times.items())},
    }


def _standing(log: list[Event]) -> Counter[str]:
    """Query -> answers that count and were not taken back."""
    counted: Counter[str] = Counter()
    for event in log:
        if event.how in ("ok", "late"):
            counted[event.query] += {"answer": 1, "retract": -1}.get(event.event, 0)
    return +counted


def _diaries(folder: Path) -> tuple[dict[Any, str], set[Any], dict[str, list[float]]]:
    told: dict[Any, str] = {}
    sent: set[Any] = set()
    times: dict[str, list[float]] = defaultdict(list)
    for diary in folder.glob("labeler-*"):
        name = diary.name.partition(".")[0]
        for line in diary.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue  # the last word of one that was killed
            if "call" in entry:
                times[entry["call"].rpartition("/")[2]].append(entry["ms"])
            elif "sends" in entry:
                sent.add((entry["sends"], name, entry["rev"]))
            elif "told" in entry:
                told[entry["query"], name, entry["rev"]] = entry["told"]
    return told, sent, times


def percentiles(found: list[float]) -> dict[str, float]:
    """Of milliseconds."""
    if len(found) < 2:
        return {}
    cuts = statistics.quantiles(found, n=100)
    return {"p50": round(cuts[49], 1), "p95": round(cuts[94], 1), "p99": round(cuts[98], 1)}


def section() -> str:
    """The newest row in words, for the report."""
    measured = rows.read("labelers")
    if not measured:
        return ""
    row = measured[-1]
    table = "\n".join(
        f"| {name} | {row[f'{name}_ms']['p50']} | {row[f'{name}_ms']['p95']} | "
        f"{row[f'{name}_ms']['p99']} |"
        for name in ("leases", "answers", "undo", "skips")
        if row.get(f"{name}_ms")
    )
    return (
        "## Fifty labelers\n\n"
        f"{PROCESSES * LABELERS_EACH} labelers at one server for {row['minutes']:g} minutes, "
        "beside "
        f"{row.get('watching', 0)} connections of people who look on, {row['killed']} of them "
        f"killed in the middle of a call: {row['answers']} answers in the log, each that a "
        "labeler was told of is "
        f"there once, {row['counted']} queries count one answer each ({row['late']} late, "
        f"{row['extra']} extra, "
        f"{row['expired']} leases ran out). Milliseconds per call, seen by labelers, everything "
        "on one machine, whose "
        "load average was "
        f"{row['load']:.0f}{' (others used it too)' if row['load'] > SHARED else ''}:\n\n"
        f"| call | median | 95 % | 99 % |\n|---|---|---|---|\n{table}\n\n"
        f"`python -m benchmarks.labelers --minutes {row['minutes']:g} --watching "
        f"{row.get('watching', 0)}`; "
        f"{row['machine']}; commit {row['commit']}.\n"
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument(
        "--watching", type=int, default=0, help="connections of people who only look on"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        found = measure(arguments.minutes, folder=Path(scratch), watching=arguments.watching)
    rows.append("labelers", found)
    print(section())


if __name__ == "__main__":
    main()
