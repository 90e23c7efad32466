"""Work that a thread does while a page looks on. Plain Python: no Streamlit."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from gptlab.model import GPTModel

PATIENCE = 10.0  # seconds that a thread goes on while no page looks: then the page was left
SMALL_MODEL = 40_000_000  # parameters: below, a second core costs more waiting than it saves work


class WatchedThread:
    """Does ``work`` in a thread. It should look at ``stopped`` and ``left`` now and then, and end where one is true.

    ``left``: nobody has called ``watch()`` for ``patience`` seconds. ``fault``: the sentence that says what went wrong,
    which begins with ``broke_off`` where it was nothing that a person did. ``sparing``: use one core only, because
    something trains on the others; threads that wait for each other's turn would slow both to a crawl.
    """

    broke_off = "It broke off"

    def __init__(self, name: str, *, sparing: bool, patience: float) -> None:
        self.fault = ""
        self._sparing, self._patience = sparing, patience
        self._stop, self._ended = threading.Event(), threading.Event()
        self._watched = time.monotonic()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def work(self) -> None:
        raise NotImplementedError

    def ended(self) -> None:
        """The last thing that the thread does, however the work went."""

    def start(self) -> Self:
        self._thread.start()
        return self

    def stop(self) -> None:
        """Ask the thread to end after the piece that it is at."""
        self._stop.set()

    def watch(self) -> None:
        """Say that somebody is still looking."""
        self._watched = time.monotonic()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for the end, at most ``seconds``. True: it has ended."""
        return self._ended.wait(seconds)

    @property
    def active(self) -> bool:
        return not self._ended.is_set()

    @property
    def stopped(self) -> bool:
        return self._stop.is_set()

    @property
    def left(self) -> bool:
        return time.monotonic() - self._watched > self._patience

    def use_cores_for(self, model: GPTModel) -> None:
        """Choose how many threads torch uses in this one."""
        import torch

        from gptlab.device import available_cores

        torch.set_num_threads(1 if self._sparing or model.n_parameters < SMALL_MODEL else available_cores())

    def _run(self) -> None:
        try:
            self.work()
        except ValueError as error:
            self.fault = str(error)
        except Exception as error:
            memory = "out of memory" in str(error).lower() or isinstance(error, MemoryError)
            reason = "there is not enough memory for this model" if memory else f"{type(error).__name__}: {error}"
            self.fault = f"{self.broke_off}: {reason}."
        finally:
            self.ended()
            self._ended.set()
