"""Which items are used when there are more than fit the budget? Whole documents, the same every time.

A document is taken or left by a hash of its name, so the choice does not depend on order, and a growing
test set keeps the documents it had.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from hauslm.base.files import sha256_bytes

T = TypeVar("T")


def rank(name: str, salt: str = "evaluate") -> str:
    return sha256_bytes(f"{salt}\0{name}".encode())


def whole_documents(items: Sequence[T], document: Callable[[T], str], most: int) -> list[T]:
    """At most `most` items in whole documents, in their given order; at least one document.

    Documents are taken in the order of their hash while they fit.
    """
    sizes: dict[str, int] = {}
    for item in items:
        sizes[document(item)] = sizes.get(document(item), 0) + 1
    chosen: set[str] = set()
    left = most
    for name in sorted(sizes, key=rank):
        if sizes[name] <= left or not chosen:
            chosen.add(name)
            left -= sizes[name]
    return [item for item in items if document(item) in chosen]


def spread(items: Sequence[T], most: int) -> list[T]:
    """At most `most` of the items, evenly spread over their order."""
    if len(items) <= most:
        return list(items)
    return [items[i * len(items) // most] for i in range(most)]
