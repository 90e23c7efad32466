"""Numbers of rows as arrays that grow: what is drawn again each second must not be gathered row by row each time."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]


class Columns:
    """The attributes ``names`` of the rows appended so far; ``columns[name]`` is an array [n], not to be written to.

    An array that was handed out stays as it is, whatever is appended afterwards, by other threads too.
    """

    def __init__(self, names: Sequence[str], rows: Iterable[object] = ()) -> None:
        self._kept = {name: array("d") for name in names}
        for row in rows:
            self.append(row)

    def __len__(self) -> int:
        return len(next(iter(self._kept.values())))

    def append(self, row: object) -> None:
        for name, values in self._kept.items():
            values.append(getattr(row, name))

    def __getitem__(self, name: str) -> Floats:
        import numpy as np

        return np.frombuffer(self._kept[name].tobytes())  # a copy: an array that is looked at cannot grow
