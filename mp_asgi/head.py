"""Hold what a request says of itself, as values: the part of it that identity and consent read."""

import ipaddress
from collections.abc import Mapping, Sequence

MAX_QUICK_SECONDS = 2.0  # RULES section 1, rule 7: maintenance only on an answer this fast

_SECURE = frozenset({"https", "wss"})

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
    """

    def __init__(self, consent_header: str) -> None:
        self.consent_header = consent_header.lower().encode("ascii")
        self.wanted = frozenset(
            {b"cookie", b"sec-gpc", b"dnt", b"x-forwarded-proto", self.consent_header}
        )
        others = (b"accept", b"host", b"origin")
        fetch = (b"sec-fetch-dest", b"sec-fetch-mode", b"sec-fetch-site")
        self._names = (*sorted(self.wanted), *others, *fetch)
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
        client = None if address is None else (address,)
        return RequestHead(self, started, scheme, client, headers)


class SchemeReader:
    """Tell whether a visitor's browser sees https (setting `cookie_secure`).

    Args:
        cookie_secure: `auto`, `on` or `off`.
        trusted_proxies: Networks whose `X-Forwarded-Proto` is believed.
    """

    def __init__(self, cookie_secure: str, trusted_proxies: Sequence[str]) -> None:
        self._is_forced = None if cookie_secure == "auto" else cookie_secure == "on"
        self._networks = tuple(ipaddress.ip_network(text, strict=False) for text in trusted_proxies)

    def is_secure(self, head: RequestHead) -> bool:
        """Answer for one request."""
        if self._is_forced is not None:
            return self._is_forced
        if not head.forwarded_proto or head.scheme in _SECURE or head.client is None:
            return head.scheme in _SECURE
        # The last value is the nearest proxy's; those before it came from outside.
        nearest = head.forwarded_proto.rsplit(b",", 1)[-1].strip().lower()
        return nearest in {b"https", b"wss"} and self._is_trusted(str(head.client[0]))

    def _is_trusted(self, host: str) -> bool:
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return False
        return any(address in network for network in self._networks)
