"""Configurations as people write them: JSON files and ``section.field=value``, with a sentence for every fault."""

from __future__ import annotations

import json
from typing import Any

from pydantic import ValidationError

from gptlab.config import RunConfig


def set_fields(config: RunConfig, assignments: list[str]) -> RunConfig:
    """``config`` with each ``section.field=value`` applied, then checked once, so that their order does not matter.

    The value is JSON where it parses, else a string. ValueError: an assignment without that form, an unknown section
    or field, or a value out of its bounds, all in one text.
    """
    raw = config.model_dump()
    faults = []
    for assignment in assignments:
        path, equals, written = assignment.partition("=")
        section, dot, name = path.strip().partition(".")
        if not equals or not dot:
            faults.append(f"{assignment!r} is not of the form section.field=value, as in train.num_epochs=3.")
        elif section not in raw:
            faults.append(f"There is no section {section!r}: use one of {', '.join(raw)}.")
        elif name not in raw[section]:
            faults.append(f"There is no field {name!r} in {section}: use one of {', '.join(raw[section])}.")
        else:
            try:
                raw[section][name] = json.loads(written)
            except ValueError:
                raw[section][name] = written
    if faults:
        raise ValueError("\n".join(faults))
    return parse_config(raw)


def parse_config(source: str | bytes | dict[str, Any]) -> RunConfig:
    """A configuration from JSON text or plain data; ValueError with a sentence for every fault."""
    try:
        if isinstance(source, dict):
            return RunConfig.model_validate(source)
        return RunConfig.model_validate_json(source)
    except ValidationError as error:
        raise ValueError(explain_validation_error(error)) from error


def explain_validation_error(error: ValidationError) -> str:
    """Every fault of a failed check, one sentence a line, with the field, the value and the limit."""
    return "\n".join(dict.fromkeys(_sentence(dict(fault)) for fault in error.errors()))


def _sentence(fault: dict[str, Any]) -> str:
    where = ".".join(str(part) for part in fault["loc"] if part not in ("str", "tuple[str, ...]", "tuple[str,...]"))
    kind, given, limits = fault["type"], fault["input"], fault.get("ctx", {})
    shown = repr(given) if len(repr(given)) <= 60 else repr(given)[:57] + "..."
    if kind == "value_error":
        return str(limits.get("error", fault["msg"]))
    if kind == "extra_forbidden":
        return f"There is no field {where}: remove it or correct its name."
    if kind == "json_invalid":
        return f"This is not a configuration file: it is not valid JSON ({limits.get('error', 'unreadable')})."
    if kind in ("greater_than", "greater_than_equal", "less_than", "less_than_equal"):
        sign = {
            "greater_than": "above",
            "greater_than_equal": "at least",
            "less_than": "below",
            "less_than_equal": "at most",
        }
        limit = next(iter(limits.values()))
        return f"{where} is {shown}: it must be {sign[kind]} {limit:,}."
    if kind == "literal_error":
        return f"{where} is {shown}: it must be {limits.get('expected')}."
    if kind == "finite_number":
        return f"{where} is {shown}: it must be a finite number."
    return f"{where or 'The configuration'} is {shown}: {fault['msg'][:1].lower()}{fault['msg'][1:]}."
