"""Settings: read once, told all at once, and listed the same in three places."""

import re
from pathlib import Path

import pytest

from chat_sse.settings import Settings, SettingsError, load_settings, variable

ROOT = Path(__file__).parent.parent
VARIABLES = [variable(field) for field in Settings.__struct_fields__]


def load(**environ: str) -> Settings:
    return load_settings(environ, env_file=None)


def test_nothing_set_gives_the_defaults() -> None:
    settings = load()
    assert settings == Settings()
    assert (settings.host, settings.port, settings.allowed_origin) == (
        "127.0.0.1",
        8000,
        ("http://localhost:3000",),
    )


def test_text_becomes_numbers_flags_lists_and_paths() -> None:
    settings = load(
        ALLOWED_ORIGIN="https://a.example, https://b.example",
        CHAT_SSE_PORT="9000",
        CHAT_SSE_IDLE_TIMEOUT="2.5",
        CHAT_SSE_CORS_CREDENTIALS="True",
        CHAT_SSE_LOG_LEVEL="DEBUG",
        CHAT_SSE_LOCAL_MODEL="/models/a.gguf",
    )
    assert settings.allowed_origin == ("https://a.example", "https://b.example")
    assert (settings.port, settings.idle_timeout, settings.cors_credentials) == (9000, 2.5, True)
    assert (settings.log_level, settings.local_model) == ("debug", Path("/models/a.gguf"))


def test_an_empty_variable_counts_as_not_set() -> None:
    assert load(OPENAI_API_KEY="", CHAT_SSE_PORT=" ") == Settings()


def test_plain_port_is_honoured_and_our_own_wins() -> None:
    assert load(PORT="1234").port == 1234
    assert load(PORT="1234", CHAT_SSE_PORT="4321").port == 4321


def test_the_environment_wins_over_the_env_file(tmp_path: Path) -> None:
    env_file = tmp_path / ".env"
    env_file.write_text(
        "OPENAI_MODEL=from-file\nCHAT_SSE_PORT=1\n# a comment\nCHAT_SSE_SYSTEM_PROMPT='Be $brief'\n"
    )
    settings = load_settings({"OPENAI_MODEL": "from-environment"}, env_file)
    assert (settings.openai_model, settings.port) == ("from-environment", 1)
    assert settings.system_prompt == "Be $brief"


def test_all_faults_are_told_at_once_by_name_and_never_by_value() -> None:
    with pytest.raises(SettingsError) as caught:
        load(
            CHAT_SSE_PORT="canary-1",
            CHAT_SSE_IDLE_TIMEOUT="nan",
            CHAT_SSE_LOG_FORMAT="canary-2",
            CHAT_SSE_CORS_CREDENTIALS="canary-3",
            OPENAI_BASE_URL="canary-4",
            ALLOWED_ORIGIN="canary-5",
        )
    assert {fault.split()[0] for fault in caught.value.faults} == {
        "ALLOWED_ORIGIN",
        "CHAT_SSE_CORS_CREDENTIALS",
        "CHAT_SSE_IDLE_TIMEOUT",
        "CHAT_SSE_LOG_FORMAT",
        "CHAT_SSE_PORT",
        "OPENAI_BASE_URL",
    }
    assert "canary" not in str(caught.value)


def test_any_origin_with_credentials_is_refused() -> None:
    with pytest.raises(SettingsError, match="CORS_CREDENTIALS"):
        load(ALLOWED_ORIGIN="*", CHAT_SSE_CORS_CREDENTIALS="true")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("CHAT_SSE_RATE_LIMIT", "60"),
        ("CHAT_SSE_RATE_LIMIT", "0/minute"),
        ("CHAT_SSE_RATE_LIMIT_TOTAL", "1/fortnight"),
        ("CHAT_SSE_TOKEN_BUDGET", "1000000/minute"),
        ("CHAT_SSE_TOKEN_BUDGET", "4096/day"),  # one answer may have as many
        ("CHAT_SSE_TOKEN_BUDGET_TOTAL", "-1/day"),
        ("CHAT_SSE_TRUSTED_PROXIES", "*"),
        ("CHAT_SSE_TRUSTED_PROXIES", "10.0.0.0/33"),
    ],
)
def test_a_limit_that_limits_nothing_or_all_is_a_fault(variable: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"^{variable} must be"):
        load(**{variable: value})


def test_readers_that_are_sent_away_need_the_time_to_come_back() -> None:
    assert load(CHAT_SSE_MAX_CONNECTION_AGE="600").max_connection_age == 600
    with pytest.raises(
        SettingsError, match=r"^CHAT_SSE_MAX_CONNECTION_AGE needs a CHAT_SSE_DISCONNECT_GRACE"
    ):
        load(CHAT_SSE_MAX_CONNECTION_AGE="600", CHAT_SSE_DISCONNECT_GRACE="1")


def test_limits_can_be_switched_off() -> None:
    names = ("RATE_LIMIT", "RATE_LIMIT_TOTAL", "TOKEN_BUDGET", "TOKEN_BUDGET_TOTAL")
    settings = load(**{f"CHAT_SSE_{name}": "off" for name in names})
    assert {getattr(settings, name.lower()) for name in names} == {"off"}


def test_an_env_file_that_is_no_text_is_a_fault_like_any_other(tmp_path: Path) -> None:
    env_file = tmp_path / ".env"
    env_file.write_bytes(b"OPENAI_API_KEY=\xff\xfe")
    with pytest.raises(SettingsError, match="cannot be read"):
        load_settings({}, env_file)


def test_a_settings_repr_shows_no_value() -> None:
    assert "canary" not in repr(load(OPENAI_API_KEY="canary"))


def test_the_example_file_lists_every_variable_with_its_default() -> None:
    lines = re.findall(r"^#?([A-Z_]+)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE)
    assert [name for name, _ in lines] == VARIABLES
    assert load_settings(dict(lines), env_file=None) == Settings()


def test_the_readme_lists_every_variable_with_its_default() -> None:
    rows = re.findall(r"^\| `([A-Z_]+)` \| ([^|]*) \|", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert [name for name, _ in rows] == VARIABLES
    for field, (name, told) in zip(Settings.__struct_fields__, rows, strict=True):
        default = getattr(Settings(), field)
        if default is None or default == ():
            assert "`" not in told, name
        else:
            text = ",".join(default) if isinstance(default, tuple) else str(default)
            assert told.strip() in (f"`{text}`", f"`{text.lower()}`"), name


def test_the_readme_groups_the_variables_as_the_example_file_does() -> None:
    example, readme = ((ROOT / name).read_text() for name in (".env.example", "README.md"))
    groups = [
        (re.split("[.:]", title)[0], re.findall(r"^([A-Z_]+)=", body, re.MULTILINE))
        for title, body in re.findall(r"^# --- (.*)\n((?:(?!# ---).*\n)*)", example, re.MULTILINE)
    ]
    shown = [
        (title, names)
        for title, body in re.findall(r"^### (.*)\n((?:(?!##).*\n)*)", readme, re.MULTILINE)
        if (names := re.findall(r"^\| `([A-Z_]+)` \|", body, re.MULTILINE))
    ]
    assert shown == groups


@pytest.mark.parametrize("url", ["redis://h", "rediss://:secret@h:6380/1", "unix:///run/redis.sock?db=2"])
def test_a_redis_url_allows_several_workers(url: str) -> None:
    assert load(CHAT_SSE_REDIS_URL=url, CHAT_SSE_WORKERS="4").redis_url == url


@pytest.mark.parametrize(
    "url", ["localhost:6379", "http://:secret@h", "redis://", "redis://:secret@h:port", "unix://"]
)
def test_a_wrong_redis_url_is_a_fault_and_is_not_echoed(url: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(CHAT_SSE_REDIS_URL=url)
    [fault] = caught.value.faults
    assert fault.startswith("CHAT_SSE_REDIS_URL must be")
    assert "secret" not in fault
