"""Configuration: small frozen models whose fields state meaning, unit, range and default once.

The forms, the command line, the files and the error sentences all come from here. A run's configuration never
changes once the run exists. Names follow the published exercise that this project reproduces.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

GPT2_VOCAB_SIZE = 50257


def _field(default: Any, title: str, description: str, typical: str = "", **bounds: Any) -> Any:
    return Field(
        default=default,
        title=title,
        description=description,
        json_schema_extra={"typical": typical} if typical else None,
        **bounds,
    )


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())


class ModelConfig(_Part):
    """The shape of a GPT-2-like model. ``ModelConfig()`` is the published "GPT-2 124M" with context 256."""

    vocab_size: int = _field(
        GPT2_VOCAB_SIZE,
        "Vocabulary size",
        "Number of different tokens the model can read and write. GPT-2's tokenizer has 50,257.",
        "50257",
        ge=2,
        le=1_000_000,
    )
    context_length: int = _field(
        256,
        "Context length",
        "How many tokens the model sees at once; longer costs memory and time.",
        "64 to 1024 tokens",
        ge=1,
        le=16_384,
    )
    emb_dim: int = _field(
        768,
        "Embedding size",
        "Numbers per token inside the model (its width); must be divisible by the number of heads.",
        "96 to 1600",
        ge=1,
        le=16_384,
    )
    n_heads: int = _field(
        12,
        "Attention heads",
        "How many places a layer can look at independently; must divide the embedding size.",
        "4 to 25",
        ge=1,
        le=256,
    )
    n_layers: int = _field(12, "Layers", "Number of transformer blocks (depth).", "2 to 48", ge=1, le=256)
    drop_rate: float = _field(
        0.1,
        "Dropout",
        "Share of activations switched off at random while training, against memorising.",
        "0 to 0.2",
        ge=0,
        lt=1,
    )
    qkv_bias: bool = _field(
        False, "Query/key/value bias", "Add a bias to the query, key and value projections, as GPT-2 itself did."
    )
    tie_weights: bool = _field(
        False,
        "Tie output head",
        "Use the token embedding as the output head too: fewer parameters, as GPT-2 itself did.",
    )
    init: Literal["torch", "gpt2"] = _field(
        "torch",
        "Initialisation",
        "torch: PyTorch's defaults, as the reference exercise. "
        "gpt2: normal(0, 0.02) with residual projections scaled by 1/sqrt(2 x layers).",
    )

    @model_validator(mode="after")
    def _heads_divide_width(self) -> ModelConfig:
        if self.emb_dim % self.n_heads:
            width = max(1, round(self.emb_dim / self.n_heads)) * self.n_heads
            fits = [n for n in range(2, min(self.emb_dim, 2 * self.n_heads) + 1) if self.emb_dim % n == 0]
            nearest = min(fits, key=lambda n: abs(n - self.n_heads), default=None)
            heads = f"{nearest} heads, or " if nearest else ""
            raise ValueError(
                f"emb_dim {self.emb_dim} is not divisible by n_heads {self.n_heads}: "
                f"choose {heads}an emb_dim of {width}."
            )
        return self

    @property
    def head_dim(self) -> int:
        return self.emb_dim // self.n_heads


class DataConfig(_Part):
    """The text and how it is cut into batches of windows."""

    corpus: str | tuple[str, ...] = _field(
        "builtin",
        "Corpus",
        "builtin, the-verdict, a path of a UTF-8 text file, or several of them (joined by <|endoftext|>).",
    )
    train_ratio: float = _field(
        0.9,
        "Training share",
        "Share of the text's characters, from its start, that trains; the rest validates.",
        "0.8 to 0.95",
        gt=0,
        lt=1,
    )
    batch_size: int = _field(2, "Batch size", "Windows in one batch.", "2 to 64", ge=1, le=65_536)
    stride: int | None = _field(
        None,
        "Stride",
        "Tokens between the starts of neighbouring windows; empty means the context length (no overlap).",
        "half to one context length",
        ge=1,
        le=1_000_000,
    )
    shuffle: bool = _field(True, "Shuffle", "Read the training windows in a new random order every epoch.")
    drop_last: bool = _field(True, "Drop the last short batch", "Leave out a last training batch that is not full.")
    order: Literal["own", "published"] = _field(
        "own",
        "Order of random numbers",
        "own: an epoch's order depends on seed and epoch alone, and an evaluation, always of the same windows, changes "
        "nothing. published: as the exercise's own code, where order, dropout and evaluations draw from one stream; on "
        "a CPU it gives the exercise's figures. Needs fp32.",
        "own",
    )
    num_workers: int = _field(
        0, "Loader processes", "Extra processes that prepare batches; 0 is best for small texts.", "0", ge=0, le=64
    )

    @field_validator("corpus")
    @classmethod
    def _names_something(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        names = (value,) if isinstance(value, str) else value
        if not names or any(not name.strip() for name in names):
            raise ValueError("The corpus has no name: use builtin, the-verdict or the path of a text file.")
        return names[0] if len(names) == 1 else value

    @property
    def sources(self) -> tuple[str, ...]:
        """The corpus names or paths, one or several."""
        return (self.corpus,) if isinstance(self.corpus, str) else self.corpus


class OptimConfig(_Part):
    """AdamW (Loshchilov and Hutter, 2019) and its learning rate over time."""

    learning_rate: float = _field(
        4e-4, "Learning rate", "Size of an optimiser step; the highest one of the schedule.", "1e-4 to 4e-3", gt=0, le=1
    )
    weight_decay: float = _field(
        0.1, "Weight decay", "How strongly weights are pulled towards zero.", "0 to 0.1", ge=0, le=10
    )
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = _field(
        (0.9, 0.999), "Betas", "How long AdamW remembers gradients and their squares.", "0.9 and 0.95 to 0.999"
    )
    schedule: Literal["constant", "cosine"] = _field(
        "constant", "Schedule", "constant, or a linear warm-up followed by a cosine down to the lowest learning rate."
    )
    warmup_steps: int = _field(
        0, "Warm-up steps", "Steps over which the rate climbs from near zero.", "0 to 10 % of all steps", ge=0, le=10**9
    )
    min_learning_rate: float = _field(
        0.0, "Lowest learning rate", "Where the cosine ends.", "0 to a tenth of the learning rate", ge=0, le=1
    )
    grad_clip: float | None = _field(
        None,
        "Gradient clipping",
        "Largest gradient norm that is used as it is; longer ones are shortened. Empty: never.",
        "1.0",
        gt=0,
        le=1e6,
    )
    grad_accumulation: int = _field(
        1, "Gradient accumulation", "Batches whose gradients make one optimiser step.", "1 to 16", ge=1, le=65_536
    )

    @model_validator(mode="after")
    def _lowest_is_lowest(self) -> OptimConfig:
        if self.min_learning_rate > self.learning_rate:
            raise ValueError(
                f"min_learning_rate {self.min_learning_rate:g} is above learning_rate {self.learning_rate:g}: lower it."
            )
        return self


class TrainConfig(_Part):
    """How long, how often it is looked at, and on what it runs."""

    num_epochs: int = _field(10, "Epochs", "Times the whole training part is read.", "1 to 30", ge=1, le=1_000_000)
    max_steps: int | None = _field(
        None,
        "Most steps",
        "Stop after this many optimiser steps if the epochs are not over. Empty: no limit.",
        ge=1,
        le=10**9,
    )
    eval_freq: int = _field(
        5, "Evaluate every", "Optimiser steps between two evaluations of both losses.", "5 to 500", ge=1, le=10**9
    )
    eval_iter: int = _field(
        5,
        "Evaluation batches",
        "Batches of each part that an evaluation reads, from its start.",
        "5 to 50",
        ge=1,
        le=10**6,
    )
    prompts: tuple[str, ...] = _field(
        ("Every effort moves you",),
        "Sample prompts",
        "One to five beginnings that the model continues after every epoch.",
    )
    sample_tokens: int = _field(50, "Sample length", "Tokens written for each sample.", "50", ge=1, le=2_000)
    probe_windows: int = _field(
        1,
        "Watched passages",
        "Windows of each part, from its start, whose tokens' losses are kept after every epoch. 0: none.",
        "1",
        ge=0,
        le=8,
    )
    seed: int = _field(
        123, "Seed", "Decides the first weights, the order of the batches and the dropout.", "any", ge=0, le=2**63 - 1
    )
    device: str = _field("auto", "Device", "auto (CUDA, then Apple MPS, then CPU), cpu, cuda, cuda:N or mps.")
    precision: Literal["auto", "fp32", "bf16"] = _field(
        "auto",
        "Precision",
        "Numbers used in matrix products: fp32, or bf16, which keeps 3 digits instead of 7 and takes a half to a third "
        "of the time where the device has instructions for it. Weights stay fp32. auto: bf16 there, fp32 elsewhere.",
    )
    compile: Literal["auto", "on", "off"] = _field(
        "auto",
        "Compile",
        "Build kernels for this model first: 10 to 40 seconds, a few once it was done; then steps one and a half to "
        "four times as fast. "
        "Needs a C++ compiler. auto: with bf16, where the run is long enough to win.",
    )
    keep_checkpoints: int | None = _field(
        None, "Checkpoints kept", "How many epochs' weights stay on disk, newest first. Empty: all.", ge=0, le=1_000_000
    )
    patience: int | None = _field(
        None,
        "Patience",
        "End early after this many evaluations without a better validation loss. Empty: never.",
        "10",
        ge=1,
        le=1_000_000,
    )

    @field_validator("prompts")
    @classmethod
    def _one_to_five(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not 1 <= len(value) <= 5:
            raise ValueError(f"There are {len(value)} prompts: give one to five.")
        longest = max(map(len, value))
        if longest > 10_000:
            raise ValueError(f"A prompt has {longest:,} characters, more than 10,000: shorten it.")
        if len(set(value)) < len(value):
            raise ValueError("Two prompts are the same: give each once.")
        return value

    @field_validator("device")
    @classmethod
    def _a_kind_of_device(cls, value: str) -> str:
        kind, _, index = value.partition(":")
        if kind not in ("auto", "cpu", "cuda", "mps") or (index and not (kind == "cuda" and index.isdecimal())):
            raise ValueError(f"There is no device {value!r}: use auto, cpu, cuda, cuda:N or mps.")
        return value


class RunConfig(_Part):
    """Everything that decides a run. ``RunConfig()`` is the reference exercise, but on the built-in story."""

    model: ModelConfig = Field(default_factory=ModelConfig)
    data: DataConfig = Field(default_factory=DataConfig)
    optim: OptimConfig = Field(default_factory=OptimConfig)
    train: TrainConfig = Field(default_factory=TrainConfig)

    @model_validator(mode="after")
    def _published_order_is_plain(self) -> RunConfig:
        if self.data.order == "own":
            return self
        wanted = [
            (self.data.num_workers > 0, f"num_workers {self.data.num_workers}: set it to 0"),
            (self.train.precision == "bf16", "precision bf16: use fp32"),
            (self.train.compile == "on", "compile on: switch it off"),
        ]
        faults = [said for wrong, said in wanted if wrong]
        if faults:
            raise ValueError(
                f"order published follows the exercise's own code and does not go with {'; nor with '.join(faults)}, "
                "or choose order own."
            )
        return self

    @property
    def stride(self) -> int:
        """Tokens between two window starts."""
        return self.data.stride or self.model.context_length

    def to_json(self) -> str:
        return self.model_dump_json(indent=2) + "\n"

    def with_fields(self, **sections: dict[str, Any]) -> RunConfig:
        """A copy with some fields of some sections replaced, checked as a whole."""
        raw = self.model_dump()
        for section, values in sections.items():
            raw[section] = {**raw[section], **values}
        return RunConfig.model_validate(raw)


class SamplingConfig(_Part):
    """How the next token is chosen. The default is greedy: always the likeliest."""

    max_new_tokens: int = _field(50, "New tokens", "How many tokens are written at most.", "50", ge=0, le=100_000)
    temperature: float = _field(
        0.0,
        "Temperature",
        "0: always the likeliest token. 1: as the model says. Above: more daring.",
        "0.7 to 1.2",
        ge=0,
        le=100,
    )
    top_k: int | None = _field(
        None, "Top k", "Choose among the k likeliest tokens only. Empty: all.", "20 to 100", ge=1
    )
    top_p: float | None = _field(
        None,
        "Top p",
        "Choose among the fewest likeliest tokens whose probabilities reach p. Empty: all.",
        "0.8 to 0.95",
        ge=0,
        le=1,
    )
    min_p: float | None = _field(
        None,
        "Min p",
        "Choose among the tokens at least p times as likely as the likeliest. Empty: all.",
        "0.02 to 0.1",
        ge=0,
        le=1,
    )
    repetition_penalty: float = _field(
        1.0,
        "Repetition penalty",
        "Above 1 makes tokens that already stand in the text less likely (Keskar et al., 2019).",
        "1.0 to 1.3",
        gt=0,
        le=100,
    )
    seed: int | None = _field(
        None, "Seed", "The same seed draws the same tokens. Empty: new ones each time.", ge=0, le=2**63 - 1
    )
    stop_at_end: bool = _field(True, "Stop at <|endoftext|>", "End when the model writes the end-of-text token.")


def _larger(emb_dim: int, n_layers: int, n_heads: int) -> RunConfig:
    return RunConfig(model=ModelConfig(emb_dim=emb_dim, n_layers=n_layers, n_heads=n_heads))


PRESETS: dict[str, RunConfig] = {
    "tiny": RunConfig(
        model=ModelConfig(context_length=64, emb_dim=96, n_heads=4, n_layers=3),
        data=DataConfig(batch_size=4),
        optim=OptimConfig(learning_rate=4e-3),
        train=TrainConfig(num_epochs=10),
    ),
    "small": RunConfig(
        model=ModelConfig(context_length=128, emb_dim=256, n_heads=8, n_layers=6),
        data=DataConfig(batch_size=4),
        optim=OptimConfig(learning_rate=1e-3),
        train=TrainConfig(num_epochs=15),
    ),
    "gpt2-124m": RunConfig(),
    "gpt2-355m": _larger(1024, 24, 16),
    "gpt2-774m": _larger(1280, 36, 20),
    "gpt2-1558m": _larger(1600, 48, 25),
}

PRESET_NOTES: dict[str, str] = {
    "tiny": "A minute or two on two cores: from commas to phrases.",
    "small": "A few minutes: whole borrowed sentences.",
    "gpt2-124m": "The published exercise, exactly: GPT-2 124M, ten epochs.",
    "gpt2-355m": "GPT-2 medium, for a large GPU.",
    "gpt2-774m": "GPT-2 large, for a large GPU.",
    "gpt2-1558m": "GPT-2 XL, for a very large GPU.",
}


def preset(name: str) -> RunConfig:
    """The preset of that name, or a ValueError that lists them."""
    if name not in PRESETS:
        raise ValueError(f"There is no preset {name!r}: use one of {', '.join(PRESETS)}.")
    return PRESETS[name]
