"""What is set, and where: for the operator's eyes, without secrets."""

import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from chat_sse.settings.fields import Settings, variable
from chat_sse.settings.load import read_env_file

HIDDEN = "***"
_SECRET = ("openai_api_key", "secret_key", "jwt_key")
_URLS = ("openai_base_url", "redis_url")
_PLATFORM_PORT = "PORT"


def shown(
    environ: Mapping[str, str], overridden: Collection[str] = (), env_file: Path = Path(".env")
) -> Iterator[tuple[str, str, str]]:
    """Yield each variable's name, its value, and where it comes from.

    `overridden`: the variables that the command line has put into the environment.
    """
    in_file = read_env_file(env_file, [])
    for field in Settings.__struct_fields__:
        name = variable(field)
        candidates = [(environ, name, "environment"), (in_file, name, str(env_file))]
        if field == "port":
            candidates += [
                (environ, _PLATFORM_PORT, "environment, PORT"),
                (in_file, _PLATFORM_PORT, ".env, PORT"),
            ]
        for place, key, source in candidates:
            if text := place.get(key, "").strip():
                yield name, _without_secrets(field, text), "command line" if name in overridden else source
                break
        else:
            yield name, _default(getattr(Settings(), field)), "default"


def _default(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, tuple):
        return ",".join(value)
    return json.dumps(value) if isinstance(value, bool | dict) else str(value)


def _without_secrets(field: str, text: str) -> str:
    """Return a value as one line that may be shown: URLs without passwords and queries, keys as names."""
    if field in _SECRET:
        return HIDDEN
    if field == "api_keys":
        return ",".join(f"{entry.partition(':')[0].strip()}:{HIDDEN}" for entry in text.split(","))
    if field in _URLS:
        return _public(text)
    if field in ("request_headers", "request_body"):
        try:
            return json.dumps(dict.fromkeys(json.loads(text), HIDDEN))
        except (TypeError, ValueError):
            return HIDDEN
    return text if text.isprintable() else repr(text)


def _public(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:
        return HIDDEN
    user, at, host = parts.netloc.rpartition("@")
    netloc = f"{HIDDEN if user else ''}{at}{host}"
    return parts._replace(netloc=netloc, query=HIDDEN if parts.query else "", fragment="").geturl()
