"""What changes while a model trains, and one optimiser step on it. ``training`` decides when; this module does it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from gptlab.checkpoint import load_weights, read_resume
from gptlab.config import OptimConfig, RunConfig
from gptlab.device import pick_device, precision_for
from gptlab.fast.engine import Engine
from gptlab.fast.fused import FusedLoss
from gptlab.fast.recorded import RecordedStep
from gptlab.loaders import Data, Loader, make_loaders
from gptlab.loss import BatchLoss, calc_loss_batch, evaluate_model, on_device
from gptlab.model import GPTModel
from gptlab.published_order import PublishedLoader, evaluate_in_order
from gptlab.random_streams import RandomStreams

Batch = tuple[Tensor, Tensor]


@dataclass
class TrainState:
    """A model in training: weights, optimiser, loaders and progress. ``step`` counts optimiser steps completed."""

    config: RunConfig
    device: torch.device
    precision: str
    model: GPTModel
    optimizer: torch.optim.Optimizer
    train_loader: Loader
    val_loader: Loader
    streams: RandomStreams
    warnings: list[str]
    reads_later: bool = False  # steps are made by ``optimise_unread``: the device need not wait for its reader
    spoilt: Tensor | None = None  # on the device: 1 once a step's numbers were not finite, else 0
    engine: Engine | None = None  # the compiled step on a CPU, where there is one
    fused: FusedLoss | None = None  # the compiled loss on a GPU, where there is one
    recorded: RecordedStep | None = None  # the step on a GPU that is started as a whole, where there is one
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
        precision = precision_for(config, device)
        train_loader, val_loader, remarks = make_loaders(data, config, device)
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
            train_loader=train_loader,
            val_loader=val_loader,
            streams=streams,
            warnings=remarks,
            reads_later=device.type == "cuda",
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
        self._set(learning_rate)
        if self.engine is not None:
            return self._optimise_by(self.engine, batches)
        loss = 0.0
        for part in self._backward(batches):
            loss += part.item()
            if not math.isfinite(loss):
                return loss, math.nan
        norm_tensor = self._norm()
        norm = norm_tensor.item()
        if math.isfinite(norm):
            self._apply(norm_tensor)
            self._made(batches)
        return loss, norm

    def optimise_unread(self, batches: Sequence[Batch], learning_rate: float) -> Tensor:
        """``optimise`` for a device that works on while nobody waits for it: nothing is read back.

        Returns the parts of the loss, one for each batch, and the norm, on the device. From the first step on whose
        numbers are not finite the device itself leaves out every update; ``take_back`` then says how far it came.
        """
        self._set(learning_rate)
        if self.recorded is not None and self.recorded.fits(batches):
            numbers = self.recorded(batches, self.mask_keys(len(batches)))
        else:
            numbers = self.unread_step(batches)
        self._made(batches)
        return numbers

    def unread_step(self, batches: Sequence[Batch], keys: Sequence[Tensor] = ()) -> Tensor:
        """What the device does of a step. ``keys``: of each batch's masks, on the device; else made from the step."""
        for group in self.optimizer.param_groups:  # PyTorch asks for this where it is recorded, and warns elsewhere
            group["capturable"] = self.device.type == "cuda" and torch.cuda.is_current_stream_capturing()
        losses = [part.detach() for part in self._backward(batches, keys)]
        norm_tensor = self._norm()
        numbers = torch.stack([*losses, norm_tensor])
        bad = torch.isfinite(numbers).logical_not().any().float()
        if self.spoilt is None:
            self.spoilt = torch.zeros_like(bad)
        torch.maximum(self.spoilt, bad, out=self.spoilt)
        self.optimizer.grad_scale, self.optimizer.found_inf = None, self.spoilt  # type: ignore[attr-defined]
        self._apply(norm_tensor)
        return numbers

    def take_back(self, step: int, tokens_seen: int) -> None:
        """Progress as it was before a step that was not applied, nor were those after it."""
        self.step, self.tokens_seen = step, tokens_seen

    def _set(self, learning_rate: float) -> None:
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(learning_rate)
            else:
                group["lr"] = learning_rate

    def _backward(self, batches: Sequence[Batch], keys: Sequence[Tensor] = ()) -> Iterator[Tensor]:
        """Gradients of the mean loss over all tokens, batch by batch: each one's part of it, before its way back."""
        self.optimizer.zero_grad(set_to_none=True)
        n_tokens = _count(batches)
        for number, (inputs, targets) in enumerate(batches):
            share = inputs.numel() / n_tokens  # so that k batches of b weigh as one batch of k * b
            with self.autocast():
                if self.fused is not None and keys:
                    part = self.fused.with_keys(inputs, targets, keys[number]) * share
                else:
                    part = self.batch_loss(inputs, targets, number) * share
            yield part
            part.backward()

    def batch_loss(self, inputs: Tensor, targets: Tensor, number: int = 0) -> Tensor:
        """Mean loss of one batch, the ``number``-th of its step, as a scalar on the device."""
        if self.fused is None:
            return calc_loss_batch(inputs, targets, self.model, self.device)
        return self.fused(*on_device((inputs, targets), self.device), self.step, number)

    @contextmanager
    def evaluation_loss(self) -> Iterator[BatchLoss | None]:
        """How evaluations come to a batch's loss: the compiled way, or None, the model's own, with autocast inside."""
        if self.engine is not None:
            yield self.engine.loss
        elif self.fused is not None:
            yield self.batch_loss
        else:
            with self.autocast():
                yield None

    def _norm(self) -> Tensor:
        return get_total_norm([p.grad for p in self.model.parameters() if p.grad is not None])

    def _apply(self, norm: Tensor) -> None:
        if self.config.optim.grad_clip is not None:
            clip_grads_with_norm_(self.model.parameters(), self.config.optim.grad_clip, norm)
        self.optimizer.step()

    def _made(self, batches: Sequence[Batch]) -> None:
        self.step += 1
        self.tokens_seen += _count(batches)

    def _optimise_by(self, engine: Engine, batches: Sequence[Batch]) -> tuple[float, float]:
        loss = engine.loss_and_gradients(batches, self.step)
        norm = engine.norm() if math.isfinite(loss) else math.nan
        if not math.isfinite(norm):
            engine.clear()
            return loss, norm
        clip = self.config.optim.grad_clip
        engine.update(self.optimizer, 1.0 if clip is None else min(1.0, clip / (norm + 1e-6)))
        self._made(batches)
        return loss, norm

    def evaluate(self) -> tuple[float, float]:
        """Training and validation loss; remembers whether the validation loss is the best so far."""
        if isinstance(self.train_loader, PublishedLoader) and isinstance(self.val_loader, PublishedLoader):
            most = self.config.train.eval_iter
            return self._noted(evaluate_in_order(self.model, self.train_loader, self.val_loader, self.device, most))
        with self.evaluation_loss() as batch_loss:
            losses = evaluate_model(
                self.model, self.train_loader, self.val_loader, self.device, self.config.train.eval_iter, batch_loss
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
        weights = list(self.model.parameters())
        with torch.no_grad():  # a sum is finite only where all that it sums is, and takes a tenth of the time
            sums = torch.stack([weight.sum() for weight in weights])
            return bool(sums.isfinite().all()) or all(bool(weight.isfinite().all()) for weight in weights)

    def mask_keys(self, n_batches: int) -> Tensor:
        """Of the masks of a step's batches, on the CPU; nothing where the device's own stream makes them."""
        if self.fused is None:
            return torch.empty(n_batches, 0)
        return torch.stack([self.fused.keys(self.step, number) for number in range(n_batches)])

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
        return self.engine is not None or self.fused is not None

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
    device = model.tok_emb.weight.device
    rate: float | Tensor = optim.learning_rate
    return torch.optim.AdamW(
        model.parameters(),
        lr=torch.tensor(rate, device=device) if device.type == "cuda" else rate,  # there what is recorded reads it
        betas=optim.betas,
        weight_decay=optim.weight_decay,
        fused=device.type != "cpu",
    )


def _count(batches: Sequence[Batch]) -> int:
    return sum(inputs.numel() for inputs, _ in batches)
