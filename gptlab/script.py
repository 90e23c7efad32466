"""The Python that does what a run did: a short script with the public names."""

from __future__ import annotations

from gptlab.config import RunConfig
from gptlab.runs import Run

_TEMPLATE = '''"""{title}"""

{imports}

TEXT = {corpus!r}{hint}

config = RunConfig().with_fields(
{fields}
)
{threads}train_ids, val_ids = open_corpus(TEXT).split_ids(config.data.train_ratio)

for event in train(config, (train_ids, val_ids)):
    match event:
        case Evaluated():
            print(f"step {{event.step}}: train {{event.train_loss:.4f}}, validation {{event.val_loss:.4f}}")
        case Sampled():
            print(repr(event.text))
        case Ended():
            print(event.reason, event.message)
'''


def script_of(config: RunConfig, *, title: str = "", threads: int | None = None, forked_from: str = "") -> str:
    """A script that trains ``config`` and prints its losses and samples. Run it where ``gptlab`` can be imported.

    Only fields that differ from ``RunConfig()`` are written down. ``threads``: torch's thread count, where the losses
    are to be those of an earlier run to the last digit. ``forked_from``: the run whose weights it began with.
    """
    lines = [f"Train {_on_one_line(title) or 'a run'}: the same configuration, text and seed."]
    if forked_from:
        lines.append(
            f"That run began with the weights of {_on_one_line(forked_from)}; this script begins with new ones."
        )
    imports = [
        "from gptlab import RunConfig, open_corpus, train",
        "from gptlab.events import Ended, Evaluated, Sampled",
    ]
    setting = ""
    if threads:
        imports.insert(0, "import torch\n")
        setting = f"torch.set_num_threads({threads})  # another number changes the last digits of the losses\n"
    corpus = config.data.corpus
    by_hash = isinstance(corpus, str) and corpus.startswith("sha256:")
    return _TEMPLATE.format(
        title="\n".join(lines),
        imports="\n".join(imports),
        corpus=corpus,
        hint="  # as kept in the data folder; the path of the same file does as well" if by_hash else "",
        fields=_fields(config),
        threads=setting,
    )


def script_of_run(run: Run) -> str:
    """The script of a run, with the precision and thread count that it had. ValueError: its configuration is broken."""
    started, about, config = run.log().started, run.about, run.config
    if started and config.train.precision == "auto":
        config = config.with_fields(train={"precision": started.precision})
    return script_of(
        config, title=about.name or run.id, threads=started.threads if started else None,
        forked_from=about.parent or "",
    )  # fmt: skip


def _fields(config: RunConfig) -> str:
    """Keyword arguments of ``with_fields``: what is not as in ``RunConfig()``; the corpus is ``TEXT``."""
    default = RunConfig().model_dump()
    sections = []
    for section, values in config.model_dump().items():
        changed = {name: value for name, value in values.items() if value != default[section][name]}
        changed.pop("corpus", None)
        parts = [f'"{name}": {value!r}' for name, value in changed.items()]
        if section == "data":
            parts.insert(0, '"corpus": TEXT')
        if parts:
            sections.append(f"    {section}={{{', '.join(parts)}}},")
    return "\n".join(sections)


def _on_one_line(text: str) -> str:
    """A name as it may stand in a docstring: on one line, and unable to end it."""
    shown = " ".join(text.split()).replace('"', "'").replace("\\", "/")
    return "".join(character for character in shown if character.isprintable())
