"""Several configurations from one: every combination of the values that some fields are to have."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from gptlab.config import RunConfig
from gptlab.parsing import explain_validation_error, set_fields
from gptlab.runs import LONGEST_NAME

MOST = 64  # configurations of one grid

Axes = Mapping[str, Sequence[Any]]  # "section.field" -> the values that it is to have


@dataclass(frozen=True)
class Point:
    """One configuration of a grid, and what tells it from the others ("learning_rate 0.001, seed 2")."""

    config: RunConfig
    label: str

    def named(self, name: str) -> str:
        """The name of its run, where the whole grid is called ``name``."""
        both = " · ".join(part for part in (name, self.label) if part)
        return both if len(both) <= LONGEST_NAME else both[: LONGEST_NAME - 1] + "…"


def expand(config: RunConfig, axes: Axes) -> list[Point]:
    """``config`` with every combination of the values, the last field changing fastest.

    ValueError, a sentence for each fault: a field that does not exist, more than ``MOST`` combinations, values that
    are impossible alone or together. A value that is given twice counts once.
    """
    lists = {place: _distinct(values) for place, values in axes.items()}
    if empty := [place for place, values in lists.items() if not values]:
        raise ValueError(f"{', '.join(empty)} has no value: give at least one.")
    count = 1
    for values in lists.values():
        count *= len(values)
    if count > MOST:
        raise ValueError(f"These are {count:,} configurations, more than {MOST}: leave out some values.")
    varied = [place for place, values in lists.items() if len(values) > 1]
    points, faults = [], []
    for combination in itertools.product(*lists.values()):
        chosen = dict(zip(lists, combination, strict=True))
        label = ", ".join(f"{place.partition('.')[2]} {_said(chosen[place])}" for place in varied)
        try:
            points.append(Point(_with(config, chosen), label))
        except ValueError as error:
            said = f"{error}"
            faults.append(f"{label}: {said}" if label else said)
    if faults:
        raise ValueError("\n".join(dict.fromkeys(faults)))
    return points


def read_axes(config: RunConfig, assignments: Sequence[str]) -> tuple[RunConfig, dict[str, list[Any]]]:
    """``section.field=value`` sets a field, ``section.field=[a, b]`` makes an axis of the grid.

    A field that is itself a list (prompts, betas, several texts) takes ``[...]`` as its value; lists in a list are its
    axis. ValueError: a sentence for each assignment that is at fault.
    """
    plain, axes = [], {}
    for assignment in assignments:
        place, equals, written = assignment.partition("=")
        values = _parsed(written) if equals else None
        if isinstance(values, list) and (
            not _is_list(config, place.strip()) or all(isinstance(v, list) for v in values)
        ):
            axes[place.strip()] = values
        else:
            plain.append(assignment)
    return set_fields(config, plain), axes


def _parsed(written: str) -> Any:
    try:
        return json.loads(written)
    except ValueError:
        return None


def _is_list(config: RunConfig, place: str) -> bool:
    section, _, name = place.partition(".")
    part = getattr(config, section, None)
    field = type(part).model_fields.get(name) if part is not None else None
    return field is not None and "tuple" in str(field.annotation)


def _with(config: RunConfig, chosen: Mapping[str, Any]) -> RunConfig:
    sections: dict[str, dict[str, Any]] = {}
    for place, value in chosen.items():
        section, _, name = place.partition(".")
        if section not in RunConfig.model_fields:
            raise ValueError(f"There is no section {section!r}: use one of {', '.join(RunConfig.model_fields)}.")
        sections.setdefault(section, {})[name] = value
    try:
        return config.with_fields(**sections)
    except ValidationError as error:
        raise ValueError(explain_validation_error(error)) from error


def _distinct(values: Sequence[Any]) -> list[Any]:
    return list({json.dumps(value): value for value in values}.values())


def _said(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if value is None:
        return "none"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (list, tuple, bool)) else str(value)
