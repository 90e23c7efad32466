"""``python -m bench [--short] [--only NAME ...] [--note TEXT] [--dry]``: measure, print the table, write it down."""

from __future__ import annotations

import argparse
import os
import sys
import time

from gptlab.launcher import needs_settings, worker_environment


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "--short", action="store_true", help="fewer rounds, and neither the whole run nor ten pages: five minutes"
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these tasks alone; --only help lists them")
    parser.add_argument("--note", default="", help="a sentence about this measurement, kept with the table")
    parser.add_argument("--dry", action="store_true", help="print the table, do not write it to docs/measurements.md")
    parser.add_argument(
        "--shared", action="store_true", help="the machine has other work: one thread, processor time instead of time"
    )
    arguments = parser.parse_args()
    if needs_settings(os.environ):  # read when a process starts: so start again, as training does
        os.execve(sys.executable, [sys.executable, "-m", "bench", *sys.argv[1:]], worker_environment())
    from bench.report import table, write
    from bench.tasks import TASKS, UNASKED, left_out, measure

    unknown = set(arguments.only or ()) - set(TASKS)
    if unknown:
        print(f"Tasks: {', '.join(TASKS)}.")
        return 0 if unknown == {"help"} else 2
    kind = ", short" if arguments.short else ""
    if arguments.shared:
        import torch

        from bench import timing

        timing.clock = time.process_time
        torch.set_num_threads(1)
        kind += ", shared machine: processor time of one thread"
    names = arguments.only or UNASKED
    rows, note = measure(names, short=arguments.short), arguments.note
    if missing := left_out(names):
        note += f" Left out: {'; '.join(f'{name}, because {why}' for name, why in missing.items())}."
    text = table(rows, note=note.strip(), kind=kind)
    print(text)
    if not arguments.dry:
        write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
