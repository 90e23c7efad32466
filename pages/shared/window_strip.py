"""One training window: input and target tokens, aligned, one shifted by one."""

from __future__ import annotations

from pages.shared.component import component


def window_strip(inputs: list[tuple[int, str]], targets: list[tuple[int, str]], *, key: str, more: int = 0) -> None:
    """Show a window's places: above what the model reads, below what it must predict there; one place is explained.

    ``inputs`` and ``targets``: (id, display text), as many of each; ``more``: places that are left out.
    """
    component("window_strip")(key=key, data={"inputs": inputs, "targets": targets, "more": more})
