"""What is shown is what the model wrote."""

import threading

import pytest
from playwright.sync_api import expect

from tests.page.reader import Visit, check, say
from tests.support.upstream import Finish, Hold, Say, ScriptedUpstream

RICH = r"""It costs $5 and $6, or US$7. Euclid proves it.[^1]

The area is $A = \pi r^2$, or \(\frac{\pi}{4} d^2\), and inline $$e^{i\pi} = -1$$

$$
\int_0^1 x^2 \, dx = \frac{1}{3}
$$

As a matrix:

\[
\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}
\]

- [x] drawn
- [ ] proved

```python
def area(r):
    return 3.14 * r ** 2  # roughly
```

[^1]: Elements, book I.
"""


def test_a_list_that_code_interrupts_goes_on_with_its_number(
    visit: Visit, upstream: ScriptedUpstream
) -> None:
    upstream.answer(*say("1. one\n\n```sh\nls\n```\n\n2. two\n3. three\n"), Finish())
    reader = visit()
    reader.ask("Steps, please")
    reader.wait_for_end()
    expect(reader.prose.locator("ol").last).to_have_attribute("start", "2")


def test_the_columns_of_a_table_are_aligned_as_written(visit: Visit, upstream: ScriptedUpstream) -> None:
    upstream.answer(Say("| a | b | c |\n|:--|--:|:-:|\n| 1 | 2 | 3 |\n"), Finish())
    reader = visit()
    reader.ask("A table, please")
    reader.wait_for_end()
    aligned = "(cells) => cells.map((cell) => getComputedStyle(cell).textAlign)"
    assert reader.prose.locator("tbody td").evaluate_all(aligned) == ["left", "right", "center"]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_formulas_notes_tasks_and_code_are_shown_as_what_they_are(
    visit: Visit, upstream: ScriptedUpstream, theme: str
) -> None:
    upstream.answer(*say(RICH, 9), Finish())
    reader = visit(color_scheme=theme, reduced_motion="reduce")
    reader.ask("Everything, please")
    reader.wait_for_end()
    expect(reader.prose.locator("math")).to_have_count(5)
    expect(reader.prose.locator("math[display=block]")).to_have_count(3)
    expect(reader.prose.locator("sup")).to_have_text(["1", "1"])
    expect(reader.prose.locator(".footnote")).to_contain_text("Elements, book I.")
    assert reader.prose.locator(".task").all_inner_texts() == ["☑", "☐"]
    expect(reader.prose.locator(".hljs-keyword").first).to_have_text("def")
    code = "def area(r):\n    return 3.14 * r ** 2  # roughly"
    assert reader.prose.locator("pre code").inner_text().strip() == code
    assert "It costs $5 and $6, or US$7." in reader.prose.inner_text()
    reader.page.locator("#scroller").evaluate("(scroller) => { scroller.scrollTop = 0 }")
    check(reader, f"rich-{theme}")


@pytest.mark.parametrize(
    "text",
    [
        "It costs $5 and $6.",
        "From $5/month to US$9, or 5$.",
        "Use $HOME/bin:$PATH here.",
        "Between $5 or more than 10$ in all.",
        "An open \\(x + y here.",
        "Broken $\\frac{1$ here.",
        "Match [^a-z] or more.",
    ],
)
def test_what_is_no_formula_is_shown_as_written(visit: Visit, text: str) -> None:
    reader = visit()
    shown = reader.page.evaluate(
        """async (text) => {
          const { MarkdownView } = await import("/page/markdown.js");
          const view = new MarkdownView(document.createElement("div"));
          view.update(text, true);
          await import("/page/vendor/temml.mjs");
          await new Promise((resolve) => setTimeout(resolve));
          return view.element.textContent;
        }""",
        text,
    )
    assert shown == text


def test_nothing_is_loaded_for_formulas_and_code_until_an_answer_has_them(
    visit: Visit, upstream: ScriptedUpstream
) -> None:
    reader = visit()
    loaded: list[str] = []
    reader.page.on("request", lambda request: loaded.append(request.url.rpartition("/")[2]))
    reader.ask("Hello!")
    reader.wait_for_end()
    assert not {"temml.mjs", "highlight.min.js"} & set(loaded)
    upstream.answer(Say("$x^2$"), Finish())
    reader.ask("A formula, please")
    expect(reader.prose.locator("math")).to_have_count(1)
    assert "temml.mjs" in loaded


def test_thinking_inside_the_text_is_shown_as_reasoning(visit: Visit, upstream: ScriptedUpstream) -> None:
    thinking, answering = threading.Event(), threading.Event()
    upstream.answer_next(
        Say("<thi"),
        Say("nk>Let me see."),
        Hold(thinking),
        Say("</think>\n\nIt is 4"),
        Hold(answering),
        Say("2"),
        Finish(),
    )
    reader = visit()
    reader.ask("What is it?")
    expect(reader.page.locator(".reasoning p")).to_have_text("Let me see.")
    expect(reader.page.get_by_text("Thinking").filter(visible=True)).to_have_count(1)
    thinking.set()
    expect(reader.prose).to_have_text("It is 4")
    answering.set()
    reader.wait_for_end()
    assert reader.prose.inner_text() == "It is 42"
    reader.ask("Sure?")
    upstream.wait_for_calls(2)
    assert upstream.calls[1].body["messages"][1]["content"] == "It is 42"
    reader.wait_for_end()
