"""Models small enough for a test, and texts of token ids to train them on."""

from __future__ import annotations

import torch
from torch import Tensor

from bench import plain
from gptlab.config import ModelConfig, RunConfig
from gptlab.model import GPTModel

VOCABULARY = 61


def small_config(**changes: object) -> ModelConfig:
    """A model of two layers over 61 tokens; dropout 0.1."""
    shape = {"vocab_size": VOCABULARY, "context_length": 16, "emb_dim": 24, "n_heads": 3, "n_layers": 2}
    return ModelConfig.model_validate({**shape, **changes})


def small_model(seed: int = 0, **changes: object) -> GPTModel:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return GPTModel(small_config(**changes)).eval()


def some_ids(n: int, seed: int = 0, vocabulary: int = VOCABULARY) -> Tensor:
    return torch.randint(vocabulary, (n,), generator=torch.Generator().manual_seed(seed))


def run_config(**sections: dict[str, object]) -> RunConfig:
    """A run that trains at once: batches of 2 windows of 8 tokens. Of GPT-2's tokens it knows single characters."""
    model = {"vocab_size": 300, "context_length": 8, "emb_dim": 4, "n_heads": 2, "n_layers": 2}
    train = {"num_epochs": 2, "eval_freq": 2, "eval_iter": 2, "sample_tokens": 3, "prompts": ["a"]}
    plain = {"device": "cpu", "precision": "fp32", "compile": "off"}
    config = RunConfig().with_fields(model=model, optim={"learning_rate": 1e-2}, train={**train, **plain})
    return config.with_fields(**sections)


def parts(n_train: int = 8 * 2 * 5 + 1, n_val: int = 8 * 4 + 1) -> tuple[Tensor, Tensor]:
    """Token ids of a training part (5 batches by default) and of a validation part."""
    return some_ids(n_train, vocabulary=300), some_ids(n_val, seed=1, vocabulary=300)


def straightforward_twin(model: GPTModel) -> plain.PlainGPT:
    """The same model written the exercise's way, with a copy of ``model``'s weights."""
    fields = vars(plain.Shape())
    twin = plain.PlainGPT(plain.Shape(**{name: getattr(model.config, name) for name in fields}))
    pairs: list[tuple[torch.nn.Module, torch.nn.Module]] = [
        (twin.tokens, model.tok_emb),
        (twin.positions, model.pos_emb),
        (twin.norm, model.final_norm),
        (twin.head, model.out_head),
    ]
    for mine, block in zip(twin.blocks, model.trf_blocks, strict=True):
        att, ff = block.att, block.ff.layers
        pairs += [
            (mine.attention.query, att.W_query),
            (mine.attention.key, att.W_key),
            (mine.attention.value, att.W_value),
            (mine.attention.out, att.out_proj),
            (mine.feed_forward[0], ff[0]),
            (mine.feed_forward[2], ff[2]),
            (mine.norm1, block.norm1),
            (mine.norm2, block.norm2),
        ]
    for copy, original in pairs:
        copy.load_state_dict(original.state_dict())
    return twin
