"""``python -m bench.calibrate``: the reference exercise with several seeds and precisions, beside the published log.

A run takes ten minutes and more, so each leaves its log in a folder of its own and is not made again; the table at the
end says how far each went from the published log. Where there are no bf16 instructions, bf16 is emulated, see
``emulated_bf16``.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from gptlab.corpus import THE_VERDICT, open_corpus
from gptlab.launcher import needs_settings, worker_environment
from gptlab.log import RunLog
from gptlab.verdict import Row, compare, spikes_in

LOG = "events.jsonl"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.calibrate", description=__doc__)
    parser.add_argument("--seeds", nargs="+", type=int, default=[123, 1, 2])
    parser.add_argument("--precisions", nargs="+", choices=("fp32", "bf16"), default=["fp32", "bf16"])
    parser.add_argument("--steps", type=int, help="end each run after so many")
    parser.add_argument("--folder", type=Path, required=True, help="where the runs' logs and last weights go")
    arguments = parser.parse_args()
    if needs_settings(os.environ):
        os.execve(sys.executable, [sys.executable, "-m", "bench.calibrate", *sys.argv[1:]], worker_environment())
    text = open_corpus(THE_VERDICT).text
    for precision in arguments.precisions:
        for seed in arguments.seeds:
            folder = arguments.folder / f"{precision}-{seed}"
            folder.mkdir(parents=True, exist_ok=True)
            if not (folder / LOG).exists():
                _train(text, seed, precision, arguments.steps, folder)
    print(table({path.parent.name: RunLog(path) for path in sorted(arguments.folder.glob(f"*/{LOG}"))}))
    return 0


def _train(text: str, seed: int, precision: str, steps: int | None, folder: Path) -> None:
    """Train one run; ``folder`` then holds its log and its last weights."""
    from safetensors.torch import save_model

    from bench.emulated_bf16 import emulated_bf16
    from gptlab.config import preset
    from gptlab.events import Ended, Evaluated, Warned, encode
    from gptlab.fast.precision import multiplies_bf16
    from gptlab.state import TrainState
    from gptlab.training import train

    settings = {"seed": seed, "precision": precision, "compile": "on", "max_steps": steps, "sample_tokens": 1}
    config = preset("gpt2-124m").with_fields(train={**settings, "probe_windows": 0})
    state = TrainState.build(config, text)
    began = time.perf_counter()
    with ExitStack() as stack:
        if precision == "bf16" and not multiplies_bf16():
            stack.enter_context(emulated_bf16())
        log = stack.enter_context((folder / "unfinished.jsonl").open("w", encoding="utf-8"))
        for event in train(config, state=state):
            log.write(encode(event) + "\n")
            log.flush()
            if isinstance(event, Evaluated | Warned | Ended):
                print(f"{folder.name} {time.perf_counter() - began:6.0f} s  {event}", file=sys.stderr, flush=True)
    save_model(state.model, str(folder / "model.safetensors"))
    (folder / "unfinished.jsonl").rename(folder / LOG)


def table(logs: dict[str, RunLog]) -> str:
    """Markdown: each run's distances from the published log, and where its validation loss was lowest."""
    lines = [
        "| run | val, largest distance | train to step 25 | train after | final train | lowest val, after steps, epoch "
        "| spikes at |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, log in logs.items():
        log.refresh()
        rows = compare(log.evaluations)
        best = min(rows, key=lambda row: row.val)
        early = [row for row in rows if row.published.step <= 25]
        late = [row for row in rows if row.published.step > 25]
        spikes = spikes_in([(row.step, row.loss) for row in log.steps])
        distances = " | ".join(
            _furthest(part, which) for part, which in ((rows, "val_off"), (early, "train_off"), (late, "train_off"))
        )
        lines.append(
            f"| {name} | {distances} | {rows[-1].train:.3f} "
            f"| {best.val:.3f}, {best.published.step + 1}, {best.published.epoch} | {spikes or 'none'} |"
        )
    return "\n".join(lines) + "\n"


def _furthest(rows: Sequence[Row], which: str) -> str:
    if not rows:
        return "-"
    row = max(rows, key=lambda row: abs(getattr(row, which)))
    return f"{getattr(row, which):+.1%} at {row.published.step}"


if __name__ == "__main__":
    sys.exit(main())
