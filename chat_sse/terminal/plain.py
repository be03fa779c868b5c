"""Where an answer's text is shown, and the plainest implementation."""

import re
import sys
from typing import Protocol

import click

# C0 but for tab and line feed, DEL, C1, and the characters with Unicode's property Bidi_Control (UAX #9).
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


class Screen(Protocol):
    """Shows an answer's text, which comes in pieces."""

    def add(self, text: str) -> None:
        """Show the next piece."""
        ...

    def close(self) -> None:
        """End the output, with all that was added in view."""
        ...


def printable(text: str) -> str:
    """Return a text without its control characters, except line feeds and tabs.

    What a service sends is not trusted: in a terminal they could move the cursor, rename the window, write to
    the clipboard, or show letters in another order than they are copied in.
    """
    return _CONTROLS.sub("", text)


class Plain:
    """For pipes and files, which get the text as it is; and for terminals that cannot draw.

    Each piece is written at once.
    """

    def __init__(self) -> None:
        self._is_terminal = sys.stdout.isatty()
        self._ended = True

    def add(self, text: str) -> None:
        """Write the next piece."""
        click.echo(printable(text) if self._is_terminal else text, nl=False)
        self._ended = text.endswith("\n")

    def close(self) -> None:
        """End the last line."""
        if not self._ended:
            click.echo()
