"""What a reader chooses: a model, images, a chat of the list."""

import base64
from pathlib import Path

import pytest
from playwright.sync_api import FilePayload, expect

from tests.conftest import QUICK
from tests.page.reader import Reader, Visit
from tests.support.service import serve
from tests.support.upstream import Finish, Say, ScriptedUpstream

# A noisy picture, which no format makes small.
NOISE = """async ([width, height]) => {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width, height];
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(width, height);
  for (let at = 0; at < pixels.data.length; at += 65536) {
    crypto.getRandomValues(pixels.data.subarray(at, at + 65536));
  }
  context.putImageData(pixels, 0, 0);
  return canvas.toDataURL("image/png").split(",")[1];
}"""
FILE = """async (base64) => {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  const files = new DataTransfer();
  files.items.add(new File([bytes], "shot.png", { type: "image/png" }));
"""
PASTE = FILE + "window.question.dispatchEvent(new ClipboardEvent('paste', {clipboardData: files})); }"
DROP = FILE + "document.body.dispatchEvent(new DragEvent('drop', {dataTransfer: files, bubbles: true})); }"


def noise(reader: Reader, width: int, height: int) -> FilePayload:
    content = base64.b64decode(reader.page.evaluate(NOISE, [width, height]))
    return {"name": "noise.png", "mimeType": "image/png", "buffer": content}


def test_images_come_by_file_paste_and_drop_and_fit_in_a_request(
    visit: Visit, upstream: ScriptedUpstream
) -> None:
    reader = visit()
    picture = noise(reader, 1200, 300)
    encoded = base64.b64encode(picture["buffer"]).decode()
    assert len(encoded) > 1_000_000
    shown = reader.page.locator("#images img")
    reader.page.locator("#image-file").set_input_files(picture)
    expect(shown).to_have_count(1)
    reader.page.evaluate(PASTE, encoded)
    expect(shown).to_have_count(2)
    reader.page.evaluate(DROP, encoded)
    expect(shown).to_have_count(3)
    reader.button("Remove image 3").click()
    expect(shown).to_have_count(2)
    reader.ask("What is this?")
    reader.wait_for_end()
    [message] = upstream.calls[0].body["messages"]
    assert [part["type"] for part in message["content"]] == ["text", "image_url", "image_url"]
    urls = [part["image_url"]["url"] for part in message["content"][1:]]
    assert all(url.startswith("data:image/jpeg;base64,") and len(url) <= 150_000 for url in urls)
    expect(shown).to_have_count(0)
    reader.page.reload()
    expect(reader.page.locator(".question img")).to_have_count(2)


def test_of_a_chats_images_no_more_is_sent_or_kept_than_a_request_may_hold(
    visit: Visit, upstream: ScriptedUpstream
) -> None:
    reader = visit()
    picture = noise(reader, 400, 400)
    for _ in range(2):
        reader.page.locator("#image-file").set_input_files([picture] * 4)
        expect(reader.page.locator("#images img")).to_have_count(4)
        reader.page.press("#question", "Enter")
        reader.wait_for_end()
    assert all(len(call.content) < 1_048_576 for call in upstream.calls)
    reader.page.reload()
    kept = reader.page.locator(".question img").count()
    assert reader.page.locator(".question .gone").count() == 8 - kept > 0
    assert kept >= 4
    stored = reader.page.evaluate("JSON.stringify(localStorage).length")
    assert stored < 700_000


def test_what_is_no_image_is_refused_in_words(visit: Visit) -> None:
    reader = visit()
    file: FilePayload = {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"no image"}
    reader.page.locator("#image-file").set_input_files(file)
    expect(reader.page.locator("#toast")).to_contain_text("notes.txt is no image")


def test_a_model_is_chosen_where_the_service_offers_several(visit: Visit, upstream: ScriptedUpstream) -> None:
    expect(visit().page.get_by_label("Model")).to_be_hidden()
    env = {**QUICK, "OPENAI_BASE_URL": upstream.base_url, "CHAT_SSE_MODELS": "gpt-4o-mini,other"}
    with serve(env) as service:
        reader = visit(service.url)
        picker = reader.page.get_by_label("Model")
        expect(picker).to_have_value("gpt-4o-mini")
        reader.ask("Hello!")
        reader.wait_for_end()
        picker.select_option("other")
        reader.page.reload()
        expect(picker).to_have_value("other")
        reader.ask("Hello again!")
        reader.wait_for_end()
    assert [call.body["model"] for call in upstream.calls] == ["gpt-4o-mini", "other"]


def test_chats_are_searched_renamed_and_grouped_by_date(visit: Visit, upstream: ScriptedUpstream) -> None:
    reader = visit()
    upstream.answer(Say("About otters"), Finish())
    for title in ("First", "Second"):
        reader.page.keyboard.press("ControlOrMeta+Shift+O")
        reader.ask(title)
        reader.wait_for_end()
    reader.page.evaluate(
        """() => {
          const [name] = Object.keys(localStorage).filter((name) => localStorage[name].includes("First"));
          const chat = JSON.parse(localStorage[name]);
          localStorage[name] = JSON.stringify({ ...chat, updatedAt: Date.now() - 86_400_000 });
        }"""
    )
    reader.page.reload()
    rows = reader.page.locator(".chat-list li")
    expect(rows).to_have_text(["Today", "Second", "Yesterday", "First"])
    rows.nth(3).hover()
    reader.button("Rename First").click()
    reader.page.get_by_label("The chat's new name").fill("Otters")
    reader.page.keyboard.press("Enter")
    expect(rows.nth(3)).to_have_text("Otters")
    reader.page.get_by_role("searchbox").fill("oTTerS")
    expect(rows).to_have_text(["Today", "Second", "Yesterday", "Otters"])
    reader.page.get_by_role("searchbox").fill("second")
    expect(rows).to_have_text(["Today", "Second"])
    reader.page.get_by_role("searchbox").fill("none such")
    expect(rows).to_have_text(["No chat has these words."])


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_on_paper_there_is_the_whole_conversation_and_nothing_to_press(
    visit: Visit, upstream: ScriptedUpstream, theme: str, tmp_path: Path
) -> None:
    upstream.answer(Say("line\n\n" * 100 + "[end](https://example.org/)"), Finish())
    reader = visit(color_scheme=theme)
    reader.ask("A long one")
    reader.wait_for_end()
    reader.page.emulate_media(media="print")
    expect(reader.page.locator("button:visible, textarea:visible, input:visible")).to_have_count(0)
    height = reader.page.evaluate("document.documentElement.scrollHeight")
    assert height > 2_500
    assert reader.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
