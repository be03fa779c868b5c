"""How an answer is drawn while it grows."""

from playwright.sync_api import Browser, expect

from tests.bench import page
from tests.page.reader import ATTACKS, NARROW, SAMPLE, WAIT_MS, Visit, say
from tests.support.service import RunningService
from tests.support.upstream import Finish, Say, ScriptedUpstream


def test_a_giant_table_scrolls_by_itself_and_the_page_stays_alive(
    visit: Visit, upstream: ScriptedUpstream
) -> None:
    row = "|" + "wide cell of a table|" * 30 + "\n"
    table = row + "|" + "-|" * 30 + "\n" + row * 300
    upstream.answer(*say(table, 2000), Say("\nThe end."), Finish())
    reader = visit(viewport=NARROW)
    reader.ask("A table")
    reader.wait_for_end()
    expect(reader.prose).to_contain_text("The end.")
    assert reader.prose.locator("tr").count() == 301
    assert reader.page.evaluate("document.documentElement.scrollWidth") == NARROW["width"]


def test_a_long_answer_is_drawn_at_most_once_a_frame_while_it_grows(
    visit: Visit, upstream: ScriptedUpstream
) -> None:
    paragraph = "A sentence with **bold**, `code` and [a link](https://example.org/) in it. " * 5 + "\n\n"
    upstream.answer(*say(paragraph * 500, 400), Finish())
    reader = visit()
    reader.page.evaluate(
        """() => {
          window.frameCount = 0;
          window.drawings = 0;
          const frame = () => { window.frameCount++; requestAnimationFrame(frame); };
          requestAnimationFrame(frame);
          const isProse = ({ target }) => target instanceof Element && target.closest(".prose");
          const count = (changes) => { window.drawings += changes.some(isProse) ? 1 : 0; };
          new MutationObserver(count).observe(document.body, { childList: true, subtree: true });
        }"""
    )
    reader.ask("Everything")
    expect(reader.page.locator("#send")).to_be_visible(timeout=WAIT_MS)
    expect(reader.prose.locator("p")).to_have_count(500, timeout=WAIT_MS)
    drawings, frames = reader.page.evaluate("[window.drawings, window.frameCount]")
    assert 1 <= drawings <= frames + 2  # the first and the last may fall between two frames


def test_a_growing_answer_makes_only_its_last_blocks_anew(visit: Visit) -> None:
    paragraph = "A sentence with **bold**, `code` and [a link](https://example.org/) in it. " * 5 + "\n\n"
    made, kept = visit().page.evaluate(
        """async (paragraph) => {
          const { MarkdownView } = await import("/page/markdown.js");
          const view = new MarkdownView(document.createElement("div"));
          let made = 0;
          const count = (records) => records.forEach(({ addedNodes }) => (made += addedNodes.length));
          const observer = new MutationObserver(count);
          observer.observe(view.element, { childList: true });
          let text = "";
          for (let part = 0; part < 1000; part += 1) {
            text += paragraph.slice(...(part % 2 ? [200] : [0, 200]));
            view.update(text, false);
          }
          view.update(text, true);
          count(observer.takeRecords());
          return [made, view.element.childElementCount];
        }""",
        paragraph,
    )
    assert kept == 500
    assert made <= 1000  # each paragraph when it begins and when it is whole; all of them would be 250,000


def test_a_growing_list_makes_only_its_last_items_anew(visit: Visit) -> None:
    made, kept = visit().page.evaluate(
        """async () => {
          const { MarkdownView } = await import("/page/markdown.js");
          const view = new MarkdownView(document.createElement("div"));
          let made = 0;
          const isItem = (node) => node.nodeName === "LI" || node.nodeName === "OL";
          const items = (node) => (node.nodeName === "OL" ? node.childElementCount : 1);
          const count = (records) => {
            for (const { addedNodes } of records) {
              for (const node of [...addedNodes].filter(isItem)) made += items(node);
            }
          };
          const observer = new MutationObserver(count);
          observer.observe(view.element, { childList: true, subtree: true });
          let text = "";
          for (let item = 1; item <= 500; item += 1) {
            text += `${item}. an item with **bold**`;
            view.update(text, false);
            text += " and an end\\n";
            view.update(text, false);
          }
          view.update(text, true);
          count(observer.takeRecords());
          return [made, view.element.querySelectorAll("ol > li").length];
        }"""
    )
    assert kept == 500
    assert made <= 2500  # all of them each time would be 250,000


def test_markdown_in_pieces_ends_as_the_same_elements_as_markdown_at_once(visit: Visit) -> None:
    reader = visit()
    samples = [
        SAMPLE,
        ATTACKS,
        "[a]\n\n- x\n\n  y\n- z\n\n1. q\n\npara\n===\n\n[a]: https://a.example\n",
        "a\r\n\r\nb\r",
        "3. a\n4. b\n   - c\n   - d\n5. e\n\n6. f\n7. `g`\n\n   h\n",
    ]
    assert reader.page.evaluate(
        """async (samples) => {
          const { MarkdownView } = await import("/page/markdown.js");
          const made = () => new MarkdownView(document.createElement("div"));
          return samples.every((text) => {
            const whole = made();
            whole.update(text, true);
            const grown = made();
            for (let end = 1; end < text.length; end += 3) grown.update(text.slice(0, end), false);
            grown.update(text, true);
            return whole.element.isEqualNode(grown.element);
          });
        }""",
        samples,
    )


def test_the_benchmark_of_the_page_gives_its_figures(
    browser: Browser, service: RunningService, upstream: ScriptedUpstream
) -> None:
    cost = page.measure(browser, service, upstream, page.Case(name="tiny", text="word " * 40, deltas=20))
    assert cost.script_seconds > 0
    assert cost.layout_seconds > 0
    assert cost.longest_ms > 0
