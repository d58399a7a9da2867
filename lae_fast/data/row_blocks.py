"""Rows that come block by block: once from an iterator, as often as needed from a callable or a list.

The caller's function `convert` turns what it is given into a block.  This module keeps the order, counts the rows, cuts
them into chunks of any size, and checks that each block fits the first one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np


def is_blocks(X: Any) -> bool:
    """Whether X gives rows block by block: an iterator, a callable that returns one, or a list of 2-D blocks."""
    if hasattr(X, "shape") or hasattr(X, "__array__"):
        return False
    if isinstance(X, Iterator) or callable(X):
        return True
    return isinstance(X, (list, tuple)) and bool(X) and all(len(getattr(block, "shape", ())) == 2 for block in X)


class Blocks:
    """Rows read in order.

    A block is copied before the next one is asked for, so that its owner may use the memory again.

    Parameters
    ----------
    X : see `is_blocks`
    convert : (block, name) -> object with `shape`, `dtype`, `names`, `with_names(names)` and
        `block(first, last, False)`; raises for what is no block
    name : of X, for messages

    Attributes
    ----------
    n_features, dtype, is_sparse, names : of the first block; blocks with names are taken by them
    rereadable : whether `rewind` works;  position : rows handed out since the beginning
    length : number of rows, None until they have been read to the end once
    """

    def __init__(self, X: Any, convert: Callable[[Any, str], Any], name: str) -> None:
        self._name, self._convert = name, convert
        self.rereadable = not isinstance(X, Iterator)
        self._open = X if callable(X) and self.rereadable else X.__iter__
        self.n_features = 0
        self.length: int | None = None
        self.names: tuple[str, ...] | None = None
        self._block: Any = None  # the block that rows are taken from, and how many have been
        self._used = 0
        self._held: np.ndarray | None = None  # rows that were peeked at and not taken
        self._begin()
        if self._block is None:
            raise ValueError(
                f"{name} gave no rows: Found array with 0 sample(s) while a minimum of 1 is required. An iterator that "
                "has been read before gives nothing; a callable must return a fresh one each time."
            )

    def take(self, count: int) -> np.ndarray:
        """The next `count` rows, fewer at the end, in memory of their own."""
        held, self._held = self._held, None
        out = np.empty((count, self.n_features), self.dtype)
        filled = 0
        if held is not None:
            filled = min(count, len(held))
            out[:filled] = held[:filled]
            self._held = held[filled:] if filled < len(held) else None
        while filled < count and self._block is not None:
            last = min(self._used + count - filled, self._block.shape[0])
            out[filled : filled + last - self._used] = self._block.block(self._used, last, False)
            filled += last - self._used
            self._use(last)
        self.position += filled
        return out[:filled]

    def peek(self, count: int) -> np.ndarray:
        """The rows that `take(count)` will return, or more, without taking them."""
        if self._held is None or len(self._held) < count:
            held = self.take(count)
            self.position -= len(held)
            self._held = held
        return self._held

    def take_sparse(self, count: int) -> list[Any]:
        """The next `count` rows, fewer at the end, as sparse matrices to be stacked; not after `peek`."""
        parts = []
        while count and self._block is not None:
            last = min(self._used + count, self._block.shape[0])
            parts.append(self._block.matrix(self._used, last))
            count -= last - self._used
            self.position += last - self._used
            self._use(last)
        return parts

    def start(self) -> None:
        """Go to the first row, if not there already."""
        if self.position:
            self.rewind()

    def rewind(self) -> None:
        """Start again from the first row."""
        if not self.rereadable:
            raise ValueError(
                f"{self._name} is an iterator, which gives its rows once, and they are needed again: pass a callable "
                f"that returns a fresh iterator, such as {self._name}=lambda: read_blocks()."
            )
        self._begin()

    def reorder(self, names: tuple[str, ...]) -> None:
        """Take the columns in the order of these names, before any row has been taken."""
        self.names = names
        if self._block is not None:
            self._block = self._block.with_names(names)

    def count(self) -> int:
        """The number of rows; reads them all where they have not been read yet."""
        if self.length is None:
            if not self.rereadable:
                raise ValueError(
                    f"{self._name} is an iterator, which gives its rows once, and their number is needed first: pass a "
                    f"callable that returns a fresh iterator, such as {self._name}=lambda: read_blocks()."
                )
            while self._block is not None:
                self._next_block()
            self.length = self._received
            self._begin()
        return self.length

    def _begin(self) -> None:
        rows = self._open()
        if not isinstance(rows, Iterable):
            raise TypeError(f"{self._name}() must return an iterator over blocks of rows, not {type(rows).__name__}.")
        self._iterator = iter(rows)
        self._received, self._index, self.position = 0, 0, 0
        self._held = None
        self._next_block()

    def _use(self, last: int) -> None:
        self._used = last
        if last == self._block.shape[0]:
            self._next_block()

    def _next_block(self) -> None:
        """The next block that has rows, or None at the end."""
        self._block, self._used = None, 0
        for raw in self._iterator:
            index, self._index = self._index, self._index + 1
            shape: tuple[Any, ...] = getattr(raw, "shape", ())
            if len(shape) == 2 and shape[0] == 0:
                continue
            block = self._convert(raw, f"block {index} of {self._name}")
            self._block = self._checked(block, index)
            self._received += block.shape[0]
            return
        if self.length is None:
            self.length = self._received
        elif self.length != self._received:
            raise ValueError(
                f"{self._name} gave {self.length} rows at first and {self._received} when it was read again: the "
                "callable must return an iterator over the same rows each time."
            )

    def _checked(self, block: Any, index: int) -> Any:
        """The block, with its columns in the order of the first one's names."""
        if not self.n_features:
            self.n_features, self.dtype, self.is_sparse = block.shape[1], block.dtype, hasattr(block, "matrix")
            self.names = block.names
        if block.shape[1] != self.n_features:
            raise ValueError(
                f"Block {index} of {self._name} has {block.shape[1]} features, but the blocks before it have "
                f"{self.n_features}: blocks may differ in the number of rows only."
            )
        if not np.can_cast(block.dtype, self.dtype, "safe"):
            raise ValueError(
                f"Block {index} of {self._name} has dtype {block.dtype}, which does not fit into {self.dtype}, the "
                "dtype of the first block: convert the blocks to one dtype."
            )
        if hasattr(block, "matrix") != self.is_sparse:
            raise ValueError(
                f"Block {index} of {self._name} is {'sparse' if not self.is_sparse else 'dense'}, and the first one is "
                "not: make all blocks sparse, or all dense."
            )
        if block.names is None or self.names is None:
            return block
        try:
            return block.with_names(self.names)
        except ValueError as error:
            raise ValueError(f"Block {index} of {self._name} has other columns than the first one. {error}") from error
