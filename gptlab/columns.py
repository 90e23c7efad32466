"""Numbers of rows as arrays that grow: what is drawn again each second must not be gathered row by row each time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


class Columns:
    """The attributes ``names`` of the rows appended so far; ``columns[name]`` is an array [n], not to be written to.

    An array that was handed out stays as it is, whatever is appended afterwards.
    """

    def __init__(self, names: Sequence[str], rows: Iterable[object] = ()) -> None:
        self.names = tuple(names)
        self._places = {name: place for place, name in enumerate(self.names)}
        self._kept = np.empty((len(self.names), 64))
        self._n = 0
        for row in rows:
            self.append(row)

    def __len__(self) -> int:
        return self._n

    def append(self, row: object) -> None:
        if self._n == self._kept.shape[1]:
            self._kept = np.concatenate([self._kept, np.empty_like(self._kept)], axis=1)
        self._kept[:, self._n] = [getattr(row, name) for name in self.names]
        self._n += 1

    def __getitem__(self, name: str) -> Floats:
        return self._kept[self._places[name], : self._n]
