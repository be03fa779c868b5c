"""What is shown is what the model wrote."""

from playwright.sync_api import expect

from tests.page.reader import Visit, say
from tests.support.upstream import Finish, Say, ScriptedUpstream

SHOWN = """async (text) => {
  const { MarkdownView } = await import("/page/markdown.js");
  const view = new MarkdownView(document.createElement("div"));
  view.update(text, true);
  return view.element.%s;
}"""


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
