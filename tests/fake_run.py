"""Runs that nobody trained: folders with a believable event log, for tests and for looking at pages."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator

from gptlab.config import RunConfig
from gptlab.events import Ended, Evaluated, Event, Phase, Sampled, Saved, Started, Stepped, Warned
from gptlab.runs import Run, RunStore

PROMPT = "Every effort moves you"
TEXTS = (
    " Ware peculiar lighthouse Kelvin pretended sofa",
    ",,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,",
    ", and the, and the, the, and the, the, and the, and the, the, and the",
    " to the door, and the lamp was the room. The lamp was in the",
    " to the door of the old house, and she said that the lamp was not hers",
    " a little nearer the window, where the old clockmaker had left his lamp",
)


def events(
    n_epochs: int = 10,
    steps_per_epoch: int = 9,
    *,
    until: int | None = None,
    start: float = 1_700_000_000.0,
    prompts: tuple[str, ...] = (PROMPT,),
    texts: tuple[str, ...] = TEXTS,
    eval_freq: int = 5,
    run: str = "",
) -> Iterator[Event]:
    """The facts of a run up to step ``until`` (all of it without), half a second a step."""
    from gptlab.tokenizer import get_tokenizer

    tokenizer = get_tokenizer()
    noise = random.Random(7)
    total = n_epochs * steps_per_epoch
    now = start
    yield Started(
        step=0,
        time=now,
        run=run,
        device="cpu",
        n_parameters=162_419_712,
        total_steps=total,
        threads=2,
        steps_per_epoch=steps_per_epoch,
    )
    yield Phase(step=0, time=now, phase="loading")

    def samples(step: int, epoch: int) -> Iterator[Event]:
        for prompt in prompts:
            head = tokenizer.encode(prompt)
            text = texts[min(len(texts) - 1, math.ceil(epoch * (len(texts) - 1) / n_epochs))]
            tail = tokenizer.encode(text)
            sure = 0.02 + 0.9 * epoch / n_epochs
            chances = [min(0.999, max(1e-4, noise.gauss(sure, 0.25))) for _ in tail]
            yield Sampled(
                step=step,
                time=now,
                epoch=epoch,
                prompt=prompt,
                token_ids=(*head, *tail),
                text=prompt + text,
                probabilities=(*(None for _ in head), *chances),
            )

    yield Phase(step=0, time=now, phase="sampling")
    yield from samples(0, 0)
    yield Phase(step=0, time=now, phase="training")
    best = math.inf
    for step in range(total if until is None else min(until, total)):
        epoch = step // steps_per_epoch + 1
        now += 0.5
        done = (step + 1) / total
        loss = 0.4 + 10.2 * math.exp(-3.2 * done) + noise.gauss(0, 0.12)
        common = {"step": step, "epoch": epoch, "tokens_seen": (step + 1) * 512}
        yield Stepped(
            **common,
            time=now,
            loss=loss,
            learning_rate=4e-4 * min(1, (step + 1) / 10) * (0.55 + 0.45 * math.cos(math.pi * done)),
            grad_norm=0.6 + 2.5 * math.exp(-4 * done) + abs(noise.gauss(0, 0.15)),
            tokens_per_second=1024 + noise.gauss(0, 20),
        )
        if step % eval_freq == 0:
            val = 6.1 + 4.6 * math.exp(-9 * done) + 0.55 * max(0.0, done - 0.5)
            yield Evaluated(**common, time=now, train_loss=loss - 0.05, val_loss=val)
            if val < best:
                best = val
                yield Saved(step=step, time=now, checkpoint="best", reason="best", epoch=epoch)
        if (step + 1) % steps_per_epoch == 0:
            yield from samples(step, epoch)
            yield Saved(step=step, time=now, checkpoint=f"step-{step + 1:06d}", reason="epoch", epoch=epoch)


def make_run(
    store: RunStore,
    n_epochs: int = 10,
    status: str = "finished",
    *,
    name: str = "a run",
    until: int | None = None,
    config: RunConfig | None = None,
    weights: bool = True,
    message: str = "",
    warnings: tuple[str, ...] = (),
    **facts: object,
) -> Run:
    """A run in ``store`` as it looks with that status; without ``until`` all but a finished one stop half-way.

    ``running`` and ``paused`` ones are only that while somebody holds their lock: use ``hold(run)``.
    """
    config = config or RunConfig().model_copy(
        update={"train": RunConfig().train.model_copy(update={"num_epochs": n_epochs})}
    )
    run = store.create(config, name=name)
    steps_per_epoch = int(facts.get("steps_per_epoch", 9))  # type: ignore[call-overload]
    total = n_epochs * steps_per_epoch
    until = until if until is not None else (total if status == "finished" else total // 2)
    facts.setdefault("start", time.time() - 0.5 * until)
    last = 0
    for event in events(n_epochs, until=until, run=run.id, **facts):  # type: ignore[arg-type]
        run.append(event)
        last = event.step
        if isinstance(event, Saved) and weights and status != "discarded":
            folder = run.path / "checkpoints" / event.checkpoint
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "weights.safetensors").write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00{}      ")
            for other in folder.parent.glob("step-*/resume.pt"):
                other.unlink()
            if event.checkpoint != "best":
                (folder / "resume.pt").write_bytes(b"resume")
    for warning in warnings:
        run.append(Warned(step=last, message=warning))
    if status == "paused":
        run.append(Phase(step=last, phase="paused"))
    if status in ("finished", "stopped", "discarded", "failed"):
        if status == "stopped":
            run.append(Saved(step=last, checkpoint=f"step-{last + 1:06d}", reason="stopped"))
        run.append(Ended(step=last, reason=status, message=message))
    return run


class hold:
    """Holds a run's lock as its worker would: ``with hold(run): ...`` makes it running (or paused)."""

    def __init__(self, run: Run) -> None:
        self.path = run.path / "worker.lock"

    def __enter__(self) -> None:
        import fcntl
        import os

        self.file = open(self.path, "w")
        fcntl.flock(self.file, fcntl.LOCK_EX)
        self.file.write(str(os.getpid()))
        self.file.flush()

    def __exit__(self, *_: object) -> None:
        self.file.close()
