from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from gptlab import checkpoint
from gptlab import state as state_module
from gptlab.checkpoint import SaveError, load_model, read_facts, read_resume
from gptlab.config import RunConfig, SamplingConfig
from gptlab.events import Ended, Evaluated, Event, Phase, Resumed, Sampled, Saved, Started, Stepped, Warned, encode
from gptlab.loss import calc_loss_loader, loss_of
from gptlab.random_streams import RandomStreams
from gptlab.sampling import generate
from gptlab.schedule import learning_rate_at
from gptlab.state import TrainState
from gptlab.training import train
from tests.small_models import parts, run_config


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints"


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Matrices this small are slower on several threads, most of all where other tests run beside these."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests survive no power cut, so they need not wait until the disk has everything."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


def run(config: RunConfig | None = None, data: Any = None, **more: Any) -> list[Event]:
    return list(train(config or run_config(), data or parts(), **more))


def of(kind: type[Event], events: list[Event]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


def numbers(events: list[Event]) -> list[Event]:
    """What must repeat: every fact of these kinds, without its moment and speed."""
    steps = [replace(event, time=0.0, tokens_per_second=0.0) for event in of(Stepped, events)]
    return steps + [replace(event, time=0.0) for event in events if isinstance(event, Evaluated | Sampled)]


def ended(events: list[Event]) -> Ended:
    assert isinstance(events[-1], Ended)
    assert len(of(Ended, events)) == 1
    return events[-1]


def asking(wishes: dict[int, list[str]]) -> Callable[[], str | None]:
    """Requests that come before the n-th time (from 0) that training asks; further wishes at the times after it."""
    times = iter(range(10**6))
    queue: list[str] = []

    def ask() -> str | None:
        queue.extend(wishes.get(next(times), []))
        return queue.pop(0) if queue else None

    return ask


def saved_weights(model: torch.nn.Module) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


# What happens, and in which order


def test_a_run_tells_its_story_in_order(folder: Path) -> None:
    events = run(run="r1", checkpoints=folder)
    told = [e.phase if isinstance(e, Phase) else type(e).__name__ for e in events if not isinstance(e, Warned)]
    evaluation = ["evaluating", "Evaluated", "saving", "Saved", "training"]
    looks = ["Probed", "Probed"]
    assert told[:8] == ["loading", "Started", "sampling", "Sampled", *looks, "training", "Stepped"]
    assert told[8:13] == evaluation
    assert told[-7:] == ["sampling", "Sampled", *looks, "saving", "Saved", "Ended"]
    started = of(Started, events)[0]
    assert (started.run, started.device, started.total_steps) == ("r1", "cpu", 10)
    assert started.threads == torch.get_num_threads()
    assert started.n_parameters == load_model(folder / "best").n_parameters
    assert ended(events).reason == "finished"
    assert "10 steps" in ended(events).message
    assert all(encode(event) for event in events)


def test_steps_count_tokens_epochs_and_rates() -> None:
    config = run_config(optim={"schedule": "cosine", "warmup_steps": 3})
    steps = of(Stepped, run(config))
    assert [event.step for event in steps] == list(range(10))
    assert [event.epoch for event in steps] == [1] * 5 + [2] * 5
    assert [event.tokens_seen for event in steps] == [16 * k for k in range(1, 11)]
    assert [event.learning_rate for event in steps] == [learning_rate_at(k, 10, config.optim) for k in range(10)]
    assert all(event.grad_norm > 0 for event in steps)


def test_speed_is_unknown_while_warming_up_and_then_known() -> None:
    speeds = [event.tokens_per_second for event in of(Stepped, run())]
    assert [math.isnan(speed) for speed in speeds] == [True, True] + [False] * 8


def test_evaluations_come_after_every_few_steps_and_none_is_added() -> None:
    events = run(run_config(train={"eval_freq": 4}))
    rows = of(Evaluated, events)
    assert [(row.step, row.epoch, row.tokens_seen) for row in rows] == [(0, 1, 16), (4, 1, 80), (8, 2, 144)]
    assert all(math.isfinite(row.train_loss) and math.isfinite(row.val_loss) for row in rows)


def test_an_evaluation_measures_the_weights_after_its_step() -> None:
    state = TrainState.build(run_config(), parts())
    for event in train(state.config, state=state):
        if isinstance(event, Evaluated):
            assert event.val_loss == calc_loss_loader(state.val_loader, state.model, "cpu", 2)


def test_samples_come_before_the_first_step_and_after_each_epoch() -> None:
    prompts = ("Every effort", "", "éa🙂")
    events = run(run_config(train={"prompts": prompts}, model={"vocab_size": 50257}))
    samples = of(Sampled, events)
    assert [(event.epoch, event.prompt) for event in samples] == [(e, p) for e in (0, 1, 2) for p in prompts]
    assert [event.step for event in samples] == [0] * 3 + [4] * 3 + [9] * 3
    for event in samples:
        known = [chance for chance in event.probabilities if chance is not None]
        assert len(known) == 3
        assert all(0 < chance <= 1 for chance in known)
        assert len(event.probabilities) == len(event.token_ids)
        assert event.probabilities[: -len(known)] == (None,) * (len(event.token_ids) - 3)
        assert event.text.startswith(event.prompt)


def test_a_sample_is_what_the_model_writes_greedily() -> None:
    state = TrainState.build(run_config(), parts())
    sample = of(Sampled, list(train(state.config, state=state)))[-1]
    prompt = [token for token, known in zip(sample.token_ids, sample.probabilities, strict=True) if known is None]
    new = list(generate(state.model, prompt, SamplingConfig(max_new_tokens=3, stop_at_end=False)))
    assert list(sample.token_ids) == prompt + new


def test_the_losses_fall() -> None:
    config = run_config(train={"num_epochs": 12, "eval_freq": 100}, model={"drop_rate": 0.0})
    losses = [event.loss for event in of(Stepped, run(config))]
    assert losses[0] == pytest.approx(math.log(300), rel=0.1)
    assert losses[-1] < losses[0] * 0.75


def test_text_and_token_ids_train_alike() -> None:
    from gptlab.dataset import split_text
    from gptlab.tokenizer import encode_text

    text = "The tide came in, and the tide went out again, as it had always done. " * 12
    config = run_config(train={"max_steps": 3}, model={"vocab_size": 50257})
    ids = tuple(encode_text(part) for part in split_text(text, 0.9))
    assert numbers(run(config, text)) == numbers(run(config, ids))


# Repeatable, and by itself


def test_the_same_seed_repeats_and_another_does_not() -> None:
    first, again, other = (run(run_config(train={"seed": seed, "max_steps": 4})) for seed in (1, 1, 2))
    assert numbers(first) == numbers(again)
    assert [e.loss for e in of(Stepped, first)] != [e.loss for e in of(Stepped, other)]


def test_samples_and_evaluations_do_not_change_the_training() -> None:
    few = run_config(train={"eval_freq": 1000, "sample_tokens": 1, "prompts": ("a",)})
    many = run_config(train={"eval_freq": 1, "sample_tokens": 20, "prompts": ("a", "b", "c")})
    assert [e.loss for e in of(Stepped, run(few))] == [e.loss for e in of(Stepped, run(many))]


def test_what_the_caller_draws_between_events_and_what_training_draws_stay_apart() -> None:
    state = TrainState.build(run_config(), parts())
    torch.manual_seed(5)
    expected = torch.rand(30)
    torch.manual_seed(5)
    drawn, events = [], []
    for event in train(state.config, state=state):
        events.append(event)
        drawn.append(torch.rand(1))
        list(islice(generate(state.model, [1], SamplingConfig(temperature=1.0)), 2))
    assert torch.equal(torch.cat(drawn)[:30], expected)
    assert numbers(events) == numbers(run())


def test_building_a_state_leaves_the_random_stream_alone() -> None:
    before = torch.get_rng_state()
    TrainState.build(run_config(), parts())
    assert torch.equal(torch.get_rng_state(), before)


def test_random_streams_are_swapped_in_and_out_also_after_an_error() -> None:
    streams, before = RandomStreams(torch.device("cpu")), torch.get_rng_state()
    with streams:
        first = torch.rand(1)
    with pytest.raises(RuntimeError), streams:
        raise RuntimeError(str(torch.rand(1)))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(torch.rand(1), first)  # both began at the same place


# Accumulation, clipping, lengths


@pytest.mark.parametrize("drop_last", [True, False])
def test_accumulated_small_batches_equal_a_large_one(drop_last: bool) -> None:
    data = parts(n_train=8 * 11 + 1)  # 11 windows: in the last group of an epoch one batch is short, or left out
    shared: dict[str, Any] = {"model": {"drop_rate": 0.0}, "train": {"num_epochs": 2}}
    small = run_config(data={"batch_size": 2, "drop_last": drop_last}, optim={"grad_accumulation": 2}, **shared)
    large = run_config(data={"batch_size": 4, "drop_last": drop_last}, **shared)
    first, second = (of(Stepped, run(config, data)) for config in (small, large))
    if drop_last:  # 5 batches of 2 make 2 steps and a smaller one; 2 batches of 4 make 2 steps
        assert [event.tokens_seen for event in first] == [32, 64, 80, 112, 144, 160]
        first, second = first[:2], second[:2]
    assert [event.tokens_seen for event in first] == [event.tokens_seen for event in second]
    assert [event.loss for event in first] == pytest.approx([event.loss for event in second], rel=1e-5)
    assert [event.grad_norm for event in first] == pytest.approx([event.grad_norm for event in second], rel=1e-3)


def test_long_gradients_are_shortened_and_told_as_they_were() -> None:
    batch = next(iter(TrainState.build(run_config(), parts()).train_loader))
    norms = {}
    for clip in (None, 1e-3, 1e3):
        state = TrainState.build(run_config(optim={"grad_clip": clip}, model={"drop_rate": 0.0}), parts())
        _, told = state.optimise([batch], 1e-2)
        used = torch.stack([p.grad.norm() for p in state.model.parameters() if p.grad is not None]).norm().item()
        norms[clip] = (told, used)
    told, used = norms[None]
    assert told == pytest.approx(used, rel=1e-5)
    assert norms[1e3] == norms[None]
    assert norms[1e-3] == (told, pytest.approx(1e-3, rel=1e-2))


@pytest.mark.parametrize(("most", "steps"), [(None, 10), (3, 3), (5, 5), (99, 10)])
def test_training_ends_at_the_epochs_or_the_most_steps(folder: Path, most: int | None, steps: int) -> None:
    events = run(run_config(train={"max_steps": most}), checkpoints=folder)
    assert of(Started, events)[0].total_steps == len(of(Stepped, events)) == steps
    assert ended(events).reason == "finished"
    last = of(Saved, events)[-1]
    assert last.checkpoint == f"step-{steps:06d}"
    assert last.reason == ("epoch" if steps % 5 == 0 else "finished")


def test_the_default_optimiser_decays_everything_and_has_the_references_settings() -> None:
    optimizer = TrainState.build(run_config(), parts()).optimizer
    (group,) = optimizer.param_groups
    assert type(optimizer) is torch.optim.AdamW
    assert (group["betas"], group["eps"], group["weight_decay"]) == ((0.9, 0.999), 1e-8, 0.1)


# Checkpoints


def test_each_epoch_is_kept_and_the_newest_can_be_resumed(folder: Path) -> None:
    events = run(checkpoints=folder)
    assert sorted(path.name for path in folder.iterdir()) == ["best", "step-000005", "step-000010"]
    assert [(e.checkpoint, e.epoch, e.step) for e in of(Saved, events) if e.reason == "epoch"] == [
        ("step-000005", 1, 4),
        ("step-000010", 2, 9),
    ]
    assert not (folder / "step-000005" / "resume.pt").exists()
    assert read_resume(folder / "step-000010")["step"] == 10
    assert read_facts(folder / "step-000005")["epoch"] == 1


def test_best_is_the_evaluation_with_the_lowest_validation_loss(folder: Path) -> None:
    events = run(run_config(train={"num_epochs": 4}, optim={"learning_rate": 0.05}), checkpoints=folder)
    lowest = min(of(Evaluated, events), key=lambda row: row.val_loss)
    best = [event for event in of(Saved, events) if event.reason == "best"][-1]
    facts = read_facts(folder / "best")
    assert best.step == lowest.step
    assert (facts["step"], facts["epoch"], facts["val_loss"]) == (lowest.step + 1, lowest.epoch, lowest.val_loss)
    assert f"after {lowest.step + 1} steps" in ended(events).message


def test_only_so_many_epochs_are_kept(folder: Path) -> None:
    run(run_config(train={"num_epochs": 4, "keep_checkpoints": 2}), checkpoints=folder)
    assert sorted(path.name for path in folder.iterdir()) == ["best", "step-000015", "step-000020"]


def test_without_a_folder_nothing_is_saved() -> None:
    assert of(Saved, run()) == []


def test_without_validation_there_is_no_best_and_a_warning(folder: Path) -> None:
    ids = parts()
    events = run(run_config(train={"patience": 1}), (ids[0], ids[1][:3]), checkpoints=folder)
    assert all(math.isnan(row.val_loss) for row in of(Evaluated, events))
    assert not (folder / "best").exists()
    assert "no validation loss" in of(Warned, events)[0].message
    assert len(of(Stepped, events)) == 10


def test_early_stopping_counts_evaluations_and_ends_as_finished(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = iter([5.0, 4.0, 4.1, 3.0, 3.5, 3.0, 9.9])
    monkeypatch.setattr("gptlab.state.evaluate_model", lambda *_: (1.0, next(losses)))
    config = run_config(train={"eval_freq": 1, "patience": 2, "num_epochs": 9})
    events = run(config, checkpoints=folder)
    assert len(of(Stepped, events)) == 6
    assert ended(events).reason == "finished"
    assert "2 evaluations without a better validation loss" in ended(events).message
    assert "3.000, after 4 steps" in ended(events).message
    assert of(Saved, events)[-1].checkpoint == "step-000006"


# Requests


def test_a_pause_waits_between_two_steps_and_a_resume_goes_on() -> None:
    naps: list[float] = []
    events = run(requests=asking({3: ["pause"], 6: ["resume"]}), sleep=naps.append)
    paused = next(i for i, event in enumerate(events) if isinstance(event, Phase) and event.phase == "paused")
    assert len(of(Stepped, events[:paused])) == 3
    assert isinstance(events[paused + 1], Phase)
    assert events[paused + 1].phase == "training"
    assert naps == [0.1, 0.1]
    assert numbers(events) == numbers(run())


def test_single_steps_pause_again_after_each() -> None:
    wishes = {1: ["pause"], 2: ["step"], 3: ["step"], 4: ["stop"]}
    events = run(requests=asking(wishes), sleep=lambda _: None)
    told = [
        event.phase if isinstance(event, Phase) else "step" for event in events if isinstance(event, Phase | Stepped)
    ]
    first = told.index("paused")
    assert [name for name in told[first:] if name not in ("evaluating", "saving", "sampling")] == [
        "paused",
        "training",
        "step",
        "paused",
        "training",
        "step",
        "training",  # after the evaluation of that step
        "paused",
    ]


def test_a_single_step_of_a_run_that_is_not_paused_pauses_it_after_that_step() -> None:
    events = run(requests=asking({1: ["step"], 3: ["stop"]}), sleep=lambda _: None)
    assert len(of(Stepped, events)) == 2
    assert "paused" in [event.phase for event in of(Phase, events)]


def test_a_stop_saves_what_is_needed_to_go_on_and_says_so(folder: Path) -> None:
    events = run(requests=asking({7: ["stop"]}), checkpoints=folder)
    assert len(of(Stepped, events)) == 7
    assert (of(Saved, events)[-1].checkpoint, of(Saved, events)[-1].reason) == ("step-000007", "stopped")
    assert ended(events).reason == "stopped"
    assert "after 7 steps, in epoch 2" in ended(events).message
    assert "step-000007" in ended(events).message
    assert read_resume(folder / "step-000007")["step"] == 7


def test_a_stop_while_paused_saves_too(folder: Path) -> None:
    events = run(requests=asking({2: ["pause"], 4: ["stop"]}), checkpoints=folder, sleep=lambda _: None)
    assert ended(events).reason == "stopped"
    assert (folder / "step-000002" / "resume.pt").exists()


def test_a_stop_right_after_an_epoch_needs_no_second_save(folder: Path) -> None:
    events = run(requests=asking({5: ["stop"]}), checkpoints=folder)
    assert [event.reason for event in of(Saved, events) if event.checkpoint == "step-000005"] == ["epoch", "stopped"]
    assert [path.name for path in checkpoint.step_checkpoints(folder)] == ["step-000005"]


def test_save_now_saves_and_goes_on(folder: Path) -> None:
    events = run(requests=asking({3: ["save"]}), checkpoints=folder)
    requested = [event for event in of(Saved, events) if event.reason == "requested"]
    assert [event.checkpoint for event in requested] == ["step-000003"]
    assert len(of(Stepped, events)) == 10


def test_discard_deletes_the_checkpoints_and_says_so(folder: Path) -> None:
    events = run(requests=asking({7: ["discard"]}), checkpoints=folder)
    assert of(Saved, events)
    assert list(folder.iterdir()) == []
    assert ended(events).reason == "discarded"
    assert "checkpoints were deleted" in ended(events).message


def test_a_run_that_is_dropped_half_way_can_be_resumed(folder: Path) -> None:
    events = train(run_config(), parts(), checkpoints=folder)
    list(islice(events, 30))
    events.close()  # type: ignore[attr-defined]
    assert numbers(run(checkpoints=folder, resume_from=folder))


# Resuming


RESUMED = {
    "plain": run_config(),
    "accumulated": run_config(optim={"grad_accumulation": 2, "grad_clip": 0.5}, train={"num_epochs": 4}),
    "shaped": run_config(
        model={"qkv_bias": True, "tie_weights": True, "init": "gpt2", "drop_rate": 0.3},
        optim={"schedule": "cosine", "warmup_steps": 3},
        data={"drop_last": False, "stride": 5},
        train={"patience": 9, "keep_checkpoints": 1},
    ),
}


def interrupted(events: Iterator[Event], after: int) -> list[Event]:
    """The events until ``after`` steps are made, as if the process had been killed then."""
    seen: list[Event] = []
    for event in events:
        seen.append(event)
        if isinstance(event, Stepped) and event.step == after - 1:
            break
    return seen


def joined(before: list[Event], after: list[Event]) -> list[Event]:
    """Both parts as a log reader sees them."""
    resumed = of(Resumed, after)[0].step
    kept = [event for event in before if event.step < resumed or not resumed]
    return ([] if resumed == 0 else kept) + after


@pytest.mark.parametrize("name", RESUMED)
@pytest.mark.parametrize("steps", [1, 3, 5, 7])
def test_a_stopped_and_resumed_run_gives_the_numbers_of_an_unbroken_one(folder: Path, name: str, steps: int) -> None:
    config = RESUMED[name]
    unbroken = run(config)
    first = run(config, checkpoints=folder, requests=asking({steps: ["stop"]}))
    assert len(of(Stepped, first)) == steps
    second = run(config, checkpoints=folder, resume_from=folder / f"step-{steps:06d}")
    assert of(Resumed, second)[0].step == steps
    assert of(Warned, second) == []
    assert sorted(map(repr, numbers(first) + numbers(second))) == sorted(map(repr, numbers(unbroken)))


@pytest.mark.parametrize("steps", [2, 6, 9])
def test_a_killed_and_resumed_run_gives_the_numbers_of_an_unbroken_one(folder: Path, steps: int) -> None:
    first = interrupted(train(run_config(), parts(), checkpoints=folder), steps)
    second = run(checkpoints=folder, resume_from=folder)
    assert of(Resumed, second)[0].step == (5 if steps > 5 else 0)
    assert sorted(map(repr, numbers(joined(first, second)))) == sorted(map(repr, numbers(run())))


def test_a_resume_remembers_the_best_validation_loss_and_the_patience(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = run_config(train={"eval_freq": 1, "patience": 3, "num_epochs": 9})
    losses = iter([4.0, 5.0, 5.0, 5.0])
    monkeypatch.setattr("gptlab.state.evaluate_model", lambda *_: (1.0, next(losses)))
    run(config, checkpoints=folder, requests=asking({2: ["stop"]}))
    events = run(config, checkpoints=folder, resume_from=folder)
    assert len(of(Stepped, events)) == 2
    assert "4.000, after 1 step" in ended(events).message
    assert [event for event in of(Saved, events) if event.reason == "best"] == []


def test_a_run_killed_before_its_first_checkpoint_begins_again(folder: Path) -> None:
    for more in ({"resume_from": folder}, {"restarted": True}):
        events = run(checkpoints=folder, **more)  # type: ignore[arg-type]
        assert of(Resumed, events)[0].step == 0
        assert numbers(events) == numbers(run())


def test_a_resume_restores_the_thread_count(folder: Path) -> None:
    run(checkpoints=folder, requests=asking({3: ["stop"]}))
    torch.set_num_threads(2)
    events = run(checkpoints=folder, resume_from=folder)
    assert torch.get_num_threads() == 1
    assert of(Started, events)[0].threads == of(Resumed, events)[0].threads == 1
    assert of(Warned, events) == []


def test_another_device_or_precision_is_told(folder: Path) -> None:
    run(checkpoints=folder, requests=asking({3: ["stop"]}))
    path = folder / "step-000003" / "resume.pt"
    torch.save({**read_resume(folder / "step-000003"), "device": "cuda:0"}, path)
    told = [event.message for event in of(Warned, run(run_config(train={"precision": "bf16"}), resume_from=folder))]
    assert len(told) == 2
    assert "began with device cuda:0 and goes on with device cpu" in told[0]
    assert "precision fp32 and goes on with precision bf16" in told[1]


def test_automatic_precision_stays_what_it_was_when_the_run_began(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = run_config(train={"precision": "auto"})
    monkeypatch.setattr(state_module, "precision_for", lambda *_: "fp32")
    expected = [event.loss for event in of(Stepped, run(config))]
    before = [event.loss for event in of(Stepped, run(config, checkpoints=folder, requests=asking({3: ["stop"]})))]
    monkeypatch.setattr(state_module, "precision_for", lambda *_: "bf16")
    again = run(config, checkpoints=folder, resume_from=folder)
    assert before + [event.loss for event in of(Stepped, again)] == expected
    assert of(Started, again)[0].precision == "fp32"


def test_nothing_left_to_train_is_told(folder: Path) -> None:
    run(checkpoints=folder)
    with pytest.raises(ValueError, match=r"Finished after 10 steps.*nothing left to train: start a new run"):
        run(checkpoints=folder, resume_from=folder)


# What can go wrong


class _Spoilt:
    """A batch's loss that is NaN from its n-th call on."""

    def __init__(self, state: TrainState, good: int, value: float = math.nan) -> None:
        self.state, self.left, self.value = state, good, value

    def __call__(self, inputs: torch.Tensor, targets: torch.Tensor, number: int = 0) -> torch.Tensor:
        self.left -= 1
        return loss_of(self.state.model, inputs, targets) * (1.0 if self.left >= 0 else self.value)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number_ends_the_run_and_keeps_the_last_good_checkpoint(folder: Path, value: float) -> None:
    state = TrainState.build(run_config(), parts())
    state.batch_loss = _Spoilt(state, 7, value)  # type: ignore[method-assign]
    events, weights = [], None
    for event in train(state.config, state=state, checkpoints=folder):
        events.append(event)
        if isinstance(event, Stepped) and event.step == 6:
            weights = saved_weights(state.model)
    spoilt = of(Stepped, events)[-1]
    assert spoilt.step == 7
    assert '"loss": null' in encode(spoilt)
    assert ended(events).reason == "failed"
    assert "loss of step 7 is not a finite number" in ended(events).message
    assert "step-000005, 2 steps earlier" in ended(events).message
    assert weights is not None
    assert all(torch.equal(a, b) for a, b in zip(weights, state.model.parameters(), strict=True))
    assert [path.name for path in checkpoint.step_checkpoints(folder)] == ["step-000005"]
    assert (folder / "step-000005" / "resume.pt").exists()


def test_a_gradient_that_is_no_number_is_not_applied() -> None:
    state = TrainState.build(run_config(), parts())
    state.model.pos_emb.weight.register_hook(lambda gradient: gradient * math.inf)
    before = saved_weights(state.model)
    events = list(train(state.config, state=state))
    assert "gradient of step 0 is not a finite number" in ended(events).message
    assert math.isfinite(of(Stepped, events)[0].loss)
    assert all(torch.equal(a, b) for a, b in zip(before, state.model.parameters(), strict=True))


@pytest.mark.parametrize("spoilt", [math.nan, math.inf, -math.inf])
def test_one_weight_that_is_no_finite_number_is_found(spoilt: float) -> None:
    state = TrainState.build(run_config(), parts())
    assert state.is_finite()
    with torch.no_grad():
        state.model.final_norm.scale[:2] = torch.finfo(torch.float32).max  # their sum is not finite, they are
        assert state.is_finite()
        state.model.final_norm.scale[:2] = 1.0
        state.model.pos_emb.weight[0, 0] = spoilt
    assert not state.is_finite()


def test_spoilt_weights_are_not_saved(folder: Path) -> None:
    state = TrainState.build(run_config(train={"eval_freq": 100}), parts())
    events = []
    for event in train(state.config, state=state, checkpoints=folder):
        events.append(event)
        if isinstance(event, Stepped) and event.step == 4:
            with torch.no_grad():
                state.model.pos_emb.weight[0, 0] = math.nan
    assert ended(events).reason == "failed"
    assert "weights are no longer finite" in ended(events).message
    assert checkpoint.step_checkpoints(folder) == []


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"),
    ],
)
@pytest.mark.parametrize("where", ["building", "training"])
def test_too_little_memory_names_the_settings_to_lower(
    monkeypatch: pytest.MonkeyPatch, folder: Path, error: Exception, where: str
) -> None:
    def fail(*_: object) -> None:
        raise error

    if where == "building":
        monkeypatch.setattr("gptlab.state.GPTModel", fail)
        events = run(checkpoints=folder)
    else:
        state = TrainState.build(run_config(), parts())
        monkeypatch.setattr(state, "batch_loss", fail)
        events = run(state=state, checkpoints=folder)
    assert ended(events).reason == "failed"
    for setting in ("batch_size (now 2)", "context_length (now 8)", "emb_dim (now 4)", "n_layers (now 2)"):
        assert setting in ended(events).message


def test_other_errors_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("shapes do not match")

    state = TrainState.build(run_config(), parts())
    monkeypatch.setattr(state, "batch_loss", fail)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        run(state=state)


def _refuse(monkeypatch: pytest.MonkeyPatch, steps: set[int]) -> None:
    """Let the saves after these numbers of steps fail as on a full disk."""
    save = checkpoint.save_checkpoint

    def refuse(folder: Path, model: Any, step: int, *rest: Any, **facts: Any) -> Path:
        if step in steps:
            raise SaveError(f"step-{step:06d} could not be written: the disk is full.")
        return save(folder, model, step, *rest, **facts)

    monkeypatch.setattr(checkpoint, "save_checkpoint", refuse)


def test_a_run_that_ended_early_is_over(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gptlab.state.evaluate_model", lambda *_: (1.0, 5.0))
    config = run_config(train={"eval_freq": 1, "patience": 1})
    assert "Ended early after 2 steps" in ended(run(config, checkpoints=folder)).message
    with pytest.raises(ValueError, match="nothing left to train"):
        run(config, checkpoints=folder, resume_from=folder)


def test_a_full_disk_is_told_and_training_goes_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _refuse(monkeypatch, {5})
    events = run(checkpoints=folder)
    assert "disk is full" in of(Warned, events)[-1].message
    assert ended(events).reason == "finished"
    assert [path.name for path in checkpoint.step_checkpoints(folder)] == ["step-000010"]


def test_a_full_disk_at_the_end_fails_and_names_what_is_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _refuse(monkeypatch, {10})
    events = run(checkpoints=folder)
    assert ended(events).reason == "failed"
    assert "step-000005, 5 steps earlier" in ended(events).message
    assert (folder / "step-000005" / "resume.pt").exists()


def test_a_full_disk_at_a_stop_says_what_is_lost(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _refuse(monkeypatch, {7})
    events = run(checkpoints=folder, requests=asking({7: ["stop"]}))
    assert ended(events).reason == "stopped"
    assert "step-000005, 2 steps earlier" in ended(events).message


def test_a_best_that_cannot_be_saved_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise SaveError("best could not be written: the disk is full.")

    monkeypatch.setattr(checkpoint, "save_best", refuse)
    events = run(checkpoints=folder)
    assert "disk is full" in of(Warned, events)[0].message
    assert ended(events).reason == "finished"


def test_a_text_too_short_or_beyond_the_vocabulary_is_refused_with_all_faults() -> None:
    config = run_config(model={"vocab_size": 100, "context_length": 64})
    with pytest.raises(ValueError, match=r"fewer than context_length 64.*beyond vocab_size 100"):
        run(config, (torch.tensor([1, 2, 50000]), torch.tensor([1])))
    with pytest.raises(ValueError, match="nothing to train on"):
        list(train(run_config()))


# Precision and compilation


def test_bf16_trains_nearly_as_fp32() -> None:
    fp32, bf16 = (
        [e.loss for e in of(Stepped, run(run_config(train={"precision": name}, model={"drop_rate": 0.0})))]
        for name in ("fp32", "bf16")
    )
    assert fp32 != bf16
    assert bf16 == pytest.approx(fp32, rel=0.02)


def test_a_model_that_cannot_be_compiled_trains_without(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object, **__: object) -> None:
        raise RuntimeError("no compiler here\nand a long trace")

    monkeypatch.setattr(torch, "compile", fail)
    events = run(run_config(train={"compile": "on"}))
    assert "compiling" in [event.phase for event in of(Phase, events)]
    assert of(Warned, events)[-1].message.endswith("no compiler here")
    assert numbers(events) == numbers(run())


@pytest.mark.cuda
def test_training_resumes_exactly_on_a_gpu(folder: Path) -> None:
    config = run_config(train={"device": "cuda"})
    run(config, checkpoints=folder, requests=asking({7: ["stop"]}))
    second = run(config, checkpoints=folder, resume_from=folder)
    assert [e.loss for e in of(Stepped, second)] == [e.loss for e in of(Stepped, run(config))][7:]


@pytest.mark.cuda
def test_a_compiled_run_on_a_gpu_goes_on_where_it_stopped(folder: Path) -> None:
    config = run_config(train={"device": "cuda", "compile": "on"})
    run(config, checkpoints=folder, requests=asking({7: ["stop"]}))
    second = run(config, checkpoints=folder, resume_from=folder)
    unbroken = run(config)
    assert not of(Warned, unbroken)  # it was compiled
    # the fused kernels add up gradients in any order: the last digits are drawn anew
    assert [e.loss for e in of(Stepped, second)] == pytest.approx([e.loss for e in of(Stepped, unbroken)][7:], rel=1e-4)


@pytest.mark.mps
def test_training_resumes_exactly_on_an_apple_gpu(folder: Path) -> None:
    config = run_config(train={"device": "mps"})
    run(config, checkpoints=folder, requests=asking({7: ["stop"]}))
    second = run(config, checkpoints=folder, resume_from=folder)
    assert [e.loss for e in of(Stepped, second)] == [e.loss for e in of(Stepped, run(config))][7:]
