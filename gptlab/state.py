"""What changes while a model trains, and one optimiser step on it. ``training`` decides when; this module does it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.utils.data import DataLoader

from gptlab.checkpoint import load_weights, read_resume
from gptlab.config import DataConfig, OptimConfig, RunConfig
from gptlab.dataset import check_lengths, create_dataloader, split_text
from gptlab.device import available_cores, pick_device, resolve_precision
from gptlab.fast.compiling import missing, pays
from gptlab.fast.engine import Engine
from gptlab.loss import calc_loss_batch, evaluate_model
from gptlab.model import GPTModel
from gptlab.published_order import PublishedLoader, evaluate_in_order
from gptlab.tokenizer import text_to_token_ids

Batch = tuple[Tensor, Tensor]
Data = str | tuple[Any, Any]


class RandomStreams:
    """Torch's global random streams (CPU, and the device's) as training sees them, kept apart from the caller's.

    Inside ``with streams:`` they are training's, outside they are the caller's: what is drawn between two events, by a
    sample or by anything else, never changes the training that follows, and training never changes what a caller draws.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._other = self.read()

    def read(self) -> dict[str, Tensor]:
        streams = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            streams["cuda"] = torch.cuda.get_rng_state(self.device)
        elif self.device.type == "mps":
            streams["mps"] = torch.mps.get_rng_state()
        return streams

    def write(self, streams: dict[str, Tensor]) -> None:
        torch.set_rng_state(streams["cpu"])
        if self.device.type == "cuda" and "cuda" in streams:
            torch.cuda.set_rng_state(streams["cuda"], self.device)
        elif self.device.type == "mps" and "mps" in streams:
            torch.mps.set_rng_state(streams["mps"])

    def _swap(self) -> None:
        current = self.read()
        self.write(self._other)
        self._other = current

    def __enter__(self) -> RandomStreams:
        self._swap()
        return self

    def __exit__(self, *_: object) -> None:
        self._swap()


@dataclass
class TrainState:
    """A model in training: weights, optimiser, loaders and progress. ``step`` counts optimiser steps completed."""

    config: RunConfig
    device: torch.device
    precision: str
    model: GPTModel
    optimizer: torch.optim.Optimizer
    train_loader: DataLoader | PublishedLoader
    val_loader: DataLoader | PublishedLoader
    streams: RandomStreams
    warnings: list[str]
    forward: nn.Module
    engine: Engine | None = None  # the compiled step, where there is one
    compiled_before: bool | None = None  # whether the run that is resumed was compiled
    step: int = 0
    tokens_seen: int = 0
    best_val_loss: float = math.inf
    best_step: int = 0
    evaluations_since_best: int = 0

    @classmethod
    def build(cls, config: RunConfig, data: Data) -> TrainState:
        """The state before the first step. ``data``: the text, or the token ids of both parts (training, validation).

        The seed decides the weights. The global random streams and thread count are left as they are. ValueError
        with everything that is wrong with the data or the device.
        """
        device = pick_device(config.train.device)
        published = config.data.order == "published"
        precision = "fp32" if published else resolve_precision(config.train.precision, device)
        train_ids, val_ids = (_as_ids(part) for part in _parts(data, config.data))
        report = check_lengths(len(train_ids), len(val_ids), config)
        faults = [*report.faults, *_outside_vocabulary(train_ids, val_ids, config.model.vocab_size)]
        if faults:
            raise ValueError(" ".join(faults))
        streams = RandomStreams(device)
        with streams:
            torch.manual_seed(config.train.seed)
            model = GPTModel(config.model).to(device)
        model.train()
        return cls(
            config=config,
            device=device,
            precision=precision,
            model=model,
            optimizer=make_optimizer(model, config.optim),
            train_loader=_loader(train_ids, config, training=True),
            val_loader=_loader(val_ids, config, training=False),
            streams=streams,
            warnings=list(report.warnings),
            forward=model,
        )

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(len(self.train_loader) / self.config.optim.grad_accumulation)

    @property
    def total_steps(self) -> int:
        steps = self.config.train.num_epochs * self.steps_per_epoch
        return steps if self.config.train.max_steps is None else min(steps, self.config.train.max_steps)

    def groups(self) -> Iterator[tuple[Batch, ...]]:
        """What is left of the current epoch: the batches of each optimiser step to come."""
        epoch, done = divmod(self.step, self.steps_per_epoch)
        size = self.config.optim.grad_accumulation
        if isinstance(self.train_loader, PublishedLoader):
            batches = self.train_loader.epoch(begun=done > 0)
        else:
            self.train_loader.sampler.set_epoch(epoch + 1)  # type: ignore[attr-defined]
            batches = iter(self.train_loader)
        groups = iter(lambda: tuple(islice(batches, size)), ())  # the last one of an epoch may be smaller
        return islice(groups, done, None)

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16")

    def optimise(self, batches: Sequence[Batch], learning_rate: float) -> tuple[float, float]:
        """One optimiser step; returns the loss (mean over all tokens) and the gradient norm before clipping.

        Where one of them is not finite nothing is applied: weights, optimiser and progress are as they were.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        if self.engine is not None:
            return self._optimise_by(self.engine, batches)
        self.optimizer.zero_grad(set_to_none=True)
        n_tokens = sum(inputs.numel() for inputs, _ in batches)
        loss = 0.0
        for inputs, targets in batches:
            share = inputs.numel() / n_tokens  # so that k batches of b weigh as one batch of k * b
            with self.autocast():
                batch_loss = calc_loss_batch(inputs, targets, self.forward, self.device) * share
            loss += batch_loss.item()
            if not math.isfinite(loss):
                return loss, math.nan
            batch_loss.backward()
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        norm_tensor = get_total_norm(gradients)
        norm = norm_tensor.item()
        if not math.isfinite(norm):
            return loss, norm
        if self.config.optim.grad_clip is not None:
            clip_grads_with_norm_(self.model.parameters(), self.config.optim.grad_clip, norm_tensor)
        self.optimizer.step()
        self.step += 1
        self.tokens_seen += n_tokens
        return loss, norm

    def _optimise_by(self, engine: Engine, batches: Sequence[Batch]) -> tuple[float, float]:
        loss = engine.loss_and_gradients(batches, self.step)
        norm = engine.norm() if math.isfinite(loss) else math.nan
        if not math.isfinite(norm):
            engine.clear()
            return loss, norm
        clip = self.config.optim.grad_clip
        engine.update(self.optimizer, 1.0 if clip is None else min(1.0, clip / (norm + 1e-6)))
        self.step += 1
        self.tokens_seen += sum(inputs.numel() for inputs, _ in batches)
        return loss, norm

    def evaluate(self) -> tuple[float, float]:
        """Training and validation loss; remembers whether the validation loss is the best so far."""
        engine = self.engine  # where there is one, it decides itself what is bf16
        if isinstance(self.train_loader, PublishedLoader) and isinstance(self.val_loader, PublishedLoader):
            most = self.config.train.eval_iter
            return self._noted(evaluate_in_order(self.model, self.train_loader, self.val_loader, self.device, most))
        with self.autocast() if engine is None else nullcontext():
            losses = evaluate_model(
                self.model,
                self.train_loader,
                self.val_loader,
                self.device,
                self.config.train.eval_iter,
                None if engine is None else engine.loss,
            )
        return self._noted(losses)

    def _noted(self, losses: tuple[float, float]) -> tuple[float, float]:
        if losses[1] < self.best_val_loss:
            self.best_val_loss, self.best_step, self.evaluations_since_best = losses[1], self.step, 0
        elif not math.isnan(losses[1]):
            self.evaluations_since_best += 1
        return losses

    def is_finite(self) -> bool:
        """False when a weight is NaN or infinite."""
        with torch.no_grad():
            return all(bool(torch.isfinite(parameter).all()) for parameter in self.model.parameters())

    def wants_to_compile(self) -> bool:
        """Whether the step is to be compiled; ``auto`` as the resumed run began, else with bf16 where it pays."""
        wish = self.config.train.compile
        if self.config.data.order == "published":
            return False
        if wish != "auto":
            return wish == "on"
        if self.compiled_before is not None:
            return self.compiled_before
        asked = self.precision == "bf16" and self.device.type == "cpu"
        return asked and pays(self.config, self.total_steps, self.precision, available_cores())

    def compile(self) -> str | None:
        """Compile the training step for batches of the usual shape. Returns why not: it then stays as it was."""
        shape = (self.config.data.batch_size, self.config.model.context_length)
        inside = self.streams.read()
        try:
            if self.device.type == "cpu":
                if reason := missing():
                    return reason
                dtype = torch.bfloat16 if self.precision == "bf16" else torch.float32
                engine = Engine(self.model, dtype, self.config.train.seed)
                engine.compile(*shape)
                self.engine = engine
            else:
                forward = cast(nn.Module, torch.compile(self.model))
                ids = torch.zeros(shape, dtype=torch.long)
                with self.autocast():
                    calc_loss_batch(ids, ids, forward, self.device).backward()
                self.forward = forward
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # whatever the compiler does not like, the plain model still trains
            return f"{type(error).__name__}: {(str(error).strip() or 'no reason given').splitlines()[0]}"
        finally:
            self.model.zero_grad(set_to_none=True)
            self.streams.write(inside)
        return None

    def resume_facts(self) -> dict[str, Any]:
        """What ``resume.pt`` holds: references, no copies. Call it where training's random streams are in place."""
        return {
            "format": 1,
            "step": self.step,
            "tokens_seen": self.tokens_seen,
            "best_val_loss": self.best_val_loss,
            "best_step": self.best_step,
            "evaluations_since_best": self.evaluations_since_best,
            "optimizer": self.optimizer.state_dict()["state"],
            "streams": self.streams.read(),
            "threads": torch.get_num_threads(),
            "device": str(self.device),
            "precision": self.precision,
            "compiled": self.is_compiled,
            "epoch_seed": self.train_loader.epoch_seed if isinstance(self.train_loader, PublishedLoader) else None,
            "torch": str(torch.__version__),
        }

    @property
    def is_compiled(self) -> bool:
        return self.engine is not None or self.forward is not self.model

    def restore(self, folder: Any) -> list[str]:
        """Go on from a checkpoint folder; returns what keeps the losses from being exactly those of an unbroken run.

        To be called where training's random streams are in place. Sets torch's thread count to that of the run.
        """
        facts = read_resume(folder)
        load_weights(self.model, folder)
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": facts["optimizer"], "param_groups": groups})
        for name in ("step", "tokens_seen", "best_val_loss", "best_step", "evaluations_since_best"):
            setattr(self, name, facts[name])
        self.streams.write(facts["streams"])
        torch.set_num_threads(facts["threads"])
        if self.config.train.precision == "auto" and facts["device"] == str(self.device):
            self.precision = facts["precision"]  # what auto means may have changed since
        self.compiled_before = facts.get("compiled")
        if isinstance(self.train_loader, PublishedLoader):
            self.train_loader.epoch_seed = facts["epoch_seed"]
        if self.engine is not None:
            self.engine.refresh()
        now = {
            "device": str(self.device),
            "precision": self.precision,
            "threads": torch.get_num_threads(),
            "torch": str(torch.__version__),
        }
        return [
            f"The run began with {name} {facts[name]} and goes on with {name} {value}: "
            "its losses can differ a little from those of an unbroken run."
            for name, value in now.items()
            if str(facts[name]) != str(value)
        ]


def make_optimizer(model: GPTModel, optim: OptimConfig) -> torch.optim.AdamW:
    """AdamW over all parameters, decaying all of them as the reference does.

    One fused kernel, except on a CPU: there the plain one, 0.1 s slower for 124M weights, follows the reference's
    training bit for bit.
    """
    return torch.optim.AdamW(
        model.parameters(),
        lr=optim.learning_rate,
        betas=optim.betas,
        weight_decay=optim.weight_decay,
        fused=model.tok_emb.weight.device.type != "cpu",
    )


def _parts(data: Data, config: DataConfig) -> tuple[Any, Any]:
    if isinstance(data, str):
        first, second = split_text(data, config.train_ratio)
        return text_to_token_ids(first)[0], text_to_token_ids(second)[0]
    return data


def _as_ids(part: Any) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a read-only array is fine: nothing writes to it
        return torch.as_tensor(part).flatten()


def _outside_vocabulary(train_ids: Tensor, val_ids: Tensor, vocab_size: int) -> list[str]:
    largest = max((int(ids.max()) for ids in (train_ids, val_ids) if len(ids)), default=0)
    if largest < vocab_size:
        return []
    return [
        f"The text holds token id {largest}, beyond vocab_size {vocab_size:,}: raise it to at least {largest + 1:,}."
    ]


def _loader(ids: Tensor, config: RunConfig, *, training: bool) -> DataLoader | PublishedLoader:
    if config.data.order == "published":
        return PublishedLoader(ids, config, training=training)
    return create_dataloader(
        ids,
        batch_size=config.data.batch_size,
        context_length=config.model.context_length,
        stride=config.data.stride,
        shuffle=config.data.shuffle and training,
        drop_last=config.data.drop_last and training,
        num_workers=config.data.num_workers if training else 0,
        seed=config.train.seed,
    )
