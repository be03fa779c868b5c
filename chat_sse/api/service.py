"""What the handlers work with."""

import msgspec

from chat_sse.access.links import Links
from chat_sse.access.origin import Origins
from chat_sse.access.principal import BeforeAsk
from chat_sse.formats.base import Format
from chat_sse.limits.admission import Limits
from chat_sse.limits.bodies import BodyMemory
from chat_sse.messages import Policy
from chat_sse.relay.relay import Relay


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """One running service. Opened by `app.py`, found in the request's state."""

    relay: Relay
    formats: tuple[Format, ...]
    default_format: str
    policy: Policy
    limits: Limits
    bodies: BodyMemory
    origins: Origins
    links: Links
    before_ask: BeforeAsk | None
    max_body_bytes: int
    receive_timeout_seconds: float
    shutdown_grace_seconds: float
