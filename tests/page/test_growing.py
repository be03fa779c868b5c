"""A growing answer shows at each moment the beginning of what it becomes, in the same style."""

import pytest

from tests.page.reader import Visit

PROSE = """# A **bold** heading

Some *words* are **bold, *both* and `code`** here, `` a`b `` too, ~~gone~~ and __loud__. 2 * 3 * 4 and arr[0]
stay, as do snake_case_names and a_b. See [the **standard**](https://html.spec.whatwg.org/a_(b)_c "Title") or
![a picture](https://example.org/x.png), and <https://example.org/y>, AT&amp;T.

- one **item**
- [ ] two `code`
  - three *deep*

1. first
2. second

> A quote with **bold**.

| a | **b** |
|---|:-:|
| 1 | `2` |
| [x](https://example.org/z) | *4* |

## Second

```python
x = "**kept**"  # [as](it is)
```

End.[^1]

***

[^1]: A *note*.
"""

# The text, each character with the elements that give it its style. A link's address may come later.
STYLED = """async ([text, step]) => {
  const { MarkdownView } = await import("/page/markdown.js");
  const styled = (root) => {
    const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
    const characters = [];
    while (walker.nextNode()) {
      const node = walker.currentNode;
      if (node.parentElement.closest(".code-head, .hljs-dummy")) continue;
      const tags = [];
      for (let up = node.parentElement; up !== root; up = up.parentElement) tags.push(up.localName);
      const style = tags.filter((tag) => !["a", "div", "span"].includes(tag)).join(" ");
      for (const character of node.data.replace(/\\s+/g, "")) characters.push(character + " " + style);
    }
    return characters;
  };
  const whole = new MarkdownView(document.createElement("div"));
  whole.update(text, true);
  const expected = styled(whole.element);
  const growing = new MarkdownView(document.createElement("div"));
  const wrong = [];
  let longest = 0;
  for (let end = 1; end <= text.length; end += step) {
    growing.update(text.slice(0, end), false);
    const shown = styled(growing.element);
    longest = Math.max(longest, shown.length);
    const at = shown.findIndex((character, index) => character !== expected[index]);
    if (at >= 0) wrong.push([text.slice(Math.max(0, end - 30), end), shown[at], expected[at] ?? null]);
  }
  return [wrong, longest / expected.length];
}"""


@pytest.mark.parametrize("step", [1, 7])
def test_nothing_half_written_is_flashed_while_an_answer_grows(visit: Visit, step: int) -> None:
    wrong, shown = visit().page.evaluate(STYLED, [PROSE, step])
    assert not wrong, "\n".join(map(repr, wrong))
    assert shown > 0.97


def test_what_stays_open_is_shown_as_it_is_written(visit: Visit) -> None:
    open_ended = "Use *args here. " + "It goes on and on. " * 20
    shown = visit().page.evaluate(
        """async (text) => {
          const { MarkdownView } = await import("/page/markdown.js");
          const view = new MarkdownView(document.createElement("div"));
          view.update(text, false);
          return view.element.textContent.trim();
        }""",
        open_ended,
    )
    assert shown == open_ended.strip()
