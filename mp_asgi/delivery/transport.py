"""Carry one batch to Mixpanel over HTTPS and bring its reply back. What it means is not judged."""

import base64
import contextlib
import gzip
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import urlencode, urlsplit

from mp_asgi._version import __version__
from mp_asgi.errors import Unavailable
from mp_asgi.events import Endpoint
from mp_asgi.settings import Settings

if TYPE_CHECKING:
    from urllib3.connection import HTTPConnection

MAX_REPLY_BYTES: Final = 1_000_000  # a 400 may name 2000 failed records of some 200 bytes
_READ_BYTES: Final = 8_192


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer to a batch.

    Attributes:
        status: HTTP status.
        body: The body, cut after `MAX_REPLY_BYTES`.
        headers: By name in lower case.
    """

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


class Transport(Protocol):
    """What carries batches. Used by one thread at a time."""

    def send(self, endpoint: Endpoint, body: bytes) -> Reply:
        """Deliver a JSON array and answer the reply, whatever its status.

        Raises:
            Unavailable: There is no reply.
        """
        ...

    def close(self) -> None:
        """Let go of connections; a later send opens new ones."""
        ...


class HTTPTransport:
    """Send over one kept-alive connection, TLS verified, without redirects or retries.

    The two phases of a request are kept apart: what fails before the connection stands was
    never sent and may be repeated, whatever it is (`Unavailable.is_sent`).

    Args:
        settings: Says the host and the credentials.
        connect_seconds: How long connecting, TLS included, may take.
        read_seconds: How long the reply, or a part of it, may take.
    """

    def __init__(
        self, settings: Settings, *, connect_seconds: float = 5.0, read_seconds: float = 30.0
    ) -> None:
        self._settings = settings
        self._connect_seconds = connect_seconds
        self._read_seconds = read_seconds
        self._connection: HTTPConnection | None = None

    def send(self, endpoint: Endpoint, body: bytes) -> Reply:
        """Deliver a JSON array and answer the reply, whatever its status.

        Raises:
            Unavailable: There is no reply.
        """
        from http.client import HTTPException  # noqa: PLC0415  # loads when the first batch goes

        from urllib3.exceptions import HTTPError  # noqa: PLC0415

        headers, body = self._render(endpoint, body)
        try:
            connection = self._connected()
        except (HTTPError, HTTPException, OSError) as error:
            self.close()
            raise Unavailable(self._complaint("cannot be reached", error), is_sent=False) from error
        try:
            return self._exchange(connection, self._target(endpoint), body, headers)
        except (HTTPError, HTTPException, OSError) as error:
            self.close()
            raise Unavailable(self._complaint("gave no reply", error), is_sent=True) from error

    def close(self) -> None:
        """Let go of the connection; a later send opens a new one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connected(self) -> "HTTPConnection":
        connection = self._connection
        # A kept-alive connection that the other side has closed meanwhile is no longer connected.
        if connection is not None and connection.is_connected:
            return connection
        self.close()
        connection = self._connection = self._new_connection()
        connection.connect()
        connection.timeout = self._read_seconds  # for the replies
        return connection

    def _new_connection(self) -> "HTTPConnection":
        from urllib3.connection import HTTPConnection, HTTPSConnection  # noqa: PLC0415

        url = urlsplit(self._settings.api_url)
        host = url.hostname or ""
        if url.scheme == "http":
            return HTTPConnection(host, url.port, timeout=self._connect_seconds)
        return HTTPSConnection(
            host, url.port, timeout=self._connect_seconds, cert_reqs="CERT_REQUIRED"
        )

    def _exchange(
        self, connection: "HTTPConnection", target: str, body: bytes, headers: Mapping[str, str]
    ) -> Reply:
        # A host that refuses a large body replies before it has read it all (as in urllib3's pool).
        with contextlib.suppress(BrokenPipeError):
            connection.request("POST", target, body=body, headers=headers, preload_content=False)
        response = connection.getresponse()
        read = bytearray()
        # Read to the end: only then is the connection free for the next request.
        while len(read) < MAX_REPLY_BYTES and (part := response.read(_READ_BYTES)):
            read += part
        if len(read) >= MAX_REPLY_BYTES:
            response.close()
            self.close()
        names = {name.lower(): value for name, value in response.headers.items()}
        return Reply(response.status, bytes(read[:MAX_REPLY_BYTES]), names)

    def _render(self, endpoint: Endpoint, body: bytes) -> tuple[dict[str, str], bytes]:
        """Answer the headers and the body in the form that the endpoint documents."""
        headers = {"Content-Type": "application/json", "User-Agent": f"mp-asgi/{__version__}"}
        if endpoint is Endpoint.EVENTS:
            body = gzip.compress(body, compresslevel=1)
            headers |= {"Content-Encoding": "gzip", "Authorization": self._authorization()}
        elif endpoint is Endpoint.ALIASES:
            # The only form that identity.openapi.yaml has for `$create_alias`.
            body = urlencode({"data": body}).encode("ascii")
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        return headers, body

    def _target(self, endpoint: Endpoint) -> str:
        # `$ip` and `ip` are in the messages; a query would speak for all of them.
        query = {"strict": "1"} if endpoint is Endpoint.EVENTS else {"verbose": "1"}
        if endpoint is Endpoint.ALIASES:
            query["ip"] = "0"  # never the place of this server (reference/mixpanel.md section 2.3)
        if endpoint is Endpoint.EVENTS and self._settings.service_account_username:
            query["project_id"] = self._settings.project_id
        return f"{endpoint.value}?{urlencode(query)}"

    def _authorization(self) -> str:
        settings = self._settings
        user, password = settings.token, ""
        if settings.service_account_username:
            user, password = settings.service_account_username, settings.service_account_secret
        return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode("ascii")

    def _complaint(self, what: str, error: Exception) -> str:
        # The error's own text may quote an address or a header; its type says enough.
        return f"{self._settings.api_url} {what} ({type(error).__name__})"
