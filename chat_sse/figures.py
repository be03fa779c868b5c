"""What a part of the service says of itself whenever it is asked, for whoever watches the service.

Parts count in plain attributes, which costs next to nothing, and know nothing of who reads them.
"""

from collections.abc import Iterable
from typing import Protocol, runtime_checkable

import msgspec


class Figure(msgspec.Struct, frozen=True):
    """One number: a state of now, or what was counted since the process began."""

    name: str
    value: float
    label: str = ""
    """Which one of several, such as a model's name; never a person's."""


@runtime_checkable
class Measured(Protocol):
    """A part that has figures."""

    def figures(self) -> Iterable[Figure]:
        """Return all of them, the same names each time."""
        ...
