"""What can be set: one field a variable.

OpenAI's variables and `ALLOWED_ORIGIN` keep their names, all others carry the prefix `CHAT_SSE_`.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta

from chat_sse.settings.callers import Callers
from chat_sse.target import Target

SECONDS = "a number of seconds above 0, at most 86400"
Seconds: TypeAlias = Annotated[float, Meta(gt=0, le=86_400, description=SECONDS)]
SecondsOrNone: TypeAlias = Annotated[
    float, Meta(ge=0, le=86_400, description="a number of seconds, 0 to 86400")
]
PORT = "a port number, 0 to 65535"
Port: TypeAlias = Annotated[int, Meta(ge=0, le=65_535, description=PORT)]
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

_NO_PREFIX = ("openai_", "allowed_origin")


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
    jwt_key: str | None = None
    jwt_algorithms: Names = ()
    jwt_issuer: str | None = None
    jwt_audience: Names = ()
    jwt_principal: str = "sub"
    jwt_cookie: str | None = None
    user_header: str | None = None
    may_ask: Names = ()
    login_url: str | None = None
    secret_key: str | None = None
    allowed_hosts: Names = ()
    host: str = "127.0.0.1"
    port: Port = 8000
    root_path: str | None = None
    uds: Path | None = None
    metrics_host: str = "127.0.0.1"
    metrics_port: Annotated[Port | None, Meta(description=PORT)] = None
    traces: Flag = False
    workers: Annotated[int, Meta(ge=1, le=256, description="a whole number, 1 to 256")] = 1
    models: Names = ()
    system_prompt: str | None = None
    system_messages: Annotated[Literal["refuse", "allow"], Meta(description="refuse or allow")] = "refuse"
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
    max_connection_age: Annotated[Seconds | None, Meta(description=SECONDS)] = None
    disconnect_grace: SecondsOrNone = 15
    shutdown_delay: SecondsOrNone = 0
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
    log_format: Annotated[Literal["auto", "text", "json"], Meta(description="auto, text or json")] = "auto"

    def __repr__(self) -> str:
        """Name the type only: a field may hold a secret, and a repr ends in logs."""
        return "Settings(…)"

    @property
    def needs_local_model(self) -> bool:
        """Whether no other upstream is set, so that the embedded model answers."""
        return not (self.models_file or self.openai_api_key or self.openai_base_url)

    @property
    def callers(self) -> Callers:
        """Who may ask."""
        return Callers(**{field: getattr(self, field) for field in Callers.__struct_fields__})


def variable(field: str) -> str:
    """Return the environment variable of a field: `stream_ttl` is `CHAT_SSE_STREAM_TTL`."""
    name = field.upper()
    return name if field.startswith(_NO_PREFIX) else f"CHAT_SSE_{name}"
