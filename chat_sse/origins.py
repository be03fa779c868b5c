"""Which origins a setting names: one as browsers send it, or a pattern of them. Pure.

Source: WHATWG HTML, "7.1.1 Origins". A browser sends scheme and host in lower case, an international name in
punycode, no default port, and nothing behind it. What could never equal that is refused, since a page that
is not let in because of a slash is hard to find out about.
"""

import re
from ipaddress import IPv6Address

DEFAULT_PORTS = {"http": "80", "https": "443"}
# Of pages that an app shell or a browser's extension brings. Their hosts may be ids that no site's owner can
# know before: Firefox makes one up for each installation, VS Code for each view.
_APP_SCHEMES = (
    *("app", "capacitor", "chrome-extension", "ionic", "moz-extension", "safari-web-extension"),
    *("tauri", "vscode-webview"),
)
_LABEL = "[A-Za-z0-9_-]+"
_AUTHORITY = re.compile(
    rf"(\[[0-9a-fA-F:.]+\]|(?:\*|{_LABEL})(?:\.(?:\*|{_LABEL}))*|\.)(?::(\*|[0-9]{{1,5}}))?"
)
_NO_HOST = "a host name, or its port, is missing or cannot be one"


def origin_regex(text: str) -> str:
    """Return the regular expression of the origins that a text names, to be matched in full.

    One `*` may stand for the first label of a host, for any port, or for an app's whole host. Raises
    ValueError with the reason, without the text.
    """
    if text.lower() == "null":
        raise ValueError("null is the origin of any site's sandboxed pages; only * can let it in")
    scheme, mark, authority = text.partition("://")
    scheme = scheme.lower()
    if not mark:
        raise ValueError("an origin begins with its scheme, as https://chat.example.org does")
    if scheme not in (*DEFAULT_PORTS, *_APP_SCHEMES):
        raise ValueError(f"the scheme must be one of http, https, {', '.join(_APP_SCHEMES)}")
    if re.search(r"[/?#@\\\s]", authority):
        raise ValueError("an origin ends with its host and port: no path, no slash, no user name")
    if not authority.isascii():
        raise ValueError("write an international host name as browsers send it, in punycode (xn--…)")
    if not (found := _AUTHORITY.fullmatch(authority)):
        raise ValueError(_NO_HOST)
    return re.escape(f"{scheme}://") + _host(found[1], scheme, authority) + _port(found[2], scheme)


def _host(host: str, scheme: str, authority: str) -> str:
    if authority.count("*") > 1:
        raise ValueError("only one * may stand in an origin")
    if host.startswith("["):
        return re.escape(f"[{_compressed(host[1:-1])}]")
    if scheme in DEFAULT_PORTS:
        host = host.lower()
    first, _, parent = host.partition(".")
    if "*" in parent:
        raise ValueError("a * stands for the first label of a host, or for the port")
    if first != "*":
        return re.escape(host)
    if not parent and scheme in DEFAULT_PORTS:
        raise ValueError("a * is no host; * as the only entry lets any page in")
    if parent and "." not in parent and parent != "localhost":
        raise ValueError("a * under a top-level domain would let anybody's pages in")
    return _LABEL + re.escape(f".{parent}" if parent else "")


def _compressed(address: str) -> str:
    try:
        return IPv6Address(address).compressed
    except ValueError:
        raise ValueError(_NO_HOST) from None  # Python's own reason holds the text


def _port(port: str | None, scheme: str) -> str:
    if port is None or port == DEFAULT_PORTS.get(scheme):
        return ""
    if port == "*":
        return "(?::[0-9]{1,5})?"
    if not 0 < int(port) < 65_536:  # noqa: PLR2004 - the range of ports
        raise ValueError("a port is a number from 1 to 65535")
    return f":{int(port)}"
