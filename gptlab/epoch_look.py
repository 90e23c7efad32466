"""What is looked at after an epoch: what the model writes, and what it knows of the watched passages."""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch

from gptlab.config import SamplingConfig, TrainConfig
from gptlab.events import Probed, Sampled
from gptlab.fast.decoding import forget_weights
from gptlab.loss import token_losses
from gptlab.probing import packed, watched_passages
from gptlab.sampling import generate_steps
from gptlab.state import TrainState
from gptlab.tokenizer import text_to_token_ids, token_ids_to_text


class EpochLook:
    """Looks at a state's model. Whatever is drawn meanwhile is its own: training does not notice."""

    def __init__(self, config: TrainConfig, state: TrainState) -> None:
        self.config, self.state = config, state
        datasets = (state.train_loader.dataset, state.val_loader.dataset)
        self.watched = watched_passages(*datasets, config.probe_windows)
        self.told: set[tuple[str, int]] = set()  # passages whose token ids are in the log

    def samples(self, step: int, epoch: int) -> Iterator[Sampled]:
        """What the model writes after each prompt, greedily."""
        sampling = SamplingConfig(max_new_tokens=self.config.sample_tokens, stop_at_end=False)
        for prompt in self.config.prompts:
            ids = text_to_token_ids(prompt)[0].tolist()
            new = list(generate_steps(self.state.model, ids, sampling))
            ids += [token.id for token in new]
            known: list[float | None] = [None] * (len(ids) - len(new))
            yield Sampled(
                step=step,
                epoch=epoch,
                prompt=prompt,
                token_ids=tuple(ids),
                text=token_ids_to_text(ids),
                probabilities=tuple(known + [token.probability for token in new]),
            )
        forget_weights(self.state.model)

    def probes(self, step: int, epoch: int) -> Iterator[Probed]:
        """The loss of each token of the watched passages."""
        for passage in self.watched:
            began = time.perf_counter()
            with self.state.autocast():
                losses = token_losses(self.state.model, torch.tensor(passage.token_ids))
            yield Probed(
                step=step,
                epoch=epoch,
                part=passage.part,
                start=passage.start,
                losses=packed(losses.tolist()),
                seconds=round(time.perf_counter() - began, 4),
                token_ids=() if passage.place in self.told else passage.token_ids,
            )
            self.told.add(passage.place)
