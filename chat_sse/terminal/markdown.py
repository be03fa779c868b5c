"""An answer drawn as Markdown in a terminal while it streams."""

from collections.abc import Iterable, Iterator

from markdown_it import MarkdownIt
from markdown_it.token import Token
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.markdown import Markdown
from rich.segment import Segment
from rich.spinner import Spinner

from chat_sse.terminal.plain import printable

FRAMES_PER_SECOND = 10

# Definitions of references are text: what they define may be in a block that is already printed.
_parser = MarkdownIt().enable(["strikethrough", "table"]).disable("reference")


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
            if finished.strip():
                self._console.print(CleanMarkdown(finished), "", sep="\n")

    def close(self) -> None:
        """Print what is left."""
        self._live.stop()
        if self._growing.strip():
            self._console.print(CleanMarkdown(self._growing))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw the end of the growing block."""
        lines = console.render_lines(CleanMarkdown(self._growing), options, pad=False)
        for line in lines[-max(1, console.height - 1) :]:
            yield from line
            yield Segment.line()


class CleanMarkdown:
    """Markdown with single blank lines, and without control characters in its rendered text.

    Cleaning the source is not enough: the parser decodes entities, and percent escapes in link destinations.
    A link's destination is shown as text: its label may promise another.
    """

    def __init__(self, text: str) -> None:
        self._markdown = Markdown("", hyperlinks=False)
        self._markdown.parsed = list(_as_written(_parser.parse(text)))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render the segments, with their text cleaned, and no blank line at the start and the end."""
        begun = blank = False
        for line in Segment.split_lines(console.render(self._markdown, options)):
            if _is_blank(line):
                blank = begun
                continue
            if blank:
                yield Segment.line()
            begun, blank = True, False
            for text, style, _ in line:
                yield Segment(printable(text), style)
            yield Segment.line()


def split_blocks(text: str) -> tuple[str, str]:
    """Split Markdown before its last block, the only one that later text can change."""
    starts = [token.map[0] for token in _parser.parse(text) if token.level == 0 and token.map]
    lines = text.split("\n")
    last = starts[-1] if starts else 0
    return "\n".join(lines[:last]), "\n".join(lines[last:])


def _as_written(tokens: Iterable[Token]) -> Iterator[Token]:
    """Turn into text what rich drops: HTML, the addresses of images, and titles."""
    address = None
    for token in tokens:
        if token.type == "html_block":
            yield Token("paragraph_open", "p", 1)
            for number, line in enumerate(token.content.rstrip("\n").split("\n")):
                if number:
                    yield Token("hardbreak", "br", 0)
                yield _text(line)
            yield Token("paragraph_close", "p", -1)
        elif token.type == "html_inline":
            yield _text(token.content)
        elif token.type == "image":
            yield _text(f"![{token.content}]({token.attrs['src']}{_title(token)})")
        elif token.markup == "autolink":  # rich would show the address twice
            address = token.attrs.get("href")
        elif address is not None:
            yield _text(f"<{token.content if address == f'mailto:{token.content}' else address}>")
        else:
            if token.type == "link_open":
                token.attrs["href"] = f"{token.attrs['href']}{_title(token)}"
            token.children = list(_as_written(token.children)) if token.children else None
            yield token


def _title(token: Token) -> str:
    return f' "{token.attrs["title"]}"' if "title" in token.attrs else ""


def _text(content: str) -> Token:
    return Token("text", "", 0, content=content)


def _is_blank(line: Iterable[Segment]) -> bool:
    """Tell whether nothing is seen of a line. Those of code are on a ground of their own."""
    return not any(text.strip() or (style and style.bgcolor) for text, style, _ in line)
