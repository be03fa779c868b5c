"""How the service is set up: one frozen struct, read once from the environment and `.env`.

OpenAI's variables and `ALLOWED_ORIGIN` keep their names, all others carry the prefix `CHAT_SSE_`.
The environment wins over `.env`; an empty value counts as not set.
"""

import re
from collections.abc import Iterator, Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit

import msgspec
from dotenv import dotenv_values
from msgspec import Meta

from chat_sse.models_file import Defaults, read_models_file
from chat_sse.target import Target, base_url_faults, body_faults, header_faults

Seconds: TypeAlias = Annotated[
    float, Meta(gt=0, le=86_400, description="a number of seconds above 0, at most 86400")
]
SecondsOrNone: TypeAlias = Annotated[
    float, Meta(ge=0, le=86_400, description="a number of seconds, 0 to 86400")
]
Count: TypeAlias = Annotated[int, Meta(ge=1, le=10_000_000, description="a whole number above 0")]
Bytes: TypeAlias = Annotated[
    int, Meta(ge=1024, le=2**40, description="a whole number of bytes, 1024 or more")
]
Flag: TypeAlias = Annotated[bool, Meta(description="true or false")]
Names: TypeAlias = Annotated[tuple[str, ...], Meta(description="names, separated by commas")]
JsonObject: TypeAlias = Annotated[dict[str, Any], Meta(description="a JSON object")]
JsonHeaders: TypeAlias = Annotated[dict[str, str], Meta(description="a JSON object of text values")]
RateOrOff: TypeAlias = Annotated[
    str,
    Meta(
        pattern=r"^(off|[1-9][0-9]{0,8}/(second|minute|hour|day))$",
        description="off, or a number a second, minute, hour or day, such as 60/minute",
    ),
]
BudgetOrOff: TypeAlias = Annotated[
    str,
    Meta(
        pattern=r"^(off|[1-9][0-9]{0,14}/(day|month))$",
        description="off, or tokens a day or month, such as 1000000/day",
    ),
]

_ORIGIN = re.compile(r"https?://[^/?#@\s]+")
_HOST = re.compile(r"\*|\[[0-9A-Fa-f:.]+\]|[^\s/:@\[\]*]+")
# A key's name goes into logs, and before a slash into names of ours; without dots it is no address either.
_KEY_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
# What a bearer header can carry (RFC 6750, 2.1), and long enough that nobody can try them all.
MIN_SECRET_CHARS = 16
_SECRET = re.compile(rf"[A-Za-z0-9._~+/-]{{{MIN_SECRET_CHARS},512}}={{0,2}}")
_NO_PREFIX = ("openai_", "allowed_origin")


class SettingsError(Exception):
    """One or more variables are wrong; `faults` names each, without its value."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = faults


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything an operator can set. Times are in seconds, sizes in bytes."""

    openai_api_key: str | None = None
    openai_base_url: str | None = None
    openai_org_id: str | None = None
    openai_project_id: str | None = None
    openai_model: str | None = None
    request_body: JsonObject = {}
    request_headers: JsonHeaders = {}
    fallback_models: Names = ()
    models_file: tuple[Target, ...] = ()
    safety_identifier: Flag = True
    allowed_origin: Names = ("http://localhost:3000",)
    api_keys: Names = ()
    secret_key: str | None = None
    allowed_hosts: Names = ()
    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65_535, description="a port number, 0 to 65535")] = 8000
    workers: Annotated[int, Meta(ge=1, le=256, description="a whole number, 1 to 256")] = 1
    models: Names = ()
    system_prompt: str | None = None
    max_output_tokens: Count = 4096
    max_body_bytes: Bytes = 1_048_576
    max_messages: Count = 200
    max_chars: Count = 100_000
    long_conversations: Annotated[Literal["refuse", "newest"], Meta(description="refuse or newest")] = (
        "refuse"
    )
    image_urls: Annotated[Literal["any", "data"], Meta(description="any or data")] = "any"
    trusted_proxies: Names = ()
    rate_limit: RateOrOff = "60/minute"
    rate_limit_total: RateOrOff = "600/minute"
    max_streams_per_client: Count = 10
    max_streams: Count = 1000
    max_share: Annotated[int, Meta(ge=1, le=100, description="a percentage, 1 to 100")] = 50
    token_budget: BudgetOrOff = "200000/day"  # noqa: S105 - tokens of language
    token_budget_total: BudgetOrOff = "1000000/day"  # noqa: S105
    connect_timeout: Seconds = 5
    accept_wait: SecondsOrNone = 5
    first_token_timeout: Seconds = 120
    idle_timeout: Seconds = 60
    total_timeout: Seconds = 600
    heartbeat: Seconds = 15
    receive_timeout: Seconds = 30
    keep_alive: Seconds = 75
    send_timeout: Seconds = 30
    disconnect_grace: SecondsOrNone = 15
    shutdown_grace: SecondsOrNone = 8
    stream_ttl: Seconds = 300
    max_kept_streams: Count = 1000
    max_kept_bytes: Bytes = 67_108_864
    redis_url: str | None = None
    redis_prefix: Annotated[
        str,
        Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}$", description="1 to 64 letters, digits and _ . -"),
    ] = "chat_sse"
    cors_credentials: Flag = False
    default_format: str = "sse"
    """The name of a format in `formats.FORMATS`, in any case; checked where the application is built."""
    local_model: Path | None = None
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Meta(description="one of debug, info, warning, error"),
    ] = "info"
    log_format: Annotated[Literal["text", "json"], Meta(description="text or json")] = "text"

    def __repr__(self) -> str:
        """Name the type only: a field may hold a secret, and a repr ends in logs."""
        return "Settings(…)"

    @property
    def needs_local_model(self) -> bool:
        """Whether no other upstream is set, so that the embedded model answers."""
        return not (self.models_file or self.openai_api_key or self.openai_base_url)


def variable(field: str) -> str:
    """Return the environment variable of a field: `stream_ttl` is `CHAT_SSE_STREAM_TTL`."""
    name = field.upper()
    return name if field.startswith(_NO_PREFIX) else f"CHAT_SSE_{name}"


def load_settings(environ: Mapping[str, str], env_file: Path | None = Path(".env")) -> Settings:
    """Read the settings. Raises SettingsError with every fault at once."""
    faults: list[str] = []
    values = {**_read_env_file(env_file, faults), **environ}
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
        faults += _contradictions_to_file(settings)
    faults += _contradictions(settings)
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


def _contradictions_to_file(settings: Settings) -> Iterator[str]:
    """Yield what is said twice: with a file, the file alone says which models there are."""
    for field in ("models", "fallback_models"):
        if getattr(settings, field):
            yield f"{variable(field)} must not be set beside CHAT_SSE_MODELS_FILE, which says it"
    names = [target.name for target in settings.models_file]
    if names and settings.openai_model not in (None, *names):
        yield "OPENAI_MODEL must be one of the names in CHAT_SSE_MODELS_FILE"


def _read_env_file(path: Path | None, faults: list[str]) -> dict[str, str]:
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


def _contradictions(settings: Settings) -> Iterator[str]:
    """Yield the faults that need more than one variable, or more than a type, to be seen."""
    for origin in settings.allowed_origin:
        if origin != "*" and not _ORIGIN.fullmatch(origin):
            yield "ALLOWED_ORIGIN must be * or origins such as https://chat.example.org, with commas between"
    if "*" in settings.allowed_origin and settings.cors_credentials:
        yield "ALLOWED_ORIGIN=* and CHAT_SSE_CORS_CREDENTIALS=true would let any page act for a visitor"
    yield from _faults_of_keys(settings.api_keys)
    if settings.secret_key is not None and len(settings.secret_key) < MIN_SECRET_CHARS:
        yield f"CHAT_SSE_SECRET_KEY must have {MIN_SECRET_CHARS} characters or more"
    if not all(_HOST.fullmatch(host) for host in settings.allowed_hosts):
        yield "CHAT_SSE_ALLOWED_HOSTS must be * or host names without scheme and port, with commas between"
    if settings.openai_base_url is not None:
        yield from base_url_faults("OPENAI_BASE_URL", settings.openai_base_url)
    yield from body_faults(variable("request_body"), settings.request_body, settings.max_output_tokens)
    yield from header_faults(variable("request_headers"), settings.request_headers)
    yield from _limits_that_refuse_all(settings)
    if settings.redis_url is not None and not _is_redis_url(settings.redis_url):
        yield "CHAT_SSE_REDIS_URL must be a redis, rediss or unix URL, such as redis://127.0.0.1:6379/0"


def _is_redis_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return (parts.scheme in ("redis", "rediss") and bool(parts.hostname) and parts.port != 0) or (
            parts.scheme == "unix" and bool(parts.path)
        )
    except ValueError:  # a port that is no number
        return False


def _limits_that_refuse_all(settings: Settings) -> Iterator[str]:
    for proxy in settings.trusted_proxies:
        if not _is_network(proxy):
            yield "CHAT_SSE_TRUSTED_PROXIES must be addresses or networks, such as 10.0.0.0/8"
            break
    for field in ("token_budget", "token_budget_total"):
        tokens = getattr(settings, field).partition("/")[0]
        if tokens != "off" and int(tokens) <= settings.max_output_tokens:
            yield f"{variable(field)} must be above CHAT_SSE_MAX_OUTPUT_TOKENS: no question would fit"


def _is_network(text: str) -> bool:
    try:
        ip_network(text, strict=False)
    except ValueError:
        return False
    return True


def _faults_of_keys(entries: tuple[str, ...]) -> Iterator[str]:
    pairs = [entry.partition(":")[::2] for entry in entries]
    if not all(_KEY_NAME.fullmatch(name) and _SECRET.fullmatch(secret) for name, secret in pairs):
        yield (
            "CHAT_SSE_API_KEYS must be name:secret with commas between: names of letters, digits, _ and -, "
            f"secrets of {MIN_SECRET_CHARS} or more letters, digits and ._~+/-"
        )
    if len({name for name, _ in pairs}) < len(pairs):
        yield "CHAT_SSE_API_KEYS must not use a name twice"
    if len({secret for _, secret in pairs}) < len(pairs):
        yield "CHAT_SSE_API_KEYS must not use a secret twice"
