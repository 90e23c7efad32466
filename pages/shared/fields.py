"""The fields of a configuration as a form sees them: what kind of input, which help, how typed text becomes a value.

Everything comes from the pydantic fields themselves; nothing here draws.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from gptlab.config import RunConfig
from gptlab.parsing import explain_validation_error

Kind = Literal["switch", "choice", "whole", "number", "pair", "digits"]
Place = tuple[str, str]

#: These have an input of their own: the corpus its page, prompts and device their part of the form.
APART: frozenset[Place] = frozenset({("data", "corpus"), ("train", "prompts"), ("train", "device")})

_BOUNDS = (("ge", "at least {}"), ("gt", "above {}"), ("le", "at most {}"), ("lt", "below {}"))


@dataclass(frozen=True)
class FormField:
    """One field: where it stands, what it is called, what a person may type."""

    section: str
    name: str
    title: str
    help: str
    kind: Kind
    optional: bool
    options: tuple[str, ...] = ()

    @property
    def place(self) -> Place:
        return (self.section, self.name)

    @property
    def key(self) -> str:
        """The key of the field's widget."""
        return f"{self.section}.{self.name}"

    def of(self, config: RunConfig) -> Any:
        return getattr(getattr(config, self.section), self.name)

    def shown(self, value: Any) -> Any:
        """The value as the field's input holds it."""
        if self.kind == "number":
            return "" if value is None else _short(value)
        if self.kind == "digits":
            return str(value)
        if self.kind == "pair":
            return ", ".join(_short(part) for part in value)
        return value

    def said(self, value: Any) -> str:
        """The value in words, as a label or a sentence holds it."""
        if value is None:
            return "empty"
        if isinstance(value, bool):
            return "on" if value else "off"
        return str(self.shown(value))

    def typed(self, raw: Any) -> Any:
        """What was typed as a value. ValueError: it is none of this kind; its bounds are pydantic's matter."""
        if self.kind in ("switch", "choice"):
            return raw
        if raw is None or (isinstance(raw, str) and not raw.strip()):
            if self.optional:
                return None
            raise ValueError(f"{self.title} is empty: give a number.")
        if self.kind == "whole":
            return int(raw)
        if self.kind == "digits":
            try:
                return int(raw.replace(",", "").replace("_", ""))
            except ValueError:
                raise ValueError(f"{self.title} is {_quoted(raw)}: give a whole number, such as 123.") from None
        if self.kind == "pair":
            parts = [part for part in raw.replace(";", ",").replace(",", " ").split() if part]
            if len(parts) != 2:
                raise ValueError(f"{self.title} is {_quoted(raw)}: give two numbers, such as 0.9, 0.999.")
            return tuple(self._number(part) for part in parts)
        return self._number(raw)

    def _number(self, written: str) -> float:
        try:
            value = float(written.strip())
        except ValueError:
            raise ValueError(f"{self.title} is {_quoted(written)}: give a number, such as 0.0004 or 4e-4.") from None
        if not math.isfinite(value):
            raise ValueError(f"{self.title} is {_quoted(written)}: it must be a finite number.")
        return value


@cache
def form_fields() -> dict[Place, FormField]:
    """Every field of a configuration that is not ``APART``, in the configuration's own order."""
    found = {}
    for section, part in RunConfig.model_fields.items():
        model = part.annotation
        for name, info in model.model_fields.items():  # type: ignore[union-attr]
            if (section, name) not in APART:
                found[(section, name)] = _form_field(section, name, info)
    return found


def _form_field(section: str, name: str, info: FieldInfo) -> FormField:
    inner = [part for part in get_args(info.annotation) if part is not NoneType]
    optional = NoneType in get_args(info.annotation)
    annotation = inner[0] if optional else info.annotation
    options: tuple[str, ...] = ()
    kind: Kind
    if annotation is bool:
        kind = "switch"
    elif get_origin(annotation) is Literal:
        kind, options = "choice", get_args(annotation)
    elif get_origin(annotation) is tuple:
        kind = "pair"
    elif annotation is float:
        kind = "number"
    else:
        kind = "digits" if name == "seed" else "whole"
    return FormField(section, name, info.title or name, field_help(section, name), kind, optional, options)


def field_help(section: str, name: str) -> str:
    """Meaning, typical values, limits and the name that files and the command line use."""
    info = getattr(RunConfig.model_fields[section].annotation, "model_fields")[name]  # noqa: B009
    extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
    limits = []
    for attribute, wording in _BOUNDS:
        value = next((getattr(part, attribute) for part in info.metadata if hasattr(part, attribute)), None)
        if value is not None:
            limits.append(wording.format(_short(value)))
    lines = [str(info.description).replace("<|", "\\<|")]
    if typical := extra.get("typical"):
        lines.append(f"Typical: {typical}.")
    if limits:
        lines.append(f"Limits: {', '.join(limits)}.")
    lines.append(f"In files and commands: `{section}.{name}`")
    return "\n\n".join(lines)


def settle(config: RunConfig, typed: dict[Place, Any]) -> tuple[RunConfig, dict[Place, str]]:
    """``config`` with every change of ``typed`` (as inputs hold it) that can be had, and a sentence for each other.

    Fields are tried together first, so that two that are only possible together (width and heads) both come through.
    """
    fields = form_fields()
    refused: dict[Place, str] = {}
    wanted: dict[Place, Any] = {}
    for place, raw in typed.items():
        try:
            value = fields[place].typed(raw)
        except ValueError as error:
            refused[place] = str(error)
            continue
        if value != fields[place].of(config):
            wanted[place] = value
    while wanted:
        try:
            return _with(config, wanted), refused
        except ValidationError as error:
            places = {(str(fault["loc"][0]), str(fault["loc"][1])) for fault in error.errors() if len(fault["loc"]) > 1}
            if not places & wanted.keys():
                break  # no single field is at fault: some do not go together
            for place in places & wanted.keys():
                refused[place] = _why(config, {place: wanted.pop(place)})
    for place in list(wanted):
        try:
            config = _with(config, {place: wanted[place]})
            del wanted[place]
        except ValidationError:
            continue
    for place in wanted:
        refused[place] = _why(config, wanted)
    return config, refused


def _with(config: RunConfig, values: dict[Place, Any]) -> RunConfig:
    sections: dict[str, dict[str, Any]] = {}
    for (section, name), value in values.items():
        sections.setdefault(section, {})[name] = value
    return config.with_fields(**sections)


def _why(config: RunConfig, values: dict[Place, Any]) -> str:
    try:
        _with(config, values)
    except ValidationError as error:
        said = explain_validation_error(error)
        for section, name in values:
            said = said.replace(f"{section}.{name} is", f"{form_fields()[(section, name)].title} is")
        return said
    return ""


def _short(value: float) -> str:
    """A number as people write it: 4e-4 as 0.0004, 1e9 as 1,000,000,000 stays whole."""
    if isinstance(value, int) or value == int(value):
        return str(int(value))
    plain = f"{value:.10f}".rstrip("0")
    return plain if float(plain) == value else repr(float(value))


def _quoted(raw: str) -> str:
    shown = raw.strip()
    return f"“{shown[:40]}…”" if len(shown) > 40 else f"“{shown}”"


def held_back(config: RunConfig, typed: dict[Place, Any]) -> dict[Place, str]:
    """The inputs whose content is impossible with ``config`` as it is, each with its sentence."""
    found: dict[Place, str] = {}
    for place, raw in typed.items():
        found.update(settle(config, {place: raw})[1])
    return found
