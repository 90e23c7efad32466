"""Watched passages: what a run notes of each token's loss, and what can be asked of it."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch

from gptlab.checkpoint import load_model
from gptlab.dataset import GPTDataset
from gptlab.events import Evaluated, Event, Probed, Resumed, Sampled, Stepped
from gptlab.log import RunLog
from gptlab.loss import calc_loss_batch
from gptlab.probing import (
    PROBE_TOKENS,
    Passage,
    by_kind,
    changes,
    kinds_of,
    learnt_when,
    packed,
    passages,
    unpacked,
    watched_passages,
)
from gptlab.runs import RunStore
from gptlab.tokenizer import get_tokenizer
from gptlab.training import train
from tests.small_models import parts, run_config, some_ids


def probes(events: list[Event]) -> list[Probed]:
    return [event for event in events if isinstance(event, Probed)]


def run(folder: Path | None = None, **sections: dict[str, object]) -> list[Event]:
    return list(train(run_config(**sections), parts(), checkpoints=folder))


def test_a_run_looks_at_the_first_window_of_each_part_before_training_and_after_each_epoch() -> None:
    found = probes(run())
    assert [(p.epoch, p.part, p.start) for p in found] == [
        (epoch, part, 0) for epoch in range(3) for part in ("training", "validation")
    ]
    assert [bool(p.token_ids) for p in found] == [True, True, False, False, False, False]  # told once
    assert found[0].token_ids == tuple(parts()[0][:9].tolist())
    assert found[1].token_ids == tuple(parts()[1][:9].tolist())
    assert all(p.seconds > 0 for p in found)


def test_its_numbers_are_the_losses_of_the_weights_of_that_moment(tmp_path: Path) -> None:
    events = run(tmp_path)
    for probe in probes(events)[-2:]:
        ids = parts()[probe.part == "validation"][:9].unsqueeze(0)
        model = load_model(tmp_path / "step-000010")
        expected = calc_loss_batch(ids[:, :-1], ids[:, 1:], model, "cpu").item()
        losses = unpacked(probe.losses)
        assert len(losses) == 8
        assert sum(losses) / 8 == pytest.approx(expected, abs=1e-4)


def test_looking_changes_nothing_of_the_training() -> None:
    def numbers(events: list[Event]) -> list[Event]:
        kinds = (Stepped, Evaluated, Sampled)
        rows = [replace(event, time=0.0) for event in events if isinstance(event, kinds)]
        return [replace(row, tokens_per_second=0.0) if isinstance(row, Stepped) else row for row in rows]

    with_dropout = {"drop_rate": 0.3}
    watched = run(model=with_dropout, train={"probe_windows": 4})
    alone = run(model=with_dropout, train={"probe_windows": 0})
    assert len(probes(watched)) == 3 * 8
    assert probes(alone) == []
    assert numbers(watched) == numbers(alone)


def test_a_resumed_run_has_each_epoch_once_and_the_numbers_of_an_unbroken_one(tmp_path: Path) -> None:
    unbroken = probes(run())
    broken = RunStore(tmp_path / "runs").create(run_config(), name="broken")
    folder = broken.path / "checkpoints"
    for event in islice(train(run_config(), parts(), checkpoints=folder), 35):  # killed in the second epoch
        broken.append(event)
    assert broken.log().steps[-1].epoch == 2
    for event in train(run_config(), parts(), checkpoints=folder, resume_from=folder):
        broken.append(event)
    kept = broken.log().probes
    assert [(p.epoch, p.part, p.losses) for p in kept] == [(p.epoch, p.part, p.losses) for p in unbroken]
    assert [p.losses for p in passages_losses(kept)] == [p.losses for p in passages_losses(unbroken)]


def passages_losses(rows: list[Probed]) -> list[Passage]:
    found = passages(rows)
    assert len(found) == 2
    return found


def test_a_resume_makes_the_looks_of_later_steps_void(tmp_path: Path) -> None:
    run = RunStore(tmp_path).create(run_config())
    for epoch in range(4):
        run.append(Probed(step=5 * epoch, epoch=epoch, part="training", losses="1", token_ids=(1, 2)))
    run.append(Resumed(step=6))
    assert [probe.epoch for probe in run.log().probes] == [0, 1]
    assert isinstance(run.log(), RunLog)


def test_a_part_without_a_whole_window_is_watched_as_far_as_it_goes() -> None:
    long, short, none = (GPTDataset(some_ids(n), 8) for n in (40, 5, 1))
    found = watched_passages(long, short, 2)
    assert [(p.part, p.start, len(p.token_ids)) for p in found] == [
        ("training", 0, 9), ("training", 8, 9), ("validation", 0, 5),
    ]  # fmt: skip
    assert [p.part for p in watched_passages(long, none, 1)] == ["training"]
    assert watched_passages(long, short, 0) == []


def test_of_a_long_window_only_the_beginning_is_watched() -> None:
    (passage,) = watched_passages(GPTDataset(some_ids(1000), 512), GPTDataset(some_ids(0), 512), 1)
    assert len(passage.token_ids) == PROBE_TOKENS + 1


def test_losses_survive_being_written_also_where_they_are_no_numbers() -> None:
    back = unpacked(packed([9.123456, math.nan, math.inf, 0.0]))
    assert back[0] == 9.1235
    assert math.isnan(back[1])
    assert math.isnan(back[2])
    assert back[3] == 0.0
    assert math.isnan(unpacked("oops")[0])


def test_rows_that_do_not_fit_the_passage_are_left_out() -> None:
    rows = [
        Probed(epoch=0, part="training", losses="1 2", token_ids=(5, 6, 7)),
        Probed(epoch=1, part="training", losses="1"),
        Probed(epoch=2, part="validation", losses="1 2"),  # nobody ever told its tokens
    ]
    (passage,) = passages(rows)
    assert passage.epochs == [0]
    assert passage.mean(0) == 1.5


def test_of_very_many_epochs_so_many_are_read_and_both_ends_are() -> None:
    rows = [Probed(epoch=e, part="training", losses=f"{e}", token_ids=(5, 6) if e == 0 else ()) for e in range(1001)]
    (passage,) = passages(rows, most=11)
    assert passage.epochs == list(range(0, 1001, 100))
    assert passage.losses[300] == (300.0,)


PASSAGE = Passage(
    "training",
    0,
    (0, 1, 2, 3, 4),
    {0: (9.0, 9.0, 9.0, math.nan), 1: (0.1, 5.0, 0.2, 1.0), 2: (0.1, 0.2, 4.0, 1.0), 3: (0.1, 0.1, 0.1, 1.0)},
)


def test_what_improved_most_comes_first_and_unknown_losses_are_left_out() -> None:
    assert [(c.place, round(c.gain, 6)) for c in changes(PASSAGE, 0, 2)] == [(1, 8.9), (2, 8.8), (3, 5.0)]
    assert [c.place for c in changes(PASSAGE, 2, 1)] == [3, 1, 4, 2]


def test_a_token_is_learnt_from_when_on_the_model_always_knows_it() -> None:
    assert learnt_when(PASSAGE) == {1: [1], 2: [2], 3: [3], None: [4]}


def test_kinds_of_tokens_are_told_apart_and_words_in_pieces_are_seen_whole() -> None:
    encode, decode = get_tokenizer().encode, get_tokenizer().decode
    ids = encode('"So," said Gisburn in 1908, amazedly:\n')
    found = [(decode([i]), kind) for i, kind in zip(ids, kinds_of(ids), strict=True)]
    assert found[:4] == [
        ('"', "punctuation"), ("So", "function words"), (',"', "punctuation"), (" said", "other words"),
    ]  # fmt: skip
    assert {kind for piece, kind in found if piece in (" G", "is", "burn")} == {"capitalised words"}
    assert dict(found)[" 1908"] == "numbers"
    assert dict(found)["ly"] == "parts of words"
    assert found[-1] == ("\n", "line breaks and spaces")


def test_kinds_are_told_in_the_order_in_which_they_are_learnt() -> None:
    ids = tuple(get_tokenizer().encode(" the boat, and Anna"))
    losses = {0: (9.0, 9.0, 9.0, 9.0), 1: (9.0, 0.1, 9.0, 9.0), 2: (9.0, 0.1, 0.1, 9.0)}
    rows = by_kind(Passage("training", 0, ids, losses))
    assert [(row.kind, row.learnt) for row in rows] == [
        ("punctuation", 1), ("function words", 2), ("other words", None), ("capitalised words", None),
    ]  # fmt: skip
    assert rows[0].means == {0: 9.0, 1: 0.1, 2: 0.1}
    assert torch.tensor(rows[0].places).tolist() == [2]
