"""What an answer's text is shown on, and the plainest of them."""

import re
from typing import Protocol

import click

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Screen(Protocol):
    """Takes an answer's text in pieces."""

    def add(self, text: str) -> None:
        """Show some more."""
        ...

    def close(self) -> None:
        """Leave all that was added there to read."""
        ...


def printable(text: str) -> str:
    """Take out the control characters but for line feeds and tabs.

    A model's text is foreign: they could move the cursor, rename the window, write into the clipboard.
    """
    return _CONTROLS.sub("", text)


class Plain:
    """For pipes: the text as it is, each piece at once."""

    def __init__(self) -> None:
        self._ended = True

    def add(self, text: str) -> None:
        """Write some more."""
        click.echo(text, nl=False)
        self._ended = text.endswith("\n")

    def close(self) -> None:
        """End the last line."""
        if not self._ended:
            click.echo()
