"""Whatever markdown a model writes, each of its words is on the page."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.page.reader import Visit

# `@` becomes a word of its own. The targets of links and the signs of markdown may go; words may not.
BLOCKS = [
    "@ @ **@** and *@ `@`* or ~~@~~.",
    "# @ *@*",
    "@\n===",
    "> @\n> > @\n> - @",
    "3. @\n4. @\n   @",
    "- @\n  - [x] @\n- [ ] **@**",
    "| @ | @ |\n|:--|--:|\n| @ | `@` |\n| @ | @ | @ | @ |",
    "```@ @\n@ <b>@</b>\n```",
    "    @\n    @",
    "<div class=@>@ <b>@</b></div>\n@",
    "<!-- @ -->\n",
    "@ <@> <script>@</script> <br> & @",
    "[@](https://example.org/ '@x') [@](javascript:no) ![@](https://example.org/x.png)",
    "@[^1] and @[^@] [@][^2]\n\n[^1]: @ @\n\n    @\n[^2]: @\n",
    "[@]: @",
    "It costs $5 @ and $6 @, US$@ or $@.",
    r"\[ @ @ \] and \( @ @ \) and \$@ or \( @",
    "@_@_@ *@ **@ ~@ `@ [@ [@](@",
    "***\n@\n- - -\n@",
    "<think>@</think> @",
    "@:\n```\n@",
    "@|@\n-|-",
    "1) @\n2) @\n\n@",
]

SHOW = """async (text) => {
  const { MarkdownView } = await import("/page/markdown.js");
  const made = () => new MarkdownView(document.createElement("div"));
  const whole = made();
  whole.update(text, true);
  const grown = made();
  for (let end = 1; end < text.length; end += 7) grown.update(text.slice(0, end), false);
  grown.update(text, true);
  return [whole.element.textContent, grown.element.textContent];
}"""


def test_the_text_of_what_is_shown_holds_every_word(visit: Visit) -> None:
    reader = visit()

    @settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
    @given(st.lists(st.sampled_from(BLOCKS), min_size=1, max_size=6), st.sampled_from(["\n\n", "\n"]))
    def holds(blocks: list[str], between: str) -> None:
        pieces = between.join(blocks).split("@")
        words = [f"word{number}q" for number in range(len(pieces) - 1)]
        text = "".join(piece + word for piece, word in zip(pieces, [*words, ""], strict=True))
        titles = {word for word in words if f"'{word}x'" in text or f"]({word}" in text}
        for shown in reader.page.evaluate(SHOW, text):
            assert [word for word in words if word not in shown and word not in titles] == [], text

    holds()
