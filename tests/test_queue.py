"""The queue: its order, and runners that are killed, started twice, and find what their predecessors left."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gptlab import launcher, runner
from gptlab.config import RunConfig
from gptlab.events import Ended
from gptlab.grid import expand
from gptlab.locks import hold
from gptlab.queue import Entry, Queue
from gptlab.runs import Run, RunStore
from tests.fake_run import hold as hold_run
from tests.fake_run import make_run
from tests.test_launcher import small

PATIENCE = 120.0  # seconds for something that usually takes a few


@pytest.fixture
def queue(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Queue]:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    queue = Queue()
    yield queue
    with contextlib.suppress(ValueError):
        queue.clear()
    for entry in {entry.device for entry in _entries(queue)} | {"cpu"}:
        end_runner(queue, entry)
    for run in RunStore().list():
        launcher.force_stop(run, grace=0.1)


def _entries(queue: Queue) -> tuple[Entry, ...]:
    try:
        return queue.read().entries
    except ValueError:
        return ()


def end_runner(queue: Queue, device: str = "cpu") -> None:
    """kill -9 the runner, as a power cut would."""
    if queue.has_runner(device):
        os.kill(int(queue.runner_lock(device).read_text()), signal.SIGKILL)
        wait_for(lambda: not queue.has_runner(device), queue)


def wait_for(condition: Callable[[], object], queue: Queue) -> None:
    give_up = time.monotonic() + PATIENCE
    while not condition():
        log = queue.runner_lock("cpu").with_suffix(".log")
        assert time.monotonic() < give_up, log.read_text() if log.exists() else "no runner was started"
        time.sleep(0.02)


def add(queue: Queue, *seeds: int, config: RunConfig | None = None, name: str = "run") -> list[Entry]:
    return queue.add(expand(config or small(max_steps=3), {"train.seed": seeds}), name=name)


def seeds(entries: tuple[Entry, ...] | list[Entry]) -> list[int]:
    return [entry.parsed().train.seed for entry in entries]


def outcomes(queue: Queue) -> list[str]:
    return [entry.outcome for entry in queue.read().entries]


@pytest.fixture
def instant(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Runs that are over as soon as they start; the names of those started."""
    started: list[str] = []

    def start(run: Run) -> None:
        started.append(run.name)
        run.append(Ended(reason="failed" if "bad" in run.name else "finished", message="That is that."))

    monkeypatch.setattr(launcher, "start", start)
    monkeypatch.setattr(launcher, "resume", start)
    return started


def work(queue: Queue, device: str = "cpu") -> list[Entry]:
    lock = hold(queue.runner_lock(device))
    assert lock is not None
    return list(runner.work(queue, RunStore(), device, lock, look=0.01))


# The file


def test_an_entry_keeps_its_text_by_hash_and_its_device_by_name(queue: Queue) -> None:
    (entry,) = queue.add(expand(small(device="auto"), {}), name="  one  run ", tags=("sweep",))
    assert (entry.name, entry.device, entry.tags) == ("one run", "cpu", ("sweep",))
    assert str(entry.config["data"]["corpus"]).startswith("sha256:")
    assert Queue().read().entries == (entry,)


def test_entries_move_among_those_that_wait_and_stop_at_the_ends(queue: Queue) -> None:
    one, two, three, four = add(queue, 1, 2, 3, 4)
    queue.update(one.id, run="somewhere")  # under way: it stays where it is
    queue.move([three.id], -1)
    assert seeds(queue.read().entries) == [1, 3, 2, 4]
    queue.move([three.id, two.id], -9)
    assert seeds(queue.read().entries) == [1, 3, 2, 4]
    queue.move([three.id, two.id], 1)
    assert seeds(queue.read().entries) == [1, 4, 3, 2]
    queue.move([four.id], 99)
    assert seeds(queue.read().entries) == [1, 3, 2, 4]


def test_what_waits_can_be_removed_and_what_is_under_way_cannot(queue: Queue) -> None:
    one, two, three = add(queue, 1, 2, 3)
    queue.update(one.id, run="somewhere")
    queue.remove([one.id, two.id])
    assert seeds(queue.read().entries) == [1, 3]
    queue.update(three.id, outcome="finished")
    queue.clear(waiting=False)
    assert seeds(queue.read().entries) == [1]


def test_a_text_that_is_not_there_adds_nothing(queue: Queue) -> None:
    with pytest.raises(ValueError, match="There is no corpus and no file"):
        add(queue, 1, 2, config=small().with_fields(data={"corpus": "nowhere.txt"}))
    assert queue.read().entries == ()


def test_a_damaged_file_is_a_sentence_and_is_left_alone(queue: Queue) -> None:
    add(queue, 1)
    queue.path.write_text('{"entries": [')
    for question in (queue.read, queue.start_runners, lambda: queue.remove(["x"])):
        with pytest.raises(ValueError, match="repair or remove"):
            question()
    assert queue.path.read_text() == '{"entries": ['


# The runner


def test_runs_are_made_one_after_another_in_their_order(queue: Queue, instant: list[str]) -> None:
    _, two, three = add(queue, 1, 2, 3)
    queue.move([three.id], -2)
    queue.remove([two.id])
    work(queue)
    assert instant == ["run · seed 3", "run · seed 1"]
    assert outcomes(queue) == ["finished", "finished"]
    assert [run.name for run in reversed(RunStore().list())] == instant


def test_a_run_that_fails_or_cannot_even_begin_says_why_and_the_queue_goes_on(queue: Queue, instant: list[str]) -> None:
    too_long = small().with_fields(model={"context_length": 16_000})
    queue.add(expand(too_long, {}), name="too long")
    add(queue, 1, name="bad")
    add(queue, 2, name="good")
    work(queue)
    refused, failed, finished = queue.read().entries
    assert (refused.outcome, refused.run) == ("refused", "")
    assert "context_length 16,000" in refused.message
    assert (failed.outcome, failed.message) == ("failed", "That is that.")
    assert (finished.outcome, instant) == ("finished", ["bad", "good"])


def test_a_paused_queue_begins_nothing_and_lets_go_of_its_lock(queue: Queue, instant: list[str]) -> None:
    add(queue, 1)
    queue.pause()
    assert work(queue) == []
    assert not queue.has_runner("cpu")
    assert queue.start_runners() == []
    queue.pause(False)
    work(queue)
    assert outcomes(queue) == ["finished"]


def test_a_queue_that_is_paused_meanwhile_ends_after_the_run_under_way(queue: Queue, instant: list[str]) -> None:
    add(queue, 1, 2)
    lock = hold(queue.runner_lock("cpu"))
    assert lock is not None
    for entry in runner.work(queue, RunStore(), "cpu", lock, look=0.01):
        if entry.under_way:
            queue.pause()
    assert outcomes(queue) == ["finished", ""]


def test_tags_and_name_reach_the_run(queue: Queue, instant: list[str]) -> None:
    queue.add(expand(small(), {}), name="tagged", tags=("sweep", "lr"))
    work(queue)
    assert RunStore().list()[0].about.tags == ("sweep", "lr")


def test_it_waits_for_a_run_that_was_started_by_hand_on_its_device(queue: Queue, instant: list[str]) -> None:
    by_hand = make_run(RunStore(), 2, "interrupted", name="by hand")
    add(queue, 1)
    working = threading.Thread(target=work, args=(queue,))
    with hold_run(by_hand):
        working.start()
        working.join(0.5)
        assert working.is_alive()
        assert [run.name for run in RunStore().list()] == ["by hand"]
    working.join(PATIENCE)
    assert outcomes(queue) == ["finished"]


def test_what_an_earlier_runner_began_and_a_restart_interrupted_is_resumed(queue: Queue, instant: list[str]) -> None:
    run = make_run(RunStore(), 2, "interrupted", name="half done")
    (entry,) = add(queue, 1)
    queue.update(entry.id, run=run.id, starts=1)
    work(queue)
    assert (instant, outcomes(queue)) == (["half done"], ["finished"])
    assert len(RunStore().list()) == 1


def test_a_run_that_takes_everything_down_each_time_is_given_up(queue: Queue, instant: list[str]) -> None:
    run = make_run(RunStore(), 2, "interrupted")
    first, _ = add(queue, 1, 2)
    queue.update(first.id, run=run.id, starts=runner.MOST_STARTS)
    work(queue)
    assert outcomes(queue) == ["interrupted", "finished"]
    assert "without a word" in queue.read().entries[0].message


def test_a_run_that_was_deleted_meanwhile_does_not_hold_up_the_queue(queue: Queue, instant: list[str]) -> None:
    first, _ = add(queue, 1, 2)
    queue.update(first.id, run="20200101-000000-abcd", starts=1)
    work(queue)
    assert outcomes(queue) == ["deleted", "finished"]


# Real processes


def test_two_dashboards_start_one_runner_and_a_killed_one_takes_no_run_with_it(queue: Queue) -> None:
    add(queue, 1, config=small(num_epochs=40))
    add(queue, 2)
    assert [device for _ in range(3) for device in Queue().start_runners()] == ["cpu"]
    wait_for(lambda: RunStore().list() and RunStore().list()[0].log().steps_completed > 2, queue)
    first = RunStore().list()[0]
    end_runner(queue)
    assert first.is_locked()  # it trains on, with no runner
    assert [device for _ in range(3) for device in Queue().start_runners()] == ["cpu"]
    first.request("stop")  # a person's stop: the queue goes on with the next
    wait_for(lambda: outcomes(queue) == ["stopped", "finished"], queue)
    wait_for(lambda: not queue.has_runner("cpu"), queue)
    assert [run.status() for run in RunStore().list()] == ["finished", "stopped"]
    assert sorted(seeds(queue.read().entries)) == [1, 2]


def test_after_a_restart_the_run_is_resumed_where_it_was(queue: Queue) -> None:
    add(queue, 1, config=small(num_epochs=6))
    queue.start_runners()
    wait_for(lambda: RunStore().list() and RunStore().list()[0].checkpoints(), queue)
    run = RunStore().list()[0]
    end_runner(queue)
    launcher.force_stop(run, grace=0.0)
    wait_for(lambda: not run.is_locked(), queue)
    assert run.status() == "interrupted"
    before = run.log().steps_completed
    queue.start_runners()
    wait_for(lambda: outcomes(queue) == ["finished"], queue)
    assert run.log().resumed[0].step <= before
    assert len(RunStore().list()) == 1
