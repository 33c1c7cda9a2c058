"""Hold what a request says of itself, as values: the part of it that identity and consent read."""

import ipaddress
import re
from collections.abc import Container, Iterable, Mapping, Sequence

MAX_QUICK_SECONDS = 2.0  # RULES section 1, rule 7: maintenance only on an answer this fast
MAX_FORWARDED_BYTES = 4_096  # of `Forwarded`; some fifty hops

_SECURE = frozenset({"https", "wss"})
_OF_PAGES = frozenset(  # what `pages.py` asks for
    {b"hx-request", b"purpose", b"sec-purpose", b"turbo-frame"}
    | {b"x-moz", b"x-pjax", b"x-purpose", b"x-requested-with"}
)
# RFC 7239 section 4, with the slips that proxies make: addresses and ports without quotes.
_FORWARDED_PAIR = re.compile(
    r"""[ \t]* (?: ([^\s",;=]+) = (?: "((?:[^"\\]|\\.)*)" | ([^\s",;=]+) ) )? [ \t]* ([,;]|\Z)""",
    re.VERBOSE,
)

Headers = Sequence[tuple[bytes, bytes]]


class RequestHead:
    """Scheme, client, cookies and headers of a request; nothing of the connection itself.

    Args:
        reader: Knows the names that are read into `signals`, and the two that have attributes.
        started: Seconds since the epoch when the request reached us.
        scheme: As the server saw it.
        client: As the server saw it.
        headers: Names in lower case.

    Attributes:
        started: Seconds since the epoch when the request reached us.
        scheme: `http`, `https`, `ws` or `wss`; None if the server does not say.
        client: Host and port of the connection's other end; None if unknown.
        cookie: The Cookie headers, raw, joined as HTTP/1.1 would.
        forwarded_proto: `X-Forwarded-Proto`, raw; empty without one.
        signals: The headers that speak of consent, by lower-case name; None without any.
    """

    __slots__ = (
        "_headers",
        "client",
        "cookie",
        "forwarded_proto",
        "scheme",
        "signals",
        "started",
    )

    def __init__(
        self,
        reader: "HeadReader",
        started: float,
        scheme: str | None,
        client: Sequence[object] | None,
        headers: Headers,
    ) -> None:
        cookie = forwarded_proto = b""
        signals: dict[bytes, bytes] | None = None
        wanted = reader.wanted
        for name, value in headers:
            if name in wanted:
                if name == b"cookie":
                    # HTTP/2 may send several.
                    cookie = cookie + b"; " + value if cookie else value
                elif name == b"x-forwarded-proto":
                    forwarded_proto = value
                else:
                    signals = signals or {}
                    signals[name] = signals[name] + b"," + value if name in signals else value
        self._headers = headers
        self.started = started
        self.scheme = scheme
        self.client = client
        self.cookie = cookie
        self.forwarded_proto = forwarded_proto
        self.signals: Mapping[bytes, bytes] | None = signals

    def header(self, name: bytes) -> bytes | None:
        """Answer any header by its lower-case name; several are joined by a comma."""
        values = [value for found, value in self._headers if found == name]
        return b",".join(values) if values else None

    def kept(self, names: Container[bytes]) -> list[tuple[bytes, bytes]]:
        """Answer the headers of these lower-case names, as they came."""
        return [header for header in self._headers if header[0] in names]

    def is_navigation(self) -> bool:
        """Whether a person opened a page: a top-level document, not what a page loads."""
        mode = self.header(b"sec-fetch-mode")
        if mode is not None:
            return mode == b"navigate" and self.header(b"sec-fetch-dest") == b"document"
        # Browsers send Sec-Fetch-* only to https and localhost.
        return (self.header(b"accept") or b"").startswith(b"text/html")

    def is_quick(self, now: float) -> bool:
        """Whether the answer comes soon enough that no faster one can have overtaken it."""
        return now - self.started <= MAX_QUICK_SECONDS


class HeadReader:
    """Read the head of a request, for ASGI and for WSGI alike.

    Args:
        consent_header: Name of the application's consent header.
        others: Names that somebody may ask a head for.
        keeps_all: Whether a callable of the app may ask for any.
        sees_pages: Whether somebody asks what tells pages from what scripts and browsers fetch.
    """

    def __init__(
        self,
        consent_header: str,
        others: Iterable[str] = (),
        *,
        keeps_all: bool = False,
        sees_pages: bool = True,
    ) -> None:
        self.keeps_all = keeps_all
        self.consent_header = consent_header.lower().encode("ascii")
        self.wanted = frozenset(
            {b"cookie", b"sec-gpc", b"dnt", b"x-forwarded-proto", self.consent_header}
        )
        asked = {b"accept", b"host", b"origin", b"referer", b"user-agent"}
        asked |= {b"forwarded", b"x-forwarded-for"}
        asked |= {b"sec-fetch-dest", b"sec-fetch-mode", b"sec-fetch-site"}
        asked |= _OF_PAGES if sees_pages else set()
        asked |= {name.lower().encode("ascii") for name in others}
        self._names = tuple(sorted(self.wanted | asked))
        #: What the WSGI door takes out of an environ, so that nothing holds the environ itself.
        self.environ_keys = tuple(
            "HTTP_" + name.decode("ascii").upper().replace("-", "_") for name in self._names
        )

    def read_asgi(
        self, started: float, scheme: str | None, client: Sequence[object] | None, headers: Headers
    ) -> RequestHead:
        """Make a head of what an ASGI scope says; see `RequestHead`."""
        return RequestHead(self, started, scheme, client, headers)

    def read_wsgi(
        self,
        started: float,
        scheme: str | None,
        address: str | None,
        fields: Sequence[str | None],
    ) -> RequestHead:
        """Make a head of what a WSGI environ says.

        Args:
            started: Seconds since the epoch when the request reached us.
            scheme: `wsgi.url_scheme`.
            address: `REMOTE_ADDR`.
            fields: The values under `environ_keys`, in their order.
        """
        headers = [
            (name, value.encode("latin-1", "replace"))
            for name, value in zip(self._names, fields, strict=True)
            if value is not None
        ]
        return RequestHead(self, started, scheme, _client(address), headers)

    def read_whole_wsgi(
        self, started: float, scheme: str | None, address: str | None, fields: Mapping[str, object]
    ) -> RequestHead:
        """Make a head of every header of a WSGI environ, for a callable that may ask for any.

        Args:
            started: Seconds since the epoch when the request reached us.
            scheme: `wsgi.url_scheme`.
            address: `REMOTE_ADDR`.
            fields: The `HTTP_` variables by name.
        """
        headers = [
            (
                name.removeprefix("HTTP_").replace("_", "-").lower().encode("latin-1", "replace"),
                str(value).encode("latin-1", "replace"),
            )
            for name, value in fields.items()
        ]
        return RequestHead(self, started, scheme, _client(address), headers)


Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def read_address(text: str) -> Address | None:
    """Read an address; None if it is none. A listener for both versions sees an IPv4 one mapped."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped: ipaddress.IPv4Address | None = getattr(address, "ipv4_mapped", None)
    return address if mapped is None else mapped


class TrustedProxies:
    """Tell whether the other end of a connection is a proxy whose headers are believed.

    Args:
        networks: Addresses or networks (CIDR).
    """

    def __init__(self, networks: Sequence[str]) -> None:
        self._networks = tuple(ipaddress.ip_network(text, strict=False) for text in networks)

    def trust(self, client: Sequence[object] | None) -> bool:
        """Answer for one connection's other end."""
        return client is not None and self._is_proxy(str(client[0]))

    def find_client(self, head: RequestHead) -> str:
        """Answer the visitor's address: the first from the right that is no proxy of ours.

        Empty if unknown. What stands further left came from outside and is not believed. Nor is one
        of `X-Forwarded-For` and `Forwarded` where they differ: a proxy that writes one of them lets
        the other through as a visitor sent it.
        """
        if head.client is None:
            return ""
        peer = str(head.client[0])
        paths = []
        if (value := head.header(b"x-forwarded-for")) is not None:
            paths.append(_read_x_forwarded_for(value))
        if (value := head.header(b"forwarded")) is not None:
            paths.append(_read_forwarded(value))
        found = {self._follow(peer, hops) for hops in paths} or {peer}
        return found.pop() if len(found) == 1 else ""

    def _follow(self, address: str, hops: list[str]) -> str:
        while hops and self._is_proxy(address):
            address = hops.pop()
        return address

    def _is_proxy(self, host: str) -> bool:
        if not self._networks:
            return False
        address = read_address(host)
        return address is not None and any(address in network for network in self._networks)


class SchemeReader:
    """Tell whether a visitor's browser sees https (setting `cookie_secure`).

    Args:
        cookie_secure: `auto`, `on` or `off`.
        proxies: Whose `X-Forwarded-Proto` is believed.
    """

    def __init__(self, cookie_secure: str, proxies: TrustedProxies) -> None:
        self._is_forced = None if cookie_secure == "auto" else cookie_secure == "on"
        self._proxies = proxies

    def is_secure(self, head: RequestHead) -> bool:
        """Answer for one request."""
        if self._is_forced is not None:
            return self._is_forced
        if not head.forwarded_proto or head.scheme in _SECURE or head.client is None:
            return head.scheme in _SECURE
        # The last value is the nearest proxy's; those before it came from outside.
        nearest = head.forwarded_proto.rsplit(b",", 1)[-1].strip().lower()
        return nearest in {b"https", b"wss"} and self._proxies.trust(head.client)


def _read_x_forwarded_for(value: bytes) -> list[str]:
    hops = (hop.strip() for hop in value.decode("latin-1").split(","))
    return [_without_port(hop) for hop in hops if hop]


def _read_forwarded(value: bytes) -> list[str]:
    """Answer the hops of RFC 7239, each empty that is not told; a broken header tells none.

    A visitor may have opened a quote that swallows what the proxies wrote.
    """
    hops, position = [""], 0
    text = value.decode("latin-1") if len(value) <= MAX_FORWARDED_BYTES else ""
    while position < len(text):
        pair = _FORWARDED_PAIR.match(text, position)
        if pair is None:
            return [""]
        name, quoted, plain, end = pair.groups(default="")
        if name.lower() == "for":
            hops[-1] = _without_port(quoted or plain)
        if end == ",":
            hops.append("")
        position = pair.end()
    return hops


def _without_port(hop: str) -> str:
    """Answer the address of one hop: some proxies write the port behind it."""
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    return hop.partition(":")[0] if hop.count(":") == 1 else hop


def _client(address: str | None) -> Sequence[object] | None:
    return None if address is None else (address,)
