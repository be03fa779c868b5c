"""The rules that a request's head must meet before anything else is done with it. Pure.

Sources: RFC 9112, 3.2 "Request Target" and 6.1 "Transfer-Encoding"; RFC 9110, 7.2 "Host and :authority";
RFC 6585, 5 "431 Request Header Fields Too Large".
"""

import re
from collections.abc import Sequence

from chat_sse.errors import HeadTooLarge, InvalidRequest, MethodNotAllowed

# The limit of uvicorn's protocol on h11. A question in a URL must fit in, with cookies and a proxy's fields.
MAX_HEAD_BYTES = 65_536
# Browsers send some 20. Each costs more memory than its bytes, until its answer has been read.
MAX_HEADERS = 100

# A name, an IPv4 or a bracketed IPv6 address, and a port. RFC 3986 also allows `!$&'()*+,;=~%` in a name: no
# real one has them, and URL parsers disagree about them. Containers have `_` in their names.
_HOST = re.compile(rb"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")


def check_head(version: str, method: bytes, url: bytes, fields: Sequence[tuple[bytes, bytes]]) -> None:
    """Check a complete head. `version`: such as "1.1". `fields`: names in lower case.

    Raises HeadTooLarge, MethodNotAllowed, and InvalidRequest where the framing or the host is ambiguous: two
    parsers on the way would read two different requests.
    """
    size, hosts, framing = len(url), [], []
    for name, value in fields:
        size += len(name) + len(value)
        if name == b"host":
            hosts.append(value)
        elif name in (b"content-length", b"transfer-encoding"):
            framing.append((name, value))
    if size > MAX_HEAD_BYTES or len(fields) > MAX_HEADERS:
        raise head_too_large()
    _check_framing(version, framing)
    _check_host(version, hosts)
    if method == b"CONNECT":  # to the parser an upgrade, without a path that could be answered
        raise MethodNotAllowed("CONNECT")


def head_too_large() -> HeadTooLarge:
    """Return the error for a request with too many bytes that are not its body."""
    return HeadTooLarge(
        f"beside its body a request may have at most {MAX_HEAD_BYTES} bytes and {MAX_HEADERS} header fields"
    )


def _check_framing(version: str, framing: Sequence[tuple[bytes, bytes]]) -> None:
    if len(framing) > 1:
        raise InvalidRequest("a request has one Content-Length or one Transfer-Encoding")
    if framing and framing[0][0] == b"transfer-encoding":
        if framing[0][1].strip().lower() != b"chunked":
            raise InvalidRequest("the only transfer coding that is understood is chunked")
        if version == "1.0":
            raise InvalidRequest("HTTP/1.0 has no transfer codings")


def _check_host(version: str, hosts: Sequence[bytes]) -> None:
    if not hosts and version == "1.0":
        return
    if len(hosts) != 1 or not _HOST.fullmatch(hosts[0].strip()):
        raise InvalidRequest("a request has one Host, which is a name or an address, and perhaps a port")
