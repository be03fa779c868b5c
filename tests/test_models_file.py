"""The models file, the README's table of upstreams, and what each makes upstream receive."""

import re
from pathlib import Path
from typing import Any

import pytest

from chat_sse.settings import Settings, SettingsError, load_settings
from tests.conftest import QUICK
from tests.support.readme import README
from tests.support.service import HELLO, ask, events, serve, text_of
from tests.support.upstream import ScriptedUpstream


def load(folder: Path, text: str, **environ: str) -> Settings:
    file = folder / "models.toml"
    file.write_text(text)
    return load_settings({"CHAT_SSE_MODELS_FILE": str(file), **environ}, env_file=None)


def faults(folder: Path, text: str, **environ: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load(folder, text, **environ)
    assert "canary" not in str(caught.value)
    return caught.value.faults


def test_a_table_takes_what_it_does_not_say_from_the_environment(tmp_path: Path) -> None:
    text = """
        [fast]
        [other]
        model = "real"
        base_url = "https://h.example/v1"
        api_key_env = "OTHER_KEY"
        body = { top_p = 0.9, max_tokens = 10 }
        headers = { x-team = "b" }
        fallbacks = ["fast", "fast"]
        [open]
        base_url = "http://127.0.0.1:1/v1"
    """
    more = {"CHAT_SSE_REQUEST_BODY": '{"top_p":0.1,"seed":1}', "CHAT_SSE_REQUEST_HEADERS": '{"X-Team":"a"}'}
    settings = load(tmp_path, text, OPENAI_API_KEY="sk-1", OTHER_KEY="sk-2", **more)
    fast, other, free = settings.models_file
    assert (fast.model, fast.base_url, fast.api_key, fast.headers) == ("fast", None, "sk-1", {"X-Team": "a"})
    assert (other.model, other.api_key, other.fallbacks) == ("real", "sk-2", ("fast",))
    assert other.body == {"top_p": 0.9, "seed": 1, "max_tokens": 10}
    assert other.headers == {"x-team": "b"}
    assert (free.api_key, free.headers) == (None, {})  # neither goes to another host
    assert "sk-2" not in repr(other)


def test_all_faults_of_a_file_are_told_at_once_and_without_values(tmp_path: Path) -> None:
    found = faults(
        tmp_path,
        """
        loose = "canary"
        [a]
        model = 1
        base_url = "canary"
        colour = "canary"
        api_key_env = "NOT_SET"
        fallbacks = ["canary"]
        [b]
        base_url = "http://h/v1"
        body = { n = 2, when = 2026-01-01, stream = false, max_tokens = 99999 }
        headers = { Host = "canary" }
        fallbacks = ["b"]
        [c]
        """,
        CHAT_SSE_PORT="canary",
        CHAT_SSE_MODELS="x",
        OPENAI_MODEL="x",
    )
    told = "\n".join(found)
    for part in (
        *("loose must be a table", "[a] model", "[a] base_url", "[a] has an unknown key", "[a] api_key_env"),
        *("[a] fallbacks", "[b] body must not set n", "[b] body must not set stream", "[b] body must set"),
        *("[b] body must hold no dates", "[b] headers", "[b] fallbacks", "[c] needs", "CHAT_SSE_PORT"),
        *("CHAT_SSE_MODELS must not", "OPENAI_MODEL must be one of"),
    ):
        assert part in told, part
    assert len(found) == 16


@pytest.mark.parametrize("text", ["", "[a", 'a = "canary\n', "[a]\n[a]\n"])
def test_a_file_that_says_nothing_is_one_fault(tmp_path: Path, text: str) -> None:
    [fault] = faults(tmp_path, text, OPENAI_API_KEY="sk")
    assert fault.startswith("CHAT_SSE_MODELS_FILE ")


def test_a_file_that_cannot_be_read_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b"\xff")
    for path in (tmp_path / "nothing", tmp_path, tmp_path / "latin"):
        with pytest.raises(SettingsError, match="CHAT_SSE_MODELS_FILE cannot be read"):
            load_settings({"CHAT_SSE_MODELS_FILE": str(path)}, env_file=None)


def test_a_service_whose_file_is_wrong_does_not_start(tmp_path: Path) -> None:
    file = tmp_path / "models.toml"
    file.write_text('[a]\nbase_url = "x"\n[b]\nbody = { n = 1 }\n')
    with (
        pytest.raises(AssertionError, match=r"(?s)\[a\] base_url.*\[b\] body.*\[b\] needs"),
        serve({"CHAT_SSE_MODELS_FILE": str(file)}),
    ):
        pass


def test_each_name_is_asked_at_its_own_server_with_its_own_key(tmp_path: Path) -> None:
    with ScriptedUpstream() as first, ScriptedUpstream() as second:
        file = tmp_path / "models.toml"
        file.write_text(f"""
            [fast]
            model = "real-1"
            base_url = "{first.base_url}"
            api_key_env = "KEY_1"
            [good]
            base_url = "{second.base_url}?v=2"
            body = {{ top_p = 0.5 }}
            headers = {{ X-Team = "web" }}
        """)
        more = {"CHAT_SSE_MODELS_FILE": str(file), "KEY_1": "sk-canary-one"}
        with serve({**QUICK, **more}) as service:
            named = {**HELLO, "model": "good"}
            assert events(ask(service.url))[0]["model"] == "fast"
            assert events(ask(service.url, named))[0]["model"] == "good"
            assert ask(service.url, {**HELLO, "model": "real-1"}).status_code == 400
            assert "canary" not in service.log()
        [one], [two] = first.calls, second.calls
    assert (one.body["model"], one.headers["authorization"]) == ("real-1", "Bearer sk-canary-one")
    assert (two.body["model"], two.body["top_p"], two.headers["x-team"]) == ("good", 0.5, "web")
    assert two.headers["authorization"] == "Bearer none"
    assert two.target == "/v1/chat/completions?v=2"


ROWS = re.findall(
    r"^\| ([\w]+) \| `(https?://\S+)` \| `(\S+)` \| (?:`(CHAT_SSE_\w+)=(\{.*\})` )?\|$", README, re.MULTILINE
)
ENDPOINTS = {
    "DeepSeek": "/v1/chat/completions",
    "Mistral": "/v1/chat/completions",
    "OpenRouter": "/api/v1/chat/completions",
    "Azure": "/openai/v1/chat/completions?api-version=preview",
    "Gemini": "/v1beta/openai/chat/completions",
    "vLLM": "/v1/chat/completions",
    "Ollama": "/v1/chat/completions",
}


def test_the_readmes_table_has_a_row_for_each_upstream() -> None:
    assert [name for name, *_ in ROWS] == list(ENDPOINTS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: str(row[0]))
def test_a_row_of_the_readmes_table_makes_the_request_that_its_upstream_wants(row: Any) -> None:
    name, url, model, variable, value = row
    environ = {"OPENAI_BASE_URL": url, "OPENAI_MODEL": model, **({variable: value} if variable else {})}
    assert load_settings(environ, env_file=None).openai_base_url == url
    with ScriptedUpstream() as upstream:
        place = re.sub(r"^https?://[^/]+", f"http://127.0.0.1:{upstream.port}", url)
        with serve({**QUICK, **environ, "OPENAI_BASE_URL": place}) as service:
            ask(service.url)  # the scripted upstream knows /v1 alone, and refuses the others
        [target] = upstream.targets
    assert target == ENDPOINTS[name]


def test_the_readmes_file_is_one_that_loads(tmp_path: Path) -> None:
    [text] = re.findall(r"^```toml\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    settings = load(tmp_path, text, OPENAI_API_KEY="sk-1", DEEPSEEK_API_KEY="sk-2")
    assert [target.name for target in settings.models_file] == ["fast", "small"]
    assert settings.models_file[0].fallbacks == ("small",)


def test_the_file_alone_needs_no_key_and_no_embedded_model(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    file = tmp_path / "models.toml"
    file.write_text(f'["a/b"]\nbase_url = "{upstream.base_url}"\n')
    with serve({"CHAT_SSE_MODELS_FILE": str(file)}) as service:
        assert text_of(events(ask(service.url))) == "Hello there!"
    assert upstream.calls[0].body["model"] == "a/b"
