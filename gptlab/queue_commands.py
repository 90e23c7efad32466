"""``python -m gptlab queue``: list, add, remove, move, clear, pause, unpause, run."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from gptlab.config import PRESETS, RunConfig, preset
from gptlab.grid import expand, read_axes
from gptlab.queue import Entry, Queue
from gptlab.runner import run_in_this_process, tell
from gptlab.runs import RunStore


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The command ``queue`` with its own commands."""
    text = "Configurations that are trained one after another by a process of their own."
    queue = commands.add_parser("queue", help=text, description=text)
    queue.add_argument("--json", action="store_true", help="list: print the entries as JSON")
    queue.add_argument("--runs", metavar="DIR", help="folder of the runs (default: runs/ of the data folder)")
    actions = queue.add_subparsers(dest="action", metavar="ACTION")
    actions.add_parser("list", help="what waits, what trains, what is over (also without an action)")

    add = actions.add_parser("add", help="add a configuration, or every combination of some values")
    add.add_argument("--preset", default="tiny", help=f"one of {', '.join(PRESETS)}")
    add.add_argument("--config", metavar="FILE", help="a config.json, instead of a preset")
    add.add_argument("--corpus", action="append", metavar="NAME|PATH", help="builtin, the-verdict or a file")
    add.add_argument("--name", default="", help="what the runs are called")
    add.add_argument("--tag", action="append", default=[], help="repeatable")
    add.add_argument(
        "--set", action="append", default=[], dest="assignments", metavar="SECTION.FIELD=VALUE|[VALUES]",
        help="repeatable; a list of values makes a grid, as in optim.learning_rate=[1e-3,4e-3]",
    )  # fmt: skip

    remove = actions.add_parser("remove", help="take entries out")
    remove.add_argument("entry", nargs="+", metavar="ENTRY", help="its id, or the beginning of it")
    move = actions.add_parser("move", help="move a waiting entry")
    move.add_argument("entry", metavar="ENTRY", help="its id, or the beginning of it")
    move.add_argument("to", metavar="up|down|first|last", choices=("up", "down", "first", "last"))
    clear = actions.add_parser("clear", help="take out everything that waits or is over")
    clear.add_argument("--over", action="store_true", help="only what is over")
    actions.add_parser("pause", help="begin no further entry; the run under way goes on")
    actions.add_parser("unpause", help="begin again")
    actions.add_parser("start", help="start the runners in the background, where entries wait")
    run = actions.add_parser("run", help="be the runner, in this process, until nothing waits")
    run.add_argument("--device", help="whose queue (default: that of the first entry)")


def run_command(arguments: argparse.Namespace) -> int:
    """Do what was asked. ValueError: a sentence for people."""
    queue = Queue()
    action = arguments.action or "list"
    actions: dict[str, Callable[[], None]] = {
        "list": lambda: _list(queue, as_json=arguments.json),
        "add": lambda: _add(queue, arguments),
        "remove": lambda: queue.remove([_entry(queue, wanted).id for wanted in arguments.entry]),
        "move": lambda: _move(queue, arguments.entry, arguments.to),
        "clear": lambda: queue.clear(waiting=not arguments.over),
        "pause": queue.pause,
        "unpause": lambda: queue.pause(False),
        "start": lambda: None,
        "run": lambda: _run(queue, arguments),
    }
    actions[action]()
    if action in ("list", "add", "unpause", "start"):
        for device in queue.start_runners(Path(arguments.runs) if arguments.runs else None):
            print(f"A runner for {device} was started.", file=sys.stderr)
    return 0


def _list(queue: Queue, *, as_json: bool) -> None:
    state = queue.read()
    if as_json:
        rows = [asdict(entry) for entry in state.entries]
        print(json.dumps({"paused": state.paused, "entries": rows}, ensure_ascii=False, indent=2))
        return
    if state.paused:
        print("The queue is paused: python -m gptlab queue unpause")
    if not state.entries:
        print("The queue is empty: add to it with python -m gptlab queue add --preset tiny")
    for entry in state.entries:
        standing = entry.outcome or ("training" if entry.under_way else "waiting")
        words = " ".join(entry.message.split())
        print(f"{entry.id}  {standing:<11}  {entry.device:<7} {entry.run:<21} {entry.name}  {words}".rstrip())


def _add(queue: Queue, arguments: argparse.Namespace) -> None:
    if arguments.config:
        from gptlab.parsing import parse_config

        config: RunConfig = parse_config(Path(arguments.config).read_bytes())
    else:
        config = preset(arguments.preset)
    if arguments.corpus:
        config = config.with_fields(data={"corpus": tuple(arguments.corpus)})
    config, axes = read_axes(config, arguments.assignments)
    for entry in queue.add(expand(config, axes), name=arguments.name, tags=arguments.tag):
        print(f"{entry.id}  {entry.device:<7} {entry.name}".rstrip())


def _move(queue: Queue, wanted: str, to: str) -> None:
    count = len(queue.read().waiting)
    queue.move([_entry(queue, wanted).id], {"up": -1, "down": 1, "first": -count, "last": count}[to])


def _entry(queue: Queue, wanted: str) -> Entry:
    found = [entry for entry in queue.read().entries if entry.id.startswith(wanted)]
    if len(found) != 1:
        raise ValueError(f"{wanted!r} names {len(found)} entries of the queue: python -m gptlab queue lists them.")
    return found[0]


def _run(queue: Queue, arguments: argparse.Namespace) -> None:
    todo = [entry.device for entry in queue.read().entries if not entry.is_over]
    device = arguments.device or next(iter(todo), None)
    if device is None:
        print("Nothing waits in the queue.")
        return
    run_in_this_process(queue, RunStore(arguments.runs), device, tell)
