"""The faults that need more than one variable, or more than a type, to be seen."""

import re
from collections.abc import Iterator
from ipaddress import ip_network
from urllib.parse import urlsplit

from chat_sse.origins import origin_regex
from chat_sse.settings.callers import MIN_SECRET_CHARS
from chat_sse.settings.fields import Settings, variable
from chat_sse.target import base_url_faults, body_faults, header_faults

_HOST = re.compile(r"\*|\[[0-9A-Fa-f:.]+\]|[^\s/:@\[\]*]+")
_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)+")
# EventSource comes back after the two seconds that the service tells it, and a proxy needs its time.
MIN_RETURN_SECONDS = 5


def contradictions(settings: Settings) -> Iterator[str]:
    """Yield each fault, without the value."""
    yield from _faults_of_origins(settings.allowed_origin)
    if "*" in settings.allowed_origin and settings.cors_credentials:
        yield "ALLOWED_ORIGIN=* and CHAT_SSE_CORS_CREDENTIALS=true would let any page act for a visitor"
    yield from settings.callers.faults()
    if settings.secret_key is not None and len(settings.secret_key) < MIN_SECRET_CHARS:
        yield f"CHAT_SSE_SECRET_KEY must have {MIN_SECRET_CHARS} characters or more"
    if not all(_HOST.fullmatch(host) for host in settings.allowed_hosts):
        yield "CHAT_SSE_ALLOWED_HOSTS must be * or host names without scheme and port, with commas between"
    if settings.root_path is not None and not _PATH.fullmatch(settings.root_path):
        yield "CHAT_SSE_ROOT_PATH must be a path such as /chat, without a slash at its end"
    if settings.openai_base_url is not None:
        yield from base_url_faults("OPENAI_BASE_URL", settings.openai_base_url)
    yield from body_faults(variable("request_body"), settings.request_body, settings.max_output_tokens)
    yield from header_faults(variable("request_headers"), settings.request_headers)
    yield from _limits_that_refuse_all(settings)
    if settings.max_connection_age is not None and settings.disconnect_grace < MIN_RETURN_SECONDS:
        yield (
            f"CHAT_SSE_MAX_CONNECTION_AGE needs a CHAT_SSE_DISCONNECT_GRACE of {MIN_RETURN_SECONDS} or more: "
            "an answer would end before its reader is back"
        )
    if settings.redis_url is not None and not _is_redis_url(settings.redis_url):
        yield "CHAT_SSE_REDIS_URL must be a redis, rediss or unix URL, such as redis://127.0.0.1:6379/0"


def _faults_of_origins(origins: tuple[str, ...]) -> Iterator[str]:
    for number, origin in enumerate(origins, 1):
        try:
            origin_regex("http://any" if origin == "*" else origin)
        except ValueError as exc:
            yield f"ALLOWED_ORIGIN must be * or origins with commas between; number {number}: {exc}"


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
        if proxy != "unix" and not _is_network(proxy):
            yield "CHAT_SSE_TRUSTED_PROXIES must be addresses or networks, such as 10.0.0.0/8, or unix"
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


def contradictions_to_file(settings: Settings) -> Iterator[str]:
    """Yield what is said twice: with a file, the file alone says which models there are."""
    for field in ("models", "fallback_models"):
        if getattr(settings, field):
            yield f"{variable(field)} must not be set beside CHAT_SSE_MODELS_FILE, which says it"
    names = [target.name for target in settings.models_file]
    if names and settings.openai_model not in (None, *names):
        yield "OPENAI_MODEL must be one of the names in CHAT_SSE_MODELS_FILE"
