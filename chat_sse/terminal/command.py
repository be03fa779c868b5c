"""`chat-sse ask` and `chat-sse chat`: from the arguments to the exit code."""

import io
import sys
from collections.abc import Callable
from urllib.parse import urlsplit

import httpx2
import msgspec

from chat_sse.messages import AskRequest, Message
from chat_sse.terminal.answer_reader import AnswerReader
from chat_sse.terminal.chats import Chat, ChatUnusable, newest
from chat_sse.terminal.showing import WHOLE, WRONG, show
from chat_sse.terminal.telling import say

# More than any service admits.
MAX_INPUT_CHARS = 32 * 1_048_576
# Heartbeats come more often.
SILENCE_SECONDS = 60.0
CONNECT_SECONDS = 5.0

LOOPBACK = ("127.0.0.1", "localhost", "::1")


class WrongUse(Exception):
    """The command cannot be carried out as it was given."""


def ask_in_terminal(question: str, *, url: str, key: str | None, model: str | None, chat: str | None) -> int:
    """Ask, show the answer, save the conversation. Returns the exit code."""
    return _run(lambda: _ask(question, url, key, model, chat))


def chat_in_terminal(*, url: str, key: str | None, model: str | None, chat: str | None) -> int:
    """Hold a conversation until the person leaves. Returns the exit code."""
    return _run(lambda: _chat(url, key, model, chat))


def _run(command: Callable[[], int]) -> int:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a locale without a letter shall not end in a traceback
            stream.reconfigure(errors="backslashreplace")
    try:
        return command()
    except UnicodeError:
        return say(WRONG, "the question is not valid UTF-8")
    except (ChatUnusable, WrongUse) as exc:
        return say(WRONG, str(exc))


def _ask(question: str, url: str, key: str | None, model: str | None, chat: str | None) -> int:
    kept = Chat(chat) if chat is not None else None
    asked = Message(role="user", content=_whole_question(question))
    messages = newest([*(kept.load() if kept else []), asked])
    body = msgspec.json.encode(AskRequest(messages=messages, model=model))
    with _client(url, key) as client:
        code, text = show(AnswerReader(client, body))
    if kept and code == WHOLE:
        kept.add(asked, Message(role="assistant", content=text))
    return code


def _chat(url: str, key: str | None, model: str | None, chat: str | None) -> int:
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise WrongUse('chat-sse chat needs a terminal; in a pipe it is: chat-sse ask "…"')
    try:
        from chat_sse.terminal.conversation import Conversation  # noqa: PLC0415 - part of an extra
    except ModuleNotFoundError as exc:
        raise WrongUse("chat-sse chat needs the extra `chat`: pip install 'chat-sse[chat]'") from exc
    with _client(url, key) as client:
        return Conversation(client, model=model, name=chat).run()


def _whole_question(question: str) -> str:
    """Return the question with what is piped in. Raises WrongUse when there is nothing to ask."""
    piped = ""
    if question in ("", "-") or not sys.stdin.isatty():
        piped = sys.stdin.read(MAX_INPUT_CHARS)
        if len(piped) == MAX_INPUT_CHARS:
            raise WrongUse("the input is too long")
    parts = ("" if question == "-" else question, piped)
    text = "\n\n".join(part.strip("\n") for part in parts if part.strip())
    if not text:
        raise WrongUse('nothing to ask: chat-sse ask "…"')
    return text


def _client(url: str, key: str | None) -> httpx2.Client:
    """Return a client for the service. Raises WrongUse, which quotes neither the URL nor the key."""
    try:
        parts = urlsplit(url)
        httpx2.URL(url)
    except (ValueError, httpx2.InvalidURL) as exc:
        raise WrongUse("--url is no URL") from exc
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise WrongUse("--url must be an http or https URL")
    if key is not None and not (key.isascii() and key.isprintable() and " " not in key):
        raise WrongUse("--key may hold printable ASCII characters only, and no space")
    try:
        return httpx2.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx2.Timeout(SILENCE_SECONDS, connect=CONNECT_SECONDS),
            trust_env=parts.hostname not in LOOPBACK,  # a proxy does not lead back to this machine
            follow_redirects=False,  # the key is for this host alone
        )
    except (ValueError, httpx2.InvalidURL) as exc:
        raise WrongUse("the proxy that the environment names cannot be used") from exc
