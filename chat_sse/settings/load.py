"""Reads the settings from the environment and `.env`.

The environment wins over `.env`; an empty value counts as not set.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec
from dotenv import dotenv_values
from msgspec import Meta

from chat_sse.models_file import Defaults, read_models_file
from chat_sse.settings.checks import contradictions, contradictions_to_file
from chat_sse.settings.fields import Settings, variable
from chat_sse.target import Target


class SettingsError(Exception):
    """One or more variables are wrong; `faults` names each, without its value."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = faults


def load_settings(environ: Mapping[str, str], env_file: Path | None = Path(".env")) -> Settings:
    """Read the settings. Raises SettingsError with every fault at once."""
    faults: list[str] = []
    values = {**read_env_file(env_file, faults), **environ}
    port = values.get(variable("port")) or values.get("PORT")  # PORT is what container platforms set
    if port:
        values[variable("port")] = port
    fields: dict[str, Any] = {}
    for field, kind in get_type_hints(Settings, include_extras=True).items():
        text = values.get(variable(field), "").strip()
        if not text:
            continue
        try:
            fields[field] = Path(text).expanduser() if field == "models_file" else _convert(text, kind)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            faults.append(f"{variable(field)} must be {_description(kind)}")
    models_file = fields.pop("models_file", None)
    settings = Settings(**fields)
    if models_file is not None:
        settings = msgspec.structs.replace(
            settings, models_file=_models(models_file, values, settings, faults)
        )
        faults += contradictions_to_file(settings)
    faults += contradictions(settings)
    if faults:
        raise SettingsError(faults)
    return settings


def _models(
    path: Path, environ: Mapping[str, str], settings: Settings, faults: list[str]
) -> tuple[Target, ...]:
    defaults = Defaults(
        base_url=settings.openai_base_url,
        api_key=settings.openai_api_key,
        body=settings.request_body,
        headers=settings.request_headers,
        max_output_tokens=settings.max_output_tokens,
    )
    return read_models_file(path, environ, defaults, faults)


def read_env_file(path: Path | None, faults: list[str]) -> dict[str, str]:
    """Return the variables of a file, if it is there. That it cannot be read is added to `faults`."""
    if path is None or not path.is_file():
        return {}
    try:
        return {name: value or "" for name, value in dotenv_values(path, interpolate=False).items()}
    except (OSError, UnicodeDecodeError) as exc:
        faults.append(f"{path} cannot be read: {type(exc).__name__}")
        return {}


def _convert(text: str, kind: Any) -> Any:
    bare = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    if get_origin(bare) is tuple:
        return tuple(part.strip() for part in text.split(",") if part.strip())
    if get_origin(bare) is dict:
        return msgspec.json.decode(text, type=bare)
    if bare == Path | None:
        return Path(text).expanduser()
    if bare is bool or get_origin(bare) is Literal:
        text = text.lower()
    return msgspec.convert(text, kind, strict=False)


def _description(kind: Any) -> str:
    metas = [meta for meta in getattr(kind, "__metadata__", ()) if isinstance(meta, Meta)]
    return next((meta.description for meta in metas if meta.description), "text")
