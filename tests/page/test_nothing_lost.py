"""Nothing that a reader has written or been answered is lost."""

import json
from pathlib import Path

from playwright.sync_api import Dialog, expect

from tests.page.reader import Visit
from tests.support.upstream import Finish, Refuse, Say, ScriptedUpstream


def test_a_regenerated_answer_keeps_the_one_before_it_also_when_it_fails(
    visit: Visit, upstream: ScriptedUpstream
) -> None:
    upstream.answer_next(Say("First"), Finish())
    upstream.answer_next(Refuse(400))
    upstream.answer_next(Say("Third"), Finish())
    reader = visit()
    reader.ask("Which?")
    reader.wait_for_end()
    reader.button("Regenerate").click()
    expect(reader.page.locator(".failure")).to_be_visible()
    expect(reader.answers.locator(".count")).to_have_text("2/2")
    reader.button("Previous version of the answer").click()
    expect(reader.prose).to_have_text("First")
    expect(reader.page.locator(".failure")).to_be_hidden()
    expect(reader.button("Next version of the answer")).to_be_focused()
    reader.page.reload()
    expect(reader.prose).to_have_text("First")
    reader.button("Next version of the answer").click()
    reader.button("Ask again").click()  # in the place of the one that failed
    expect(reader.prose).to_have_text("Third")
    expect(reader.answers.locator(".count")).to_have_text("2/2")
    assert [call.body["messages"] for call in upstream.calls] == [upstream.calls[0].body["messages"]] * 3


def test_any_question_can_be_edited_and_keeps_what_followed_it(
    visit: Visit, upstream: ScriptedUpstream
) -> None:
    for answer in ("One", "Two", "Other"):
        upstream.answer_next(Say(answer), Finish())
    reader = visit()
    for question in ("First", "Second"):
        reader.ask(question)
        reader.wait_for_end()
    questions = reader.page.locator(".question p")
    reader.button("Edit the question").first.click()
    expect(reader.page.locator("#question")).to_have_value("First")
    reader.ask("Another")
    expect(reader.prose).to_have_text("Other")
    reader.wait_for_end()
    expect(questions).to_have_text(["Another"])
    assert [message["content"] for message in upstream.calls[2].body["messages"]] == ["Another"]
    expect(reader.page.locator(".question .count")).to_have_text("2/2")
    reader.button("Previous version of the question").click()
    expect(questions).to_have_text(["First", "Second"])
    expect(reader.prose).to_have_text("Two")
    expect(reader.page.locator(".chat-list a")).to_have_text(["First"])


def test_a_draft_survives_another_chat_an_edit_and_a_reload(visit: Visit, upstream: ScriptedUpstream) -> None:
    reader = visit()
    field = reader.page.locator("#question")
    reader.ask("Sent")
    reader.wait_for_end()
    field.fill("Half a thou")
    reader.button("New chat").click()
    expect(field).to_have_value("")
    field.fill("Begun")
    reader.page.locator(".chat-list a").click()
    expect(field).to_have_value("Half a thou")
    reader.button("Edit the question").click()
    field.fill("Sent, and ed")
    reader.page.reload()
    expect(reader.page.locator("#editing")).to_be_visible()
    expect(field).to_have_value("Sent, and ed")
    reader.page.keyboard.press("Escape")
    expect(field).to_have_value("Half a thou")
    reader.button("New chat").click()
    expect(field).to_have_value("Begun")
    assert upstream.paid_calls == 1


def test_chats_are_exported_and_imported_again(
    visit: Visit, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    upstream.answer(Say("**Hello** there!"), Finish())
    reader = visit()
    reader.ask("Say hello")
    reader.wait_for_end()
    with reader.page.expect_download() as told:
        reader.button("Save this chat as Markdown").click()
    assert told.value.suggested_filename == "Say-hello.md"
    assert Path(told.value.path()).read_text() == "# Say hello\n\n> Say hello\n\n**Hello** there!\n"
    with reader.page.expect_download() as told:
        reader.button("Export all").click()
    file = tmp_path / "chats.json"
    told.value.save_as(file)

    other = visit()
    other.page.locator("#import-file").set_input_files(file)
    expect(other.page.locator("#toast")).to_contain_text("One chat is imported.")
    other.page.locator(".chat-list a").click()
    expect(other.prose).to_have_text("Hello there!")
    other.page.locator("#import-file").set_input_files(file)
    expect(other.page.locator("#toast")).to_contain_text("0 chats are imported.")
    file.write_text(json.dumps({"format": "chat-sse chats", "chats": [{"id": "<b>", "turns": [{}]}]}))
    other.page.locator("#import-file").set_input_files(file)
    expect(other.page.locator("#toast")).to_contain_text("no exported chats")
    other.page.reload()
    expect(other.page.locator(".chat-list a")).to_have_text(["Say hello"])


def test_a_full_storage_is_told_once_and_what_it_does_not_hold_is_not_left_by_accident(
    visit: Visit, upstream: ScriptedUpstream
) -> None:
    reader = visit()
    reader.ask("Kept")
    reader.wait_for_end()
    reader.button("New chat").click()
    reader.page.evaluate(
        """() => {
          for (let size = 4_000_000; size >= 1; size = Math.floor(size / 2)) {
            try {
              for (let i = 0; ; i += 1) localStorage.setItem(`filler-${size}-${i}`, "x".repeat(size));
            } catch {}
          }
        }"""
    )
    reader.ask("Too much")
    reader.wait_for_end()
    expect(reader.page.locator("#toast")).to_contain_text("storage is full")
    asked: list[str] = []

    def stay(dialog: Dialog) -> None:
        asked.append(dialog.type)
        dialog.dismiss()

    reader.page.once("dialog", stay)
    reader.page.evaluate("location.reload()")
    expect(reader.prose).to_have_text("Hello there!")
    assert asked == ["beforeunload"]
    with reader.page.expect_download() as told:
        reader.button("Export all").first.click()
    chats = json.loads(Path(told.value.path()).read_text())["chats"]
    assert [chat["title"] for chat in chats] == ["Too much", "Kept"]
    reader.page.evaluate(
        "for (const name of Object.keys(localStorage)) if (name[0] === 'f') delete localStorage[name]"
    )
    reader.button("Delete Kept").click()  # what did not fit is saved as soon as there is room
    reader.page.reload()
    expect(reader.page.locator(".chat-list a")).to_have_text(["Too much"])
