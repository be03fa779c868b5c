"""An answer drawn as Markdown in a terminal while it streams."""

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
    """Shows an answer in a terminal.

    A finished block (a paragraph, a list, a table) is printed once, and scrolls as all output does. The block
    that still grows is redrawn below it; only its end is shown where it is taller than the window.
    """

    def __init__(self) -> None:
        """Begin to draw; `close` must be called in the end."""
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
        """Draw the next piece."""
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
            self._console.print(_CleanMarkdown(text), "", sep="\n")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw the end of the growing block."""
        lines = console.render_lines(_CleanMarkdown(self._growing), options, pad=False)
        for line in lines[-max(1, console.height - 1) :]:
            yield from line
            yield Segment.line()


class _CleanMarkdown:
    """Markdown whose rendered text holds no control characters.

    Cleaning the source is not enough: the parser decodes entities, and percent escapes in link destinations.
    A link's destination is shown as text: its label may promise another.
    """

    def __init__(self, text: str) -> None:
        self._markdown = Markdown(text, hyperlinks=False)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render the segments, with their text cleaned."""
        for text, style, _ in console.render(self._markdown, options):
            yield Segment(printable(text), style)


def split_blocks(text: str) -> tuple[str, str]:
    """Split Markdown before its last block, the only one that later text can change."""
    starts = [token.map[0] for token in _parser.parse(text) if token.level == 0 and token.map]
    lines = text.split("\n")
    last = starts[-1] if starts else 0
    return "\n".join(lines[:last]), "\n".join(lines[last:])
