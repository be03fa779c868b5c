"""`chat-sse chat`: questions and answers until the person leaves. Part of the extra `chat`.

Lines are edited by prompt_toolkit, since a pasted text must be one question and not one paid call a line; the
standard library's `readline` knows that on some systems only.
"""

import click
import httpx2
import msgspec
from prompt_toolkit import PromptSession
from prompt_toolkit.history import InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

from chat_sse.messages import AskRequest, Message
from chat_sse.terminal.answer_reader import AnswerReader, standing
from chat_sse.terminal.chats import Chat, ChatUnusable, newest
from chat_sse.terminal.plain import printable
from chat_sse.terminal.showing import WHOLE, WRONG, show
from chat_sse.terminal.telling import say

GREETING = "Enter sends, Esc Enter begins a new line, Ctrl-C stops, Ctrl-D leaves. /help"
HELP = """\
/model         the models that you may ask
/model NAME    ask this one from now on
/new           begin a new conversation; the old one is kept if it has a name
/new NAME      the same under a name; one that exists is continued
A question that begins with a slash: put a space before it."""


class Conversation:
    """One person's session; the conversation in it can be changed for another."""

    def __init__(self, client: httpx2.Client, *, model: str | None, name: str | None) -> None:
        """`name`: of the conversation to continue, or to keep. Raises ChatUnusable."""
        self._client = client
        self._model = model
        self._kept: Chat | None
        self._messages: list[Message]
        self._begin(name or "")

    def run(self) -> int:
        """Ask until the person leaves. Returns the exit code."""
        click.echo(GREETING)
        while True:
            try:
                self._take(self._session.prompt("> "))
            except KeyboardInterrupt:  # an answer's does not come here
                continue
            except EOFError:
                return WHOLE
            except ChatUnusable as exc:
                say(WRONG, str(exc))
            except UnicodeError:
                say(WRONG, "the question is not valid UTF-8")

    def _take(self, line: str) -> None:
        first, _, rest = line.partition(" ")
        match first:
            case "/model":
                self._choose(rest.strip())
            case "/new":
                self._begin(rest.strip())
            case "/help":
                click.echo(HELP)
            case _ if first.startswith("/") and first[1:].isalpha():
                say(WRONG, f"there is no command {first}; with a space before it, it is a question")
            case _ if line.strip():
                self._ask(line.strip())

    def _ask(self, text: str) -> None:
        """Ask, and keep what has been read, even if it is not the whole answer."""
        asked = Message(role="user", content=text)
        messages = newest([*self._messages, asked])
        body = msgspec.json.encode(AskRequest(messages=messages, model=self._model))
        _, answer = show(AnswerReader(self._client, body))
        click.echo()
        if answer:
            replied = Message(role="assistant", content=answer)
            self._messages = [*messages, replied]
            if self._kept:
                self._kept.add(asked, replied)

    def _begin(self, name: str) -> None:
        kept = Chat(name) if name else None
        self._kept, self._messages = kept, kept.load() if kept else []
        # What was asked is at the arrow keys, and on disk nowhere but in the conversation.
        questions = [str(message.content) for message in self._messages if message.role == "user"]
        self._session = PromptSession[str](
            history=InMemoryHistory(questions), multiline=True, key_bindings=_keys(), prompt_continuation="  "
        )
        if self._messages:
            click.echo(f"{name}: {len(questions)} questions so far")

    def _choose(self, name: str) -> None:
        if name:
            self._model = name
        elif me := standing(self._client):
            for number, model in enumerate(me.models):
                is_asked = model == self._model if self._model else number == 0
                click.echo(printable(f"{'*' if is_asked else ' '} {model}"))
        else:
            say(WRONG, "the service does not say which models it has")


def _keys() -> KeyBindings:
    """Let Enter send and Esc Enter begin a line; prompt_toolkit has it the other way."""
    keys = KeyBindings()

    @keys.add("enter")
    def send(event: KeyPressEvent) -> None:
        event.current_buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def begin_a_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return keys
