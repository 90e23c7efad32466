"""Who is measured: this package, the straightforward way, and Hugging Face's GPT-2, each on the same shapes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bench import plain
from gptlab.config import ModelConfig, OptimConfig, SamplingConfig
from gptlab.fast.engine import Engine
from gptlab.model import GPTModel
from gptlab.sampling import generate
from gptlab.state import make_optimizer

Run = Callable[[], object]


def batch(shape: plain.Shape, size: int) -> tuple[Tensor, Tensor]:
    """Random token ids: inputs and targets [size, context_length]."""
    stream = torch.Generator().manual_seed(1)
    ids = torch.randint(shape.vocab_size, (size, shape.context_length + 1), generator=stream)
    return ids[:, :-1].contiguous(), ids[:, 1:].contiguous()


def model_config(shape: plain.Shape) -> ModelConfig:
    return ModelConfig(**vars(shape))


class Plain:
    """The exercise's own way, fp32."""

    def __init__(self, shape: plain.Shape, size: int) -> None:
        self.model = plain.PlainGPT(shape)
        self.optimizer = plain.make_optimizer(self.model)
        self.batch = batch(shape, size)

    def step(self) -> object:
        return plain.train_step(self.model, self.optimizer, *self.batch)

    def evaluate(self) -> object:
        return plain.mean_loss(self.model, [self.batch], 1)

    def decode(self, n_new: int) -> object:
        return plain.greedy(self.model, torch.tensor([[6109, 3626, 6100, 345]]), n_new)


class Ours:
    """This package's fast step, as training uses it."""

    def __init__(self, shape: plain.Shape, size: int, dtype: torch.dtype) -> None:
        self.model = GPTModel(model_config(shape))
        self.optimizer = make_optimizer(self.model, OptimConfig())
        self.engine = Engine(self.model, dtype)
        self.engine.compile(size, shape.context_length)
        self.batch = batch(shape, size)
        self.made = 0

    def step(self) -> object:
        loss = self.engine.loss_and_gradients([self.batch], self.made)
        self.engine.norm()
        self.engine.update(self.optimizer)
        self.made += 1
        return loss

    def evaluate(self) -> object:
        return self.engine.loss(*self.batch)


def decode(model: GPTModel, n_new: int, weights: str) -> object:
    """This package's decoding, as the playground uses it."""
    sampling = SamplingConfig(max_new_tokens=n_new, stop_at_end=False)
    return list(generate(model, [6109, 3626, 6100, 345], sampling, weights=weights))


class HuggingFace:
    """``GPT2LMHeadModel`` of transformers: compiled, autocast to bf16, fused AdamW; the head untied as ours is."""

    def __init__(self, shape: plain.Shape, size: int, device: str = "cpu") -> None:
        self.device = device
        self.model = hugging_face_model(shape).to(device)
        self.compiled: Any = torch.compile(self.model)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=4e-4, weight_decay=0.1, fused=True)
        self.batch = tuple(ids.to(device) for ids in batch(shape, size))

    def step(self) -> object:
        inputs, targets = self.batch
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device, dtype=torch.bfloat16):
            logits = self.compiled(inputs, use_cache=False).logits
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
        loss.backward()
        self.optimizer.step()
        return loss


def hugging_face_model(shape: plain.Shape) -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=shape.vocab_size,
            n_positions=shape.context_length,
            n_embd=shape.emb_dim,
            n_head=shape.n_heads,
            n_layer=shape.n_layers,
            tie_word_embeddings=False,
        )
    )


def hugging_face_decoding(model: Any, n_new: int) -> Run:
    """Greedy decoding with its own cache."""
    prompt = torch.tensor([[6109, 3626, 6100, 345]])

    def run() -> object:
        with torch.inference_mode():
            return model.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=n_new,
                min_new_tokens=n_new,
                do_sample=False,
                pad_token_id=0,
            )

    return run
