"""An answer drawn as Markdown in a terminal, while it comes."""

from markdown_it import MarkdownIt
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.markdown import Markdown
from rich.segment import Segment
from rich.spinner import Spinner

from chat_sse.terminal.plain import printable

FRAMES_PER_SECOND = 10

_parser = MarkdownIt().enable("table")


class Drawn:
    """For terminals.

    A finished block (a paragraph, a list, a table) is printed for good, and scrolls away as all output does.
    The one that still grows is redrawn below it, cut to its end where it is taller than the window.
    """

    def __init__(self) -> None:
        """Begin to draw; `close` ends it."""
        self._console = Console()
        self._growing = ""
        self._begun = False
        spinner = Spinner("dots")
        self._live = Live(
            console=self._console,
            get_renderable=lambda: self if self._begun else spinner,
            refresh_per_second=FRAMES_PER_SECOND,
            transient=True,
        )
        self._live.start()

    def add(self, text: str) -> None:
        """Draw some more."""
        self._growing += printable(text)
        self._begun = True
        if "\n" in text:
            finished, self._growing = split_blocks(self._growing)
            self._print(finished)

    def close(self) -> None:
        """Print what is left."""
        self._live.stop()
        self._print(self._growing)

    def _print(self, text: str) -> None:
        if text.strip():
            self._console.print(markdown(text), "", sep="\n")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw the end of what grows."""
        lines = console.render_lines(markdown(self._growing), options, pad=False)
        for line in lines[-max(1, console.height - 1) :]:
            yield from line
            yield Segment.line()


def markdown(text: str) -> Markdown:
    """Prepare Markdown for drawing. A link's address is shown: its text may promise another."""
    return Markdown(text, hyperlinks=False)


def split_blocks(text: str) -> tuple[str, str]:
    """Split Markdown before its last block, the only one that what follows can still change."""
    starts = [token.map[0] for token in _parser.parse(text) if token.level == 0 and token.map]
    lines = text.split("\n")
    last = starts[-1] if starts else 0
    return "\n".join(lines[:last]), "\n".join(lines[last:])
