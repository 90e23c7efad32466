"""The commands that ask a trained model something: ``sample`` and ``explain``."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from gptlab.config import SamplingConfig
from gptlab.prompt import FittedPrompt, fit_prompt
from gptlab.runs import CheckpointInfo, RunStore
from gptlab.tokenizer import StreamDecoder, token_ids_to_text, token_pieces

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gptlab.model import GPTModel

MOST_TOP = 1000


def add_sample_arguments(sample: argparse.ArgumentParser) -> None:
    _add_model_arguments(sample)
    sample.add_argument("--prompt", required=True)
    sample.add_argument("--max-new-tokens", type=int, default=50)
    sample.add_argument("--temperature", type=float, default=0.0)
    sample.add_argument("--top-k", type=int)
    sample.add_argument("--top-p", type=float)
    sample.add_argument("--min-p", type=float)
    sample.add_argument("--repetition-penalty", type=float, default=1.0)
    sample.add_argument("--seed", type=int)
    sample.add_argument(
        "--samples", type=int, default=1, metavar="N", help="N answers; with --seed, of seed, seed + 1, ..."
    )
    sample.add_argument("--beams", type=int, metavar="N", help="beam search with N beams; --samples of them are shown")
    sample.add_argument("--length-penalty", type=float, default=1.0, help="of beam search; 0: none (default: 1)")


def add_explain_arguments(explain: argparse.ArgumentParser) -> None:
    _add_model_arguments(explain)
    explain.add_argument("--text", required=True, help="what the model reads")
    explain.add_argument("--top", type=int, default=5, metavar="N", help="predictions shown per position (default: 5)")
    explain.add_argument("--json", action="store_true")


def _add_model_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("run", metavar="RUN", help="a run's id, its beginning, its name, or last")
    command.add_argument("--checkpoint", default="last", help="best, last or step-N (default: last)")
    command.add_argument("--device", default="auto")


def _open(arguments: argparse.Namespace) -> tuple[CheckpointInfo, GPTModel]:
    """The checkpoint asked for and its model. ValueError: it is not there, or damaged; says which others are."""
    run = RunStore(arguments.runs).get(arguments.run)
    checkpoint = run.checkpoint(arguments.checkpoint)
    from gptlab.checkpoint import load_model
    from gptlab.device import pick_device

    device = pick_device(arguments.device)
    try:
        return checkpoint, load_model(checkpoint.path, device)
    except ValueError as error:
        others = [other.name for other in run.checkpoints() if other.name != checkpoint.name]
        instead = f"use one of {', '.join(others)}" if others else "train again"
        raise ValueError(f"The weights {checkpoint.name} cannot be read: {instead}. ({error})") from error


def _fitted(text: str, model: GPTModel) -> FittedPrompt:
    """The text as the model reads it; what was added or left out is said beside the output."""
    prompt = fit_prompt(text, model.config.context_length)
    for note in prompt.notes:
        print(note, file=sys.stderr)
    return prompt


def sample(arguments: argparse.Namespace) -> int:
    """Stream the prompt and its continuation; of several, the first as it is written, then each whole."""
    sampling = SamplingConfig(
        max_new_tokens=arguments.max_new_tokens,
        temperature=arguments.temperature,
        top_k=arguments.top_k,
        top_p=arguments.top_p,
        min_p=arguments.min_p,
        repetition_penalty=arguments.repetition_penalty,
        seed=arguments.seed,
    )
    _, model = _open(arguments)
    prompt = _fitted(arguments.prompt, model)
    if arguments.beams is not None:
        return _show_beams(model, prompt, arguments)
    from gptlab.sampling import generate_samples

    answers: list[list[int]] = [[] for _ in range(arguments.samples)]
    decoder = StreamDecoder()
    steps = generate_samples(model, prompt.text_ids, arguments.samples, sampling)
    print(_heading(1, len(answers)) + arguments.prompt, end="", flush=True)
    for tokens in steps:
        for answer, token in zip(answers, tokens, strict=True):
            answer += [token.id] if token else []
        if tokens[0]:
            print(decoder.feed(tokens[0].id), end="", flush=True)
    print(decoder.flush())
    for number, answer in enumerate(answers[1:], start=2):
        print(_heading(number, len(answers)) + arguments.prompt + token_ids_to_text(answer))
    return 0


def _show_beams(model: GPTModel, prompt: FittedPrompt, arguments: argparse.Namespace) -> int:
    """The best ``--samples`` of ``--beams`` continuations, whole. ValueError: options that make no sense together."""
    sample = argparse.ArgumentParser()
    add_sample_arguments(sample)
    drawing = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "seed")
    unused = [name for name in drawing if getattr(arguments, name) != sample.get_default(name)]
    if unused:
        options = ", ".join("--" + name.replace("_", "-") for name in unused)
        raise ValueError(f"Beam search draws nothing, so it has no use for {options}: leave that or --beams out.")
    if not 1 <= arguments.samples <= arguments.beams:
        raise ValueError(
            f"--samples is {arguments.samples:,}, and {arguments.beams:,} beams give 1 to {arguments.beams:,}: "
            "ask for fewer, or for more beams."
        )
    from gptlab.beams import beam_search

    found = beam_search(model, prompt.text_ids, arguments.beams, arguments.max_new_tokens, arguments.length_penalty)
    for number, beam in enumerate(found[: arguments.samples], start=1):
        heading = f"--- {number}, log probability {beam.logprob:.2f}\n" if arguments.samples > 1 else ""
        print(heading + arguments.prompt + token_ids_to_text(beam.ids))
    return 0


def _heading(number: int, of: int) -> str:
    return f"--- {number}\n" if of > 1 else ""


def explain(arguments: argparse.Namespace) -> int:
    """What the model expected at every position of a text, and how surprised it was by what stands there."""
    if not 1 <= arguments.top <= MOST_TOP:
        raise ValueError(f"--top is {arguments.top:,}: it must be 1 to {MOST_TOP:,}.")
    checkpoint, model = _open(arguments)
    from gptlab.inspection import read_passage

    prompt = _fitted(arguments.text, model)
    reading = read_passage(model, prompt.ids, arguments.top)
    rows: list[dict[str, Any]] = []
    for position, (token, piece) in enumerate(zip(prompt.ids, token_pieces(prompt.ids), strict=True)):
        known = position > 0
        guesses = reading.guesses(position - 1) if known else ()
        rows.append(
            {
                "position": position,
                "id": token,
                "text": piece,
                "surprise": float(reading.surprise[position - 1]) if known else None,
                "rank": int(reading.rank[position - 1]) + 1 if known else None,
                "predictions": _described(guesses),
            }
        )
    following = _described(reading.guesses(-1))
    loss = float(reading.surprise.double().mean()) if len(reading.surprise) else None
    if arguments.json:
        facts = {
            "checkpoint": checkpoint.name,
            "step": checkpoint.step,
            "notes": prompt.notes,
            "loss": loss,
            "tokens": rows,
            "next": following,
        }
        print(json.dumps(facts, ensure_ascii=False, indent=2))
        return 0
    print(f"{checkpoint.name}, after {checkpoint.step:,} steps. Surprise in nats; rank 1 is what it expected most.")
    print(f"{'position':>8} {'surprise':>9} {'rank':>7}  {'token':<18} expected instead")
    for row in rows:
        told = f"{'':>9} {'':>7}" if row["rank"] is None else f"{row['surprise']:>9.3f} {row['rank']:>7,}"
        print(f"{row['position']:>8} {told}  {_quoted(row['text']):<18} {_in_words(row['predictions'])}")
    print(f"{'next':>8} {'':>9} {'':>7}  {'':<18} {_in_words(following)}")
    if loss is not None:
        print(f"Mean surprise over {len(reading.surprise):,} tokens: {loss:.3f} nats.")
    return 0


def _described(guesses: Sequence[tuple[int, float]]) -> list[dict[str, Any]]:
    pieces = token_pieces([guess[0] for guess in guesses])
    return [{"id": id_, "text": text, "probability": p} for (id_, p), text in zip(guesses, pieces, strict=True)]


def _in_words(predictions: list[dict[str, Any]]) -> str:
    return "  ".join(f"{_quoted(row['text'])} {row['probability']:.1%}" for row in predictions)


def _quoted(piece: str) -> str:
    """A token between quotes, with nothing that a terminal would obey; combining marks get something to stand on."""
    import unicodedata

    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in piece)
    return f"'{'◌' * bool(shown and unicodedata.combining(shown[0]))}{shown}'"
