"""The steps of a log as columns of numbers: a long run has many, and is read and drawn again every second.

A ``Stepped`` takes 600 bytes, its numbers 72. So the numbers are what is kept, and a row is made when it is asked for.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, overload

from gptlab.events import Stepped

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

_NAMES = tuple(field.name for field in fields(Stepped))
_WHOLE = {field.name for field in fields(Stepped) if field.type == "int"}
SECONDS = "seconds"  # of work until the step was made


class StepRows(Sequence[Stepped]):
    """A growing list of ``Stepped``; ``column(name)`` is one of its numbers in all rows.

    Threads may read while one appends. ``SECONDS`` is a column too.
    """

    def __init__(self) -> None:
        self._columns = {name: array("d") for name in (*_NAMES, SECONDS)}

    def append(self, row: Stepped, seconds: float) -> None:
        for name in _NAMES:
            self._columns[name].append(getattr(row, name))
        self._columns[SECONDS].append(seconds)  # the last one: it is what the others are counted by

    def __len__(self) -> int:
        return len(self._columns[SECONDS])

    @overload
    def __getitem__(self, place: int) -> Stepped: ...
    @overload
    def __getitem__(self, place: slice) -> list[Stepped]: ...
    def __getitem__(self, place: int | slice) -> Stepped | list[Stepped]:
        if isinstance(place, slice):
            return [self._row(n) for n in range(*place.indices(len(self)))]
        return self._row(range(len(self))[place])

    def _row(self, place: int) -> Stepped:
        numbers: dict[str, Any] = {name: self._columns[name][place] for name in _NAMES}
        return Stepped(**{name: int(value) if name in _WHOLE else value for name, value in numbers.items()})

    def __iter__(self) -> Iterator[Stepped]:
        return (self._row(place) for place in range(len(self)))

    def find(self, step: int) -> Stepped | None:
        """The row of that step, of rows whose steps rise."""
        place = bisect_left(self._columns["step"], step, hi=len(self))
        return self._row(place) if place < len(self) and self._columns["step"][place] == step else None

    def column(self, name: str) -> Floats:
        """[n], a copy, not to be written to: what was handed out stays as it is. A later one may be longer."""
        import numpy as np

        whole = np.frombuffer(self._columns[name].tobytes())  # an array that is looked at itself cannot grow
        return whole[: len(self)]

    def before(self, step: int) -> tuple[StepRows, list[int]]:
        """The rows of lower steps; and for n from 0 to all, how many of the first n rows those are."""
        kept, counts = StepRows(), [0]
        for place, made in enumerate(self._columns["step"]):
            if made < step:
                for name, values in self._columns.items():
                    kept._columns[name].append(values[place])
            counts.append(len(kept))
        return kept, counts
