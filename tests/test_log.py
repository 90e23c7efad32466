"""The log reader: torn lines, garbage, resumes, and reading on from an offset."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptlab.events import Ended, Evaluated, Event, Phase, Resumed, Sampled, Saved, Started, Stepped, encode
from gptlab.log import RunLog, read_events
from gptlab.metrics import Extent, positions
from gptlab.runs import Run
from gptlab.step_rows import SECONDS


def step(number: int, loss: float = 1.0, time: float = 0.0) -> Stepped:
    return Stepped(step=number, epoch=1, tokens_seen=number + 1, loss=loss, time=time)


def write(path: Path, *events: Event) -> None:
    with open(path, "ab") as file:
        for event in events:
            file.write(encode(event).encode() + b"\n")


def test_a_line_that_holds_two_facts_or_half_a_one_spoils_no_other(tmp_path: Path) -> None:
    good = [encode(Phase(phase="training", step=step)) for step in range(3)]
    for bad in (f"{good[0]},{good[1]}", good[0][:-4], "nonsense", "[]"):
        path = tmp_path / "events.jsonl"
        path.write_text("\n".join([good[0], bad, good[2]]) + "\n")
        assert [event.step for event in read_events(path)[0]] == [0, 2]


def test_a_log_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert read_events(tmp_path / "none") == ([], 0)


def test_reader_ignores_a_torn_last_line_until_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    write(path, step(0))
    line = encode(step(1)).encode() + b"\n"
    with open(path, "ab") as file:
        file.write(line[:20])
    events, offset = read_events(path)
    assert events == [step(0)]
    with open(path, "ab") as file:
        file.write(line[20:])
    assert read_events(path, offset)[0] == [step(1)]


def test_reader_skips_lines_that_it_cannot_read(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    write(path, step(0))
    with open(path, "ab") as file:
        file.write(b"\xff\xfe garbage\n\n{\n")
    write(path, step(1))
    assert read_events(path)[0] == [step(0), step(1)]


def test_a_resume_drops_the_earlier_rows_from_its_step_on(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    write(path, *(step(n, loss=1.0) for n in range(6)))
    write(path, Evaluated(step=0, epoch=1, tokens_seen=1), Evaluated(step=5, epoch=1, tokens_seen=6))
    write(path, Saved(step=2, checkpoint="step-000003", reason="epoch"))
    write(path, Resumed(step=3), step(3, loss=2.0))
    log = RunLog(path)
    log.refresh()
    assert [(row.step, row.loss) for row in log.steps] == [(0, 1.0), (1, 1.0), (2, 1.0), (3, 2.0)]
    assert [row.step for row in log.evaluations] == [0]
    assert [row.checkpoint for row in log.saved] == ["step-000003"]
    assert [row.step for row in log.events if isinstance(row, Stepped)] == [0, 1, 2, 3]


def test_a_resume_from_the_start_voids_even_the_untrained_sample(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    sample = Sampled(step=0, epoch=0, prompt="a", token_ids=(1,), text="a")
    write(
        path, Started(device="cpu", n_parameters=1, total_steps=2, threads=1), sample, step(0), Resumed(step=0), sample
    )
    log = RunLog(path)
    log.refresh()
    assert (len(log.samples), len(log.steps)) == (1, 0)
    assert log.started is not None


def test_a_resume_makes_an_earlier_end_void(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    write(path, step(0), Ended(step=0, reason="stopped"), Resumed(step=1))
    log = RunLog(path)
    log.refresh()
    assert log.ended is None


def test_refreshing_reads_only_what_is_new(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    write(path, step(0))
    log = RunLog(path)
    assert log.refresh()
    assert not log.refresh()
    write(path, step(1))
    assert log.refresh()
    assert [row.step for row in log.steps] == [0, 1]


def test_a_log_of_one_moment_stays_as_it_is_while_the_run_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    write(path, Phase(phase="training", time=1.0), step(0, time=2.0), step(1, time=3.0))
    write(path, Evaluated(step=1, epoch=1, tokens_seen=2, time=3.0))
    log = RunLog(path)
    log.refresh()
    now = log.now()
    offset, positions_then = now.offset, positions(now, "time", Extent())
    write(path, step(2, time=9.0), Evaluated(step=2, epoch=1, tokens_seen=3, time=9.0))
    write(path, Resumed(step=1, time=99.0), step(1, time=100.0))
    log.refresh()
    assert ([row.step for row in now.steps], [row.step for row in now.evaluations]) == ([0, 1], [1])
    assert [type(row) for row in now.events] == [Phase, Stepped, Stepped, Evaluated]
    assert (now.offset, now.seconds_trained(), positions(now, "time", Extent())) == (offset, 2.0, positions_then)
    assert ([row.step for row in log.steps], log.evaluations, len(log.resumed)) == ([0, 1], [], 1)
    with pytest.raises(TypeError, match="not read on"):
        now.refresh()


def test_a_run_gives_its_log_of_one_moment(tmp_path: Path) -> None:
    run = Run(tmp_path)
    write(run.events_path, step(0))
    first = run.log()
    write(run.events_path, step(1))
    assert (len(run.log().steps), len(first.steps)) == (2, 1)


def test_a_log_that_was_replaced_by_a_shorter_one_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    write(path, step(0), step(1))
    log = RunLog(path)
    log.refresh()
    path.unlink()
    write(path, step(7))
    log.refresh()
    assert [row.step for row in log.steps] == [7]


def test_the_best_evaluation_ignores_unknown_losses_and_prefers_the_earliest(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    rows = [(0, float("nan")), (5, 6.2), (10, 6.1), (15, 6.1)]
    write(path, *(Evaluated(step=n, epoch=1, tokens_seen=n, val_loss=loss) for n, loss in rows))
    log = RunLog(path)
    log.refresh()
    assert log.best is not None
    assert log.best.step == 10


def test_time_trained_leaves_out_pauses_and_absence(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    write(
        path,
        Started(device="cpu", n_parameters=1, total_steps=9, threads=1, time=100.0),
        step(0, time=103.0),
        Phase(phase="paused", time=104.0),
        Phase(phase="training", time=150.0),
        step(1, time=152.0),
        Ended(reason="stopped", time=153.0),
        Resumed(step=2, time=1000.0),
        step(2, time=1001.0),
    )
    log = RunLog(path)
    log.refresh()
    assert log.seconds_trained() == 3 + 1 + 2 + 1 + 1


@given(data=st.data())
def test_any_cutting_of_the_file_gives_the_same_events(data: st.DataObject) -> None:
    """However the bytes arrive, garbage lines among them, reading in pieces equals reading at once."""
    lines = data.draw(
        st.lists(
            st.one_of(
                st.integers(0, 20).map(lambda n: encode(step(n)).encode()),
                st.integers(0, 20).map(lambda n: encode(Resumed(step=n, time=0.0)).encode()),
                st.binary(max_size=30).map(lambda raw: raw.replace(b"\n", b" ")),
            ),
            max_size=12,
        )
    )
    whole = b"".join(line + b"\n" for line in lines)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=5)))
    with tempfile.TemporaryDirectory() as folder:
        at_once, in_pieces = Path(folder) / "a", Path(folder) / "b"
        at_once.write_bytes(whole)
        expected = RunLog(at_once)
        expected.refresh()
        log = RunLog(in_pieces)
        for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True):
            with open(in_pieces, "ab") as file:
                file.write(whole[start:end])
            log.refresh()
    assert [encode(event) for event in log.events] == [encode(event) for event in expected.events]
    assert [encode(row) for row in log.steps] == [encode(row) for row in expected.steps]


def test_the_time_of_work_is_the_same_counted_as_it_comes_and_all_at_once(tmp_path: Path) -> None:
    facts: list[Event] = [
        Started(time=0, device="cpu", n_parameters=1, total_steps=9, threads=1),
        *(Stepped(step=step, time=10.0 * step, epoch=1, tokens_seen=1) for step in range(1, 5)),
        Phase(phase="paused", time=45, step=4),
        Phase(phase="training", time=145, step=4),
        Resumed(step=3, time=1000),
        Stepped(step=3, time=1007, epoch=1, tokens_seen=1),
    ]
    path = tmp_path / "events.jsonl"
    log = RunLog(path)
    for fact in facts:
        write(path, fact)
        log.refresh()
    at_once = RunLog(path)
    at_once.refresh()
    assert log.seconds_trained() == at_once.seconds_trained() == 45 + 7
    assert log.steps.column(SECONDS).tolist() == at_once.steps.column(SECONDS).tolist() == [10, 20, 52]
