"""A tree of answers: each goes on from some place of an earlier one, so that a person can walk back. No Streamlit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pages.shared.generation import Generation

if TYPE_CHECKING:
    from gptlab.sampling import GeneratedToken

MOST_BRANCHES = 16


@dataclass(frozen=True)
class Branch:
    """An answer; but for the first, it shares ``place`` tokens with the branch ``parent`` and differs after them."""

    id: int
    generation: Generation
    parent: int | None = None
    place: int = 0
    text: int = 0  # which text of the parent, where it has several
    chosen: str = ""  # the token that a person put there; empty: drawn anew
    depth: int = 0


@dataclass
class Tree:
    """All branches from one prompt, oldest first, and the one that is looked at."""

    branches: list[Branch] = field(default_factory=list)
    at: int = 0
    _next: int = 0

    def begin(self, generation: Generation) -> None:
        """A new answer from the prompt on: the earlier tree is let go."""
        self.stop()
        self.branches.clear()
        self._add(Branch(self._take_id(), generation))

    def grow(self, generation: Generation, place: int, text: int = 0, chosen: str = "") -> None:
        """A branch of the current answer, which becomes the current one. The oldest without children may have to go."""
        parent = self.current
        assert parent is not None
        self.stop()
        self._add(Branch(self._take_id(), generation, parent.id, place, text, chosen, parent.depth + 1))
        while len(self.branches) > MOST_BRANCHES:
            parents = {branch.parent for branch in self.branches}
            self.branches.remove(next(b for b in self.branches[1:] if b.id not in parents and b.id != self.at))

    def stop(self) -> None:
        """Whatever is still being written ends."""
        for branch in self.branches:
            branch.generation.stop()

    def go_to(self, branch_id: int) -> None:
        if any(branch.id == branch_id for branch in self.branches):
            self.at = branch_id

    @property
    def current(self) -> Branch | None:
        return next((branch for branch in self.branches if branch.id == self.at), None)

    def in_order(self) -> list[Branch]:
        """Each branch right after its parent, children in the order in which they were made."""
        ordered: list[Branch] = []

        def visit(parent: int | None) -> None:
            for branch in self.branches:
                if branch.parent == parent:
                    ordered.append(branch)
                    visit(branch.id)

        visit(None)
        return ordered

    def _take_id(self) -> int:
        self._next += 1
        return self._next

    def _add(self, branch: Branch) -> None:
        self.branches.append(branch)
        self.at = branch.id


def put(tokens: Sequence[GeneratedToken], place: int, id_: int | None) -> list[GeneratedToken]:
    """The tokens before ``place``, and there, if given, the alternative ``id_`` that a person chose."""
    from gptlab.sampling import GeneratedToken

    kept = list(tokens[:place])
    if id_ is not None:
        old = tokens[place]
        own = dict(old.alternatives).get(id_, 0.0)
        kept.append(GeneratedToken(id_, own, old.alternatives, old.drawn_from, 0.0))
    return kept
