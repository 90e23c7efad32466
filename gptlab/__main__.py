"""The command line, ``python -m gptlab COMMAND``: train, resume, sample, explain, runs, queue. No logic of its own."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gptlab import queue_commands
from gptlab.asking import add_explain_arguments, add_sample_arguments, explain, sample
from gptlab.config import PRESET_NOTES, PRESETS, RunConfig, preset
from gptlab.events import Ended, Evaluated, Event, Phase, Resumed, Sampled, Saved, Started, Stepped, Warned, encode
from gptlab.launcher import check_resumable, needs_settings, take_lock, worker_environment
from gptlab.parsing import explain_validation_error, set_fields
from gptlab.runs import Run, RunStore


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m gptlab", description="Train a GPT from scratch and see what every epoch learnt."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str, *, runs: bool = False, config: bool = False) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        if runs:
            sub.add_argument("--runs", metavar="DIR", help="folder of the runs (default: runs/ of the data folder)")
        if config:
            sub.add_argument("--preset", default=None, help=f"one of {', '.join(PRESETS)}")
            sub.add_argument(
                "--set",
                action="append",
                default=[],
                metavar="SECTION.FIELD=VALUE",
                help="repeatable",
                dest="assignments",
            )
        return sub

    train = command("train", "Train a new run in this process.", runs=True, config=True)
    train.add_argument(
        "--corpus", action="append", metavar="NAME|PATH", help="builtin, the-verdict or a file; repeatable"
    )
    train.add_argument(
        "--from",
        dest="parent",
        metavar="RUN[:CHECKPOINT]",
        help="begin with a checkpoint's weights (default: best, else the newest) and a fresh optimiser; the settings "
        "are that run's unless others are given",
    )
    train.add_argument("--device", help="auto, cpu, cuda, cuda:N or mps")
    train.add_argument("--seed", type=int)
    train.add_argument("--name", default="", help="what the run is called")
    train.add_argument("--json", action="store_true", help="print one event a line as JSON")

    resume = command("resume", "Go on with a stopped, failed or interrupted run in this process.", runs=True)
    resume.add_argument("run", metavar="RUN", help="a run's id, its beginning, its name, or last")
    resume.add_argument("--json", action="store_true", help="print one event a line as JSON")

    add_sample_arguments(command("sample", "Let a trained model continue a prompt.", runs=True))
    add_explain_arguments(command("explain", "Show what a trained model expects at each token of a text.", runs=True))

    runs = command("runs", "List the runs, newest first.", runs=True)
    runs.add_argument("--json", action="store_true")

    queue_commands.add_parser(commands)

    corpus = command("corpus", "Figures of a text: statistics, split, batches.", config=True)
    corpus.add_argument("corpus", metavar="NAME|PATH", nargs="+", help="builtin, the-verdict or text files")
    corpus.add_argument("--json", action="store_true")

    presets = command("presets", "List the presets.")
    presets.add_argument("--json", action="store_true")
    return parser


def _configured(arguments: argparse.Namespace, default: str | RunConfig, extra: dict[str, dict[str, Any]]) -> RunConfig:
    """The preset (else ``default``) with the command's own options, then its ``--set`` assignments, applied."""
    named = arguments.preset or default
    base = preset(named) if isinstance(named, str) else named
    written = [
        f"{section}.{name}={json.dumps(value)}"
        for section, fields in extra.items()
        for name, value in fields.items()
        if value is not None
    ]
    return set_fields(base, [*written, *arguments.assignments])


def _train(arguments: argparse.Namespace) -> int:
    store = RunStore(arguments.runs)
    extra = {"data": {"corpus": arguments.corpus}, "train": {"device": arguments.device, "seed": arguments.seed}}
    if arguments.parent is None:
        config = _configured(arguments, "tiny", extra)
        _with_settings()
        from gptlab.preflight import prepare

        run = prepare(store, config, name=arguments.name)
    else:
        from gptlab.fork import find_checkpoint, fork, parent_of

        parent, checkpoint = find_checkpoint(store, arguments.parent)
        config = _configured(arguments, parent.config, extra)
        _with_settings()
        run = fork(store, parent, checkpoint, config, name=arguments.name)
        if (told := parent_of(run)) and not arguments.json:
            print(f"Begins with the weights of {told.name}, {told.told()}, and a fresh optimiser.")
    return _work(run, take_lock(run), arguments)


def _resume(arguments: argparse.Namespace) -> int:
    run = RunStore(arguments.runs).get(arguments.run)
    _with_settings()
    lock = take_lock(run)
    check_resumable(run)
    run.take_request()
    return _work(run, lock, arguments)


def _with_settings() -> None:
    """Start this command again, once, with the settings that are read only at a process's start."""
    if needs_settings(os.environ):
        sys.stdout.flush()
        os.execve(sys.executable, [sys.executable, "-m", "gptlab", *sys.argv[1:]], worker_environment())


def _work(run: Run, lock: int, arguments: argparse.Namespace) -> int:
    """Train in this process; Ctrl-C asks the loop to save and stop, a second one breaks off."""
    import signal

    from gptlab.worker import work

    def on_interrupt(_signal: int, _frame: object) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        print("\nStopping after this step; press Ctrl-C again to break off.", file=sys.stderr, flush=True)
        run.request("stop")

    signal.signal(signal.SIGINT, on_interrupt)
    ended: Ended | None = None
    events = work(run, lock)
    for event in _printed_as_json(events) if arguments.json else _shown(events, run):
        if isinstance(event, Ended):
            ended = event
    if ended is None or ended.reason == "failed":
        return 1
    if ended.reason == "stopped":
        where = f" --runs {arguments.runs}" if arguments.runs else ""
        print(f"Go on with: python -m gptlab resume {run.id}{where}", file=sys.stderr)
    return 0


def _printed_as_json(events: Iterator[Event]) -> Iterator[Event]:
    for event in events:
        print(encode(event), flush=True)
        yield event


def _shown(events: Iterator[Event], run: Run) -> Iterator[Event]:
    """A progress bar with both losses, and each epoch's sample above it."""
    from tqdm import tqdm

    bar = tqdm(total=None, unit="step", dynamic_ncols=True, file=sys.stderr)
    bar.write(f"Run {run.id} in {run.path}", file=sys.stdout)
    losses: dict[str, str] = {}
    for event in events:
        match event:
            case Started(total_steps=total, device=device, n_parameters=count):
                bar.write(f"{count:,} parameters on {device}, {total:,} steps", file=sys.stdout)
                bar.reset(total)
            case Resumed(step=step):
                bar.reset(_total_steps(run))
                bar.update(step)
                bar.write(f"Going on with step {step}", file=sys.stdout)
            case Stepped(loss=loss):
                losses["loss"] = f"{loss:.3f}"
                bar.update(1)
            case Evaluated(train_loss=train_loss, val_loss=val_loss):
                losses.update(train=f"{train_loss:.3f}", val=f"{val_loss:.3f}")
            case Sampled(epoch=epoch, text=text):
                bar.write(f"epoch {epoch}: {_on_one_line(text)}", file=sys.stdout)
            case Saved(checkpoint=checkpoint) if checkpoint != "best":
                bar.write(f"saved {checkpoint}", file=sys.stdout)
            case Warned(message=message):
                bar.write(f"Warning: {message}", file=sys.stdout)
            case Phase(phase=phase):
                bar.set_description(phase)
            case Ended(reason=reason, message=message):
                bar.set_description(reason)
                bar.close()
                print(f"{reason}: {message}" if message else reason)
        bar.set_postfix(losses, refresh=isinstance(event, Stepped | Evaluated))
        yield event


def _on_one_line(text: str) -> str:
    """What a model wrote, for a terminal: newlines as spaces, and nothing that a terminal would obey."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in " ".join(text.splitlines()))


def _total_steps(run: Run) -> int | None:
    started = run.log().started
    return started.total_steps if started else None


def _runs(arguments: argparse.Namespace) -> int:
    rows = [_run_row(run) for run in RunStore(arguments.runs).list()]
    if arguments.json:
        print(json.dumps(rows, ensure_ascii=False, indent=2))
    elif not rows:
        print("No run yet: start one with python -m gptlab train")
    for row in rows if not arguments.json else ():
        best = "" if row["best_val_loss"] is None else f"best validation loss {row['best_val_loss']:.3f}"
        print(f"{row['run']}  {row['status']:<11}  {row['step']:>7} steps  {best:<28}  {row['name']}")
    return 0


def _run_row(run: Run) -> dict[str, Any]:
    status, log = run.status(), run.log()
    return {
        "run": run.id,
        "name": run.about.name,
        "status": status,
        "created": run.created,
        "step": log.steps_completed,
        "best_val_loss": log.best.val_loss if log.best else None,
    }


def _corpus(arguments: argparse.Namespace) -> int:
    config = _configured(arguments, "gpt2-124m", {"data": {"corpus": arguments.corpus}})
    from gptlab.preflight import describe

    facts = describe(config)
    if arguments.json:
        print(json.dumps(facts, ensure_ascii=False, indent=2))
        return 0
    for name, value in facts.items():
        shown = f"{value:,}" if isinstance(value, int) else value
        if name == "most_frequent_tokens":
            shown = ", ".join(f"{row['text']!r} x {row['count']:,}" for row in value[:10])
        elif isinstance(value, list):
            shown = "; ".join(map(str, value)) or "none"
        print(f"{name.replace('_', ' '):<22} {shown}")
    return 0


def _presets(arguments: argparse.Namespace) -> int:
    if arguments.json:
        print(json.dumps({name: config.model_dump() for name, config in PRESETS.items()}, indent=2))
        return 0
    for name, config in PRESETS.items():
        shape = f"{config.model.n_layers} layers, width {config.model.emb_dim}, context {config.model.context_length}"
        print(f"{name:<11} {shape:<38} {PRESET_NOTES[name]}")
    return 0


COMMANDS = {
    "train": _train,
    "resume": _resume,
    "sample": sample,
    "explain": explain,
    "runs": _runs,
    "queue": queue_commands.run_command,
    "corpus": _corpus,
    "presets": _presets,
}


def main() -> int:
    """Run one command. The exit code is 0, 1 where the run failed, 2 where the request was at fault."""
    from pydantic import ValidationError

    arguments = _parser().parse_args()
    if getattr(arguments, "runs", None):
        arguments.runs = str(Path(arguments.runs).absolute())
    try:
        return COMMANDS[arguments.command](arguments)
    except ValidationError as error:
        print(explain_validation_error(error), file=sys.stderr)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
