"""The file of `CHAT_SSE_MODELS_FILE`: a TOML table for each name that clients may use.

    [fast]
    model = "deepseek-chat"
    base_url = "https://api.deepseek.com/v1"
    api_key_env = "DEEPSEEK_API_KEY"
    body = { top_p = 0.9 }
    headers = { X-Team = "web" }
    fallbacks = ["small"]

All keys are optional: `model` is the table's name, and a table without `base_url` is asked where a question
without this file would be, with the key and the headers of there. A key is never sent to another host than
the one that it was given for.
"""

import tomllib
from collections.abc import Iterator, Mapping
from datetime import date, datetime, time
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import msgspec

from chat_sse.target import Target, base_url_faults, body_faults, header_faults

VARIABLE = "CHAT_SSE_MODELS_FILE"
# As the requests' `model` field allows.
MAX_NAME_CHARS = 200

_Text: TypeAlias = Annotated[str, msgspec.Meta(min_length=1)]
_KEYS: dict[str, tuple[Any, str]] = {
    "model": (_Text, "text"),
    "base_url": (_Text, "text"),
    "api_key_env": (_Text, "the name of a variable"),
    "body": (dict[str, Any], "a table"),
    "headers": (dict[str, str], "a table of text"),
    "fallbacks": (tuple[_Text, ...], "a list of names"),
}


class Defaults(msgspec.Struct, frozen=True, kw_only=True):
    """What the environment says about every upstream."""

    base_url: str | None
    api_key: str | None
    body: Mapping[str, Any]
    headers: Mapping[str, str]
    max_output_tokens: int


def read_models_file(
    path: Path, environ: Mapping[str, str], defaults: Defaults, faults: list[str]
) -> tuple[Target, ...]:
    """Read the file. Every fault in it is added to `faults`; the result counts only if there is none."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        faults.append(f"{VARIABLE} cannot be read: {exc.strerror}")
        return ()
    except UnicodeDecodeError:
        faults.append(f"{VARIABLE} cannot be read: it is not UTF-8")
        return ()
    except tomllib.TOMLDecodeError as exc:
        # The message may quote the line; what follows "at" is only its place.
        faults.append(f"{VARIABLE} is not TOML, at {str(exc).rpartition('(at ')[2].rstrip(')')}")
        return ()
    if not tables:
        faults.append(f"{VARIABLE} names no model")
    targets: list[Target] = []
    for name, table in tables.items():
        where = f"{VARIABLE}: [{name}]"
        if not isinstance(table, dict) or not 0 < len(name) <= MAX_NAME_CHARS:
            faults.append(f"{VARIABLE}: {name[:MAX_NAME_CHARS]} must be a table, such as [fast]")
            continue
        fields = _fields(where, table, faults)
        faults += _faults_of(where, fields, environ, defaults)
        if not {*fields.get("fallbacks", ())} <= tables.keys() - {name}:
            faults.append(f"{where} fallbacks must be names of other tables of the file")
        targets.append(_target(name, fields, environ, defaults))
    return tuple(targets)


def _fields(where: str, table: Mapping[str, Any], faults: list[str]) -> dict[str, Any]:
    """Return what is well-typed of a table."""
    fields: dict[str, Any] = {}
    for key, value in table.items():
        if key not in _KEYS:
            faults.append(f"{where} has an unknown key: it may have {', '.join(_KEYS)}")
            continue
        kind, told = _KEYS[key]
        try:
            fields[key] = msgspec.convert(value, kind)
        except msgspec.ValidationError:
            faults.append(f"{where} {key} must be {told}")
    return fields


def _faults_of(
    where: str, fields: Mapping[str, Any], environ: Mapping[str, str], defaults: Defaults
) -> Iterator[str]:
    if "base_url" in fields:
        yield from base_url_faults(f"{where} base_url", fields["base_url"])
    body = fields.get("body", {})
    yield from body_faults(f"{where} body", body, defaults.max_output_tokens)
    if not _is_json(body):
        yield f"{where} body must hold no dates, times, infinities and nan: JSON has none"
    yield from header_faults(f"{where} headers", fields.get("headers", {}))
    if "api_key_env" in fields and not environ.get(fields["api_key_env"], "").strip():
        yield f"{where} api_key_env names a variable that is not set"
    elif not fields.keys() & {"api_key_env", "base_url"} and not (defaults.base_url or defaults.api_key):
        yield f"{where} needs api_key_env or base_url, or OPENAI_API_KEY in the environment"


def _is_json(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_is_json, value.values()))
    if isinstance(value, list):
        return all(map(_is_json, value))
    if isinstance(value, float):
        return value - value == 0  # neither inf nor nan
    return not isinstance(value, (date, datetime, time))


def _target(name: str, fields: Mapping[str, Any], environ: Mapping[str, str], defaults: Defaults) -> Target:
    base_url, key = fields.get("base_url"), fields.get("api_key_env")
    headers = fields.get("headers", {})
    return Target(
        name=name,
        model=fields.get("model", name),
        base_url=base_url or defaults.base_url,
        api_key=environ.get(key, "").strip() if key else None if base_url else defaults.api_key,
        body={**defaults.body, **fields.get("body", {})},
        headers=headers if base_url else _merged(defaults.headers, headers),
        fallbacks=tuple(dict.fromkeys(fields.get("fallbacks", ()))),
    )


def _merged(headers: Mapping[str, str], more: Mapping[str, str]) -> dict[str, str]:
    """Return both, the second winning where a name differs only in its case."""
    names = {name.lower() for name in more}
    return {**{name: value for name, value in headers.items() if name.lower() not in names}, **more}
