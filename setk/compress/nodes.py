"""Sets of numbered things that grow together (a disjoint-set forest), many at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor


class Nodes:
    """Sets of nodes that have been joined (a disjoint-set forest); node 0 stays alone."""

    def __init__(self, count: int):
        self.parent = np.arange(count)

    def find(self, nodes: np.ndarray) -> np.ndarray:
        """The least of the set of each node."""
        found = self.parent[nodes]
        while not np.array_equal(higher := self.parent[found], found):
            found = higher
        self.parent[nodes] = found
        return found

    def join(self, a: np.ndarray, b: np.ndarray) -> None:
        """Join a[i] with b[i] wherever neither is 0."""
        some = (a > 0) & (b > 0) & (a != b)
        a, b = a[some], b[some]
        while len(a):
            a, b = self.find(a), self.find(b)
            differ = a != b
            a, b = a[differ], b[differ]
            self.parent[np.maximum(a, b)] = np.minimum(a, b)


@dataclass(frozen=True)
class Tag:
    """Names of the channels that a tensor's values belong to, and the scalars of weights that they are; 0 is none."""

    channels: Tensor | None = None
    scalars: Tensor | None = None
    product: list[tuple[np.ndarray, np.ndarray]] | None = None  # of weights and channels, by element, not summed yet

    def apply(self, move: Any) -> Tag:
        moved = [x if x is None else move(x) for x in (self.channels, self.scalars)]
        return Tag(moved[0], moved[1], self.product)
