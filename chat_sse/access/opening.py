"""From the settings to what tells callers apart."""

from chat_sse.access.authentication import TokenReader, Ways
from chat_sse.access.keys import KeyRing
from chat_sse.settings import Settings, SettingsError, variable
from chat_sse.settings.callers import ANONYMOUS, JWT, KEYS, PROXY
from chat_sse.settings.extras import extra_faults


def open_ways(settings: Settings, *, asks_application: bool = False) -> Ways:
    """Return the ways in that are open. Nothing connects. Raises SettingsError for a key that is none.

    `asks_application`: an application around the service knows people of its own; then nobody else is let in
    without a credential, unless the settings say so.
    """
    callers = settings.callers
    return Ways(
        keys=KeyRing(settings.api_keys if KEYS in callers.ways else ()),
        tokens=_tokens(settings, settings.jwt_key) if settings.jwt_key and JWT in callers.ways else None,
        cookie=settings.jwt_cookie.encode() if settings.jwt_cookie else None,
        user_header=(
            settings.user_header.lower().encode() if settings.user_header and PROXY in callers.ways else None
        ),
        anonymous=ANONYMOUS in (settings.may_ask if asks_application else callers.ways),
    )


def _tokens(settings: Settings, key: str) -> TokenReader:
    if faults := extra_faults(variable("jwt_key"), "jwt", "jwt", "cryptography"):
        raise SettingsError(faults)
    from chat_sse.access.jwks import JwksKeys  # noqa: PLC0415 - part of an extra
    from chat_sse.access.jwt import StaticKey, Tokens  # noqa: PLC0415

    callers = settings.callers
    try:
        keys = JwksKeys(key) if callers.key_is_url else StaticKey(key, callers.algorithms)
    except ValueError as exc:
        raise SettingsError([f"CHAT_SSE_JWT_KEY {exc}"]) from None
    return Tokens(
        keys,
        algorithms=callers.algorithms,
        issuer=settings.jwt_issuer,
        audience=settings.jwt_audience,
        principal_claim=settings.jwt_principal,
    )
