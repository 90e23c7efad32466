"""The steps of a log as columns of numbers: a long run has many, and is read and drawn again every second.

A ``Stepped`` takes 600 bytes, its numbers 72. So the numbers are what is kept, and a row is made when it is asked for.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
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
    """A growing list of ``Stepped``; ``column(name)`` is one of its numbers in a stretch of rows.

    Threads may read while one appends. ``SECONDS`` is a column too.
    """

    def __init__(self) -> None:
        self._columns = {name: array("d") for name in (*_NAMES, SECONDS)}
        self._end: int | None = None  # where rows that do not grow end

    def now(self) -> StepRows:
        """The rows of this moment, which stay as many: the same numbers, not copied."""
        rows = StepRows()
        rows._columns, rows._end = self._columns, len(self)
        return rows

    def append(self, row: Stepped, seconds: float) -> None:
        if self._end is not None:
            raise TypeError("Rows of one moment do not grow.")
        for name in _NAMES:
            self._columns[name].append(getattr(row, name))
        self._columns[SECONDS].append(seconds)  # the last one: it is what the others are counted by

    def __len__(self) -> int:
        return len(self._columns[SECONDS]) if self._end is None else self._end

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
        place = self.place_of(step)
        return None if place is None else self._row(place)

    def place_of(self, step: int) -> int | None:
        """Where the row of that step stands."""
        before = self.count_until(step)
        return before - 1 if before and self._columns["step"][before - 1] == step else None

    def count_until(self, step: int) -> int:
        """How many rows are of that step or of a lower one."""
        return bisect_right(self._columns["step"], step, hi=len(self))

    def column(self, name: str, first: int = 0, end: int | None = None) -> Floats:
        """[end - first], a copy of the numbers of these rows; without ``end`` as far as they go."""
        import numpy as np

        return np.array(self._columns[name][first : len(self) if end is None else end])

    def pick(self, name: str, places: Sequence[int]) -> Floats:
        """[places], the numbers of these rows."""
        import numpy as np

        numbers = self._columns[name]
        return np.array([numbers[place] for place in places], dtype=float)

    def before(self, step: int) -> tuple[StepRows, list[int]]:
        """The rows of lower steps; and for n from 0 to all, how many of the first n rows those are."""
        kept, counts = StepRows(), [0]
        for place, made in enumerate(self._columns["step"][: len(self)]):
            if made < step:
                for name, values in self._columns.items():
                    kept._columns[name].append(values[place])
            counts.append(len(kept))
        return kept, counts
