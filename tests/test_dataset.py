"""From text to batches: the split, the windows, the order of an epoch, the length check."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gptlab.config import RunConfig
from gptlab.dataset import (
    GPTDataset,
    check_lengths,
    create_dataloader,
    epoch_order,
    n_batches,
    split_text,
    window_starts,
)
from gptlab.tokenizer import encode_text


@given(st.text(), st.floats(0.01, 0.99))
def test_split_is_by_characters_and_loses_none(text: str, ratio: float) -> None:
    train, val = split_text(text, ratio)
    assert train + val == text
    assert len(train) == int(ratio * len(text))


@given(st.integers(0, 300), st.integers(1, 50), st.none() | st.integers(1, 80))
def test_windows_follow_the_definition(n_tokens: int, length: int, stride: int | None) -> None:
    ids = torch.arange(n_tokens)
    windows = GPTDataset(ids, length, stride)
    starts = list(range(0, n_tokens - length, stride or length))
    assert list(window_starts(n_tokens, length, stride)) == starts
    assert len(windows) == len(starts)
    for (inputs, targets), start in zip((windows[n] for n in range(len(windows))), starts, strict=True):
        assert inputs.tolist() == list(range(start, start + length))
        assert targets.tolist() == list(range(start + 1, start + length + 1))


def test_windows_are_views_of_one_tensor() -> None:
    ids = torch.arange(100)
    inputs, targets = GPTDataset(ids, 10, 5)[3]
    assert inputs.data_ptr() == ids[15:].data_ptr()
    assert targets.data_ptr() == ids[16:].data_ptr()


def test_an_index_past_the_last_window_is_refused() -> None:
    with pytest.raises(IndexError):
        GPTDataset(torch.arange(21), 10)[2]


@given(st.integers(0, 100), st.integers(1, 20), st.booleans())
def test_batches_are_counted_as_the_loader_makes_them(n_windows: int, batch_size: int, drop_last: bool) -> None:
    loader = create_dataloader(torch.arange(n_windows + 1), batch_size, 1, drop_last=drop_last)
    assert n_batches(n_windows, batch_size, drop_last) == len(loader) == len(list(loader))


def test_the_verdict_gives_nine_and_one_batches_of_2_by_256(verdict: str) -> None:
    train, val = split_text(verdict, 0.9)
    loaders = [
        create_dataloader(train, batch_size=2, context_length=256, stride=256, shuffle=True, drop_last=True),
        create_dataloader(val, batch_size=2, context_length=256, stride=256, shuffle=False, drop_last=False),
    ]
    shapes = [[(tuple(x.shape), tuple(y.shape)) for x, y in loader] for loader in loaders]
    assert shapes == [[((2, 256), (2, 256))] * 9, [((2, 256), (2, 256))]]


def test_text_tensor_and_array_give_the_same_int64_batches() -> None:
    text = "What does the river say? " * 40
    ids = encode_text(text)
    batches = [
        [x.tolist() for x, _ in create_dataloader(source, 2, 16, seed=5)] for source in (text, torch.tensor(ids), ids)
    ]
    assert batches[0] == batches[1] == batches[2]
    inputs, targets = next(iter(create_dataloader(ids, 2, 16)))
    assert inputs.dtype == targets.dtype == torch.long


def test_epoch_order_is_a_permutation_fixed_by_seed_and_epoch() -> None:
    order = epoch_order(50, 123, 1, True)
    assert sorted(order.tolist()) == list(range(50))
    assert order.tolist() == epoch_order(50, 123, 1, True).tolist()
    others = [epoch_order(50, 123, 2, True), epoch_order(50, 124, 1, True), epoch_order(50, 2**63 - 1, 1, True)]
    assert len({tuple(other) for other in [order, *others]}) == 4
    assert epoch_order(5, 123, 1, False).tolist() == [0, 1, 2, 3, 4]


def test_epoch_order_never_changes_between_versions() -> None:
    """Resumed runs depend on it: these are the orders that runs on people's disks were trained in."""
    assert epoch_order(8, 123, 1, True).tolist() == [6, 0, 4, 1, 2, 5, 3, 7]
    assert epoch_order(8, 123, 2, True).tolist() == [6, 5, 1, 0, 7, 3, 4, 2]


def first_tokens(loader) -> list[int]:  # type: ignore[no-untyped-def]
    return [int(token) for inputs, _ in loader for token in inputs[:, 0]]


def test_set_epoch_chooses_the_order_whatever_was_read_before() -> None:
    loader, fresh = (create_dataloader(torch.arange(201), 3, 10, drop_last=False, seed=7) for _ in range(2))
    for epoch in (1, 2, 3):
        loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        first_tokens(loader)
    fresh.sampler.set_epoch(3)  # type: ignore[attr-defined]
    expected = [10 * index for index in epoch_order(20, 7, 3, True).tolist()]
    assert first_tokens(loader) == first_tokens(fresh) == expected


@pytest.mark.parametrize("num_workers", [0, 2])
def test_iterating_never_touches_torchs_global_random_stream(num_workers: int) -> None:
    loader = create_dataloader(torch.arange(101), 2, 10, num_workers=num_workers)
    before = torch.random.get_rng_state()
    assert len(list(loader)) == 5
    assert torch.equal(torch.random.get_rng_state(), before)


def test_worker_processes_give_the_same_batches() -> None:
    alone, helped = (create_dataloader(torch.arange(101), 2, 10, num_workers=n, seed=3) for n in (0, 2))
    assert first_tokens(alone) == first_tokens(helped)


def test_a_text_too_short_for_a_window_gives_an_empty_loader() -> None:
    assert list(create_dataloader("short", context_length=256)) == []


def config(**data: object) -> RunConfig:
    return RunConfig().with_fields(data=data)


@given(st.integers(0, 4000), st.integers(0, 4000), st.integers(1, 9), st.none() | st.integers(1, 600), st.booleans())
def test_report_counts_what_the_loaders_give(
    train: int, val: int, batch_size: int, stride: int | None, drop_last: bool
) -> None:
    report = check_lengths(train, val, config(batch_size=batch_size, stride=stride, drop_last=drop_last))
    assert report.train_windows == len(window_starts(train, 256, stride or 256))
    assert report.val_windows == len(window_starts(val, 256, stride or 256))
    assert report.train_batches == n_batches(report.train_windows, batch_size, drop_last)
    assert report.val_batches == math.ceil(report.val_windows / batch_size)
    assert bool(report.faults) == (report.train_batches == 0)
    assert any("Validation" in w or "validation" in w for w in report.warnings) == (report.val_windows < 4)


def test_too_short_a_training_part_names_value_limit_and_remedies() -> None:
    report = check_lengths(214, 3000, config())
    assert report.faults == [
        "The training part has 214 tokens, fewer than context_length 256 plus the one token after it: "
        "shorten the context (to at most 213), raise train_ratio (now 0.9) or use a longer text."
    ]


def test_exactly_one_context_is_one_token_too_short() -> None:
    assert check_lengths(256, 3000, config(batch_size=1)).faults
    assert not check_lengths(257, 3000, config(batch_size=1)).faults


def test_zero_training_batches_are_refused_with_the_batch_size_that_fits() -> None:
    (fault,) = check_lengths(1000, 3000, config(batch_size=8)).faults
    assert "3 windows, fewer than batch_size 8" in fault
    assert "lower batch_size to 3" in fault
    assert not check_lengths(1000, 3000, config(batch_size=8, drop_last=False)).faults


def test_no_validation_window_is_a_warning_with_remedies() -> None:
    (warning,) = check_lengths(5000, 100, config()).warnings
    assert "100 tokens" in warning
    assert "no validation loss: shorten the context (to at most 99), lower train_ratio (now 0.9)" in warning


def test_few_validation_windows_are_called_noisy() -> None:
    (warning,) = check_lengths(5000, 515, config()).warnings
    assert warning.startswith("Validation is 2 windows, so its loss is noisy: lower train_ratio")
    assert check_lengths(5000, 1026, config()).warnings == []


def test_a_stride_that_skips_tokens_is_a_warning() -> None:
    (warning,) = check_lengths(9000, 9000, config(stride=512)).warnings
    assert "50% of the tokens are never read: lower stride to 256" in warning


def test_all_faults_and_warnings_come_at_once() -> None:
    report = check_lengths(0, 0, config(stride=1000))
    assert len(report.faults) == 1
    assert len(report.warnings) == 2
    assert "to at most" not in report.faults[0]


def test_counting_needs_no_torch() -> None:
    script = """
import sys
from gptlab.config import RunConfig
from gptlab.dataset import check_lengths, epoch_order, n_batches, split_text, window_starts
check_lengths(5000, 500, RunConfig()); epoch_order(5, 1, 1); split_text("abc", 0.5)
sys.exit("torch" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
