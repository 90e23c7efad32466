"""Runs of the reference exercise that nobody trained: their evaluations are figures that are known."""

from __future__ import annotations

import time
from collections.abc import Sequence

from gptlab.config import PRESETS, RunConfig
from gptlab.corpus import THE_VERDICT_SHA256
from gptlab.events import Ended, Evaluated, Phase, Sampled, Saved, Started, Stepped
from gptlab.published import EVALUATIONS
from gptlab.runs import Run, RunStore
from gptlab.tokenizer import get_tokenizer

EXERCISE = PRESETS["gpt2-124m"].with_fields(data={"corpus": f"sha256:{THE_VERDICT_SHA256}"})
PROMPT = "Every effort moves you"
TEXTS = {
    0: " Ware peculiar Kelvin pretended sofa",
    1: ",,,,,,,,,,,,.",
    2: ", and, and, and, and, and, and, and, and",
    5: " know it was not that the picture--I had the fact by the last I had been",
    10: ' know," was one of the axioms he laid down across the Sevres and silver of an exquisitely appointed',
}
Trace = Sequence[tuple[float, float]]
PUBLISHED: Trace = [(row.train, row.val) for row in EVALUATIONS]


def make_exercise_run(
    store: RunStore,
    trace: Trace = PUBLISHED,
    *,
    name: str = "the exercise",
    config: RunConfig = EXERCISE,
    spike: int | None = None,
) -> Run:
    """A run whose evaluations (training, validation loss) are those of ``trace``; finished if there are all 18.

    ``spike``: a step whose loss shot up.
    """
    run = store.create(config, name=name)
    last = EVALUATIONS[len(trace) - 1].step if len(trace) < len(EVALUATIONS) else 89
    now = time.time() - 5.0 * (last + 1)
    started = {"device": "cpu", "n_parameters": 162_419_712, "total_steps": 90, "threads": 2, "steps_per_epoch": 9}
    run.append(Started(run=run.id, time=now, **started))  # type: ignore[arg-type]
    measured = dict(zip((row.step for row in EVALUATIONS), trace, strict=False))
    train, lowest = 11.0, float("inf")
    run.append(_sample(0, 0, now))
    for step in range(last + 1):
        epoch, now = step // 9 + 1, now + 5.0
        at = {"step": step, "epoch": epoch, "tokens_seen": 512 * (step + 1), "time": now}
        train = measured.get(step, (train, 0.0))[0]
        loss = 16.0 if step == spike else (5.5 if spike and abs(step - spike) == 1 else train + 0.1)
        run.append(Stepped(**at, loss=loss, learning_rate=4e-4, grad_norm=2.0, tokens_per_second=100.0))  # type: ignore[arg-type]
        if step in measured:
            run.append(Evaluated(**at, train_loss=train, val_loss=measured[step][1]))  # type: ignore[arg-type]
            if measured[step][1] < lowest:
                lowest = measured[step][1]
                run.append(Saved(step=step, time=now, checkpoint="best", reason="best", epoch=epoch))
        if step % 9 == 8:
            run.append(_sample(epoch, step, now))
    if len(trace) == len(EVALUATIONS):
        run.append(Ended(step=last, time=now, reason="finished", message="Finished after 90 steps, in epoch 10."))
    else:
        run.append(Phase(step=last, time=now, phase="training"))
    return run


def _sample(epoch: int, step: int, now: float) -> Sampled:
    text = PROMPT + TEXTS[max(known for known in TEXTS if known <= epoch)]
    ids = tuple(get_tokenizer().encode(text))
    chances = tuple(None if place < 4 else 0.5 for place in range(len(ids)))
    return Sampled(step=step, time=now, epoch=epoch, prompt=PROMPT, token_ids=ids, text=text, probabilities=chances)
