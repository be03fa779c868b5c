"""Languages that are written from right to left, in one answer with others."""

from typing import Any

from playwright.sync_api import expect

from tests.page.reader import NARROW, Visit, check, say
from tests.support.upstream import Finish, ScriptedUpstream

MIXED = """مرحبا بالعالم!

An English paragraph.

> اقتباس قصير.

- أول بند
- Second point

| اسم | عدد |
|---|---:|
| تفاح | 3 |

```py
print("مرحبا")
```
"""

DIRECTION = "(element) => getComputedStyle(element).direction"


def test_each_block_reads_from_its_own_side(visit: Visit, upstream: ScriptedUpstream) -> None:
    upstream.answer(*say(MIXED, 5), Finish())
    reader = visit()
    reader.ask("ما هو الخبر؟")
    reader.wait_for_end()

    def directions(selector: str) -> Any:
        return [part.evaluate(DIRECTION) for part in reader.prose.locator(selector).all()]

    assert directions(":scope > p") == ["rtl", "ltr"]
    assert directions("blockquote") == directions("ul") == directions("table") == ["rtl"]
    assert directions("pre") == ["ltr"]
    for selector in (".question", ".question p", "#title", ".chat-list a"):
        assert reader.page.locator(selector).evaluate(DIRECTION) == "rtl", selector
    border = "(quote) => [getComputedStyle(quote).borderRightWidth, getComputedStyle(quote).borderLeftWidth]"
    assert reader.prose.locator("blockquote").evaluate(border) == ["1px", "0px"]
    reader.page.fill("#question", "سؤال؟")
    assert reader.page.locator("#question").evaluate(DIRECTION) == "rtl"
    check(reader, "right-to-left")
    reader.page.set_viewport_size({"width": NARROW["width"], "height": NARROW["height"]})
    expect(reader.prose.locator("table")).to_be_visible()
    check(reader, "right-to-left-narrow")


def test_an_item_in_another_direction_stays_beside_its_bullet(
    visit: Visit, upstream: ScriptedUpstream
) -> None:
    upstream.answer(*say("- أول بند\n- Second point.\n"), Finish())
    reader = visit()
    reader.ask("List, please")
    reader.wait_for_end()
    item = reader.prose.locator("li").last
    assert item.evaluate("(element) => getComputedStyle(element).textAlign") == "right"
