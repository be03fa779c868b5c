"""What a terminal shows of an answer's Markdown: every word, and single blank lines."""

import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chat_sse.terminal.markdown import Drawn
from tests.page.test_every_word import BLOCKS

SHOWN = {
    "tags in a line": ("a <b>bold</b> word<br>", "a <b>bold</b> word<br>"),
    "types": ("a vector<vector<int>> and a List<String>", "a vector<vector<int>> and a List<String>"),
    "a block of HTML": (
        '<div class="a">\n  <p>Hi</p>\n</div>\n\nend',
        '<div class="a">\n  <p>Hi</p>\n</div>\n\nend',
    ),
    "a comment": ("<!-- left\nout -->\n\nend", "<!-- left\nout -->\n\nend"),
    "thoughts": ("<think>\nhm\n</think>\n\nend", "<think>\nhm\n</think>\n\nend"),
    "addresses": ("<https://a.example/x%20y> <me@a.example>", "<https://a.example/x%20y> <me@a.example>"),
    "an image": ('![a *b*](https://a.example/i.png "c")', '![a *b*](https://a.example/i.png "c")'),
    "a link": ('[a](https://a.example/ "b")', 'a (https://a.example/ "b")'),
    "an image in a link": ("[![a](/i.png)](/page)", "![a](/i.png) (/page)"),
    "a definition": ("[a][b]\n\n[b]: https://a.example/", "[a][b]\n\n[b]: https://a.example/"),
    "headings": ("# One\n## Two\n\n\n\ntext\n### Three", "One\n\nTwo\n\ntext\n\nThree"),
    "a list with code": (
        "1. a\n\n   ```\n   b\n\n\n   c\n   ```\n\n2. d\n\n\nend",
        "1 a\n\nb\n\n\nc\n\n2 d\n\nend",
    ),
    "a table": ("a\n\n| b | c |\n|---|---|\n| d | e |\n\nf", "a\n\nb  c\n────\nd  e\n\nf"),
    "a quote and a rule": ("> a\n\n---\n\nb", "▌ a\n\n---\n\nb"),
}


@pytest.mark.parametrize("in_pieces", [False, True])
@pytest.mark.parametrize(("source", "shown"), SHOWN.values(), ids=SHOWN.keys())
def test_every_word_is_shown_with_single_blank_lines(
    capsys: pytest.CaptureFixture[str], source: str, shown: str, *, in_pieces: bool
) -> None:
    drawn = Drawn()
    for piece in source if in_pieces else [source]:
        drawn.add(piece)
    drawn.close()
    lines = [line.strip() for line in capsys.readouterr().out.removesuffix("\n").split("\n")]
    output = re.sub(r"^[-─]{20,}$", "---", "\n".join(lines), flags=re.MULTILINE)
    assert output == "\n".join(line.strip() for line in shown.split("\n"))


# Not shown: what a code block says of itself, and cells beyond a table's columns.
SHOWN_WHOLE = [
    block.replace("```@ @\n", "```\n").replace("| @ | @ | @ | @ |", "| @ | @ |") for block in BLOCKS
]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(SHOWN_WHOLE), min_size=1, max_size=6), st.sampled_from(["\n\n", "\n"]))
def test_whatever_is_written_each_of_its_words_is_shown(
    capsys: pytest.CaptureFixture[str], blocks: list[str], between: str
) -> None:
    pieces = between.join(blocks).split("@")
    words = [f"w{number}q" for number in range(len(pieces) - 1)]
    text = "".join(piece + word for piece, word in zip(pieces, [*words, ""], strict=True))
    drawn = Drawn()
    for start in range(0, len(text), 7):
        drawn.add(text[start : start + 7])
    drawn.close()
    shown = capsys.readouterr().out
    assert [word for word in words if word not in shown] == [], text
