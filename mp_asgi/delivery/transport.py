"""Carry one batch to Mixpanel over HTTPS and bring its reply back. What it means is not judged."""

import base64
import contextlib
import gzip
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
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
# Loads when the first batch goes; `socket` itself imports the first for the first name of a host.
_NEEDED: Final = ("encodings.idna", "urllib3.connection", "mp_asgi.delivery.final_response")

_UNTRUSTED: Final = (
    "if a proxy here opens TLS, let SSL_CERT_FILE name its certificate authority too"
)
_FOREIGN: Final = "check MIXPANEL_API_HOST, and whether a proxy or a captive portal answers for it"
_DATED: Final = "check the clock of this machine"
# By OpenSSL's X509_V_ERR numbers: not yet valid, expired, another host's name, another address.
_CERTIFICATES: Final = {9: _DATED, 10: _DATED, 62: _FOREIGN, 64: _FOREIGN}


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

    Making one imports all that sending needs, so that no fork meets an import while it sends
    (`mp_asgi.forks`).

    The two phases of a request are kept apart: what fails before the connection stands was
    never sent and may be repeated, whatever it is (`Unavailable.is_sent`).

    Args:
        settings: Says the host and the credentials.
        connect_seconds: How long connecting to one address, or a part of the TLS handshake, may
            take.
        read_seconds: How long the reply, or a part of it, may take.
        total_seconds: How long all of it may take, from the look-up of the name to the last byte
            of the reply.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        connect_seconds: float = 5.0,
        read_seconds: float = 30.0,
        total_seconds: float = 60.0,
    ) -> None:
        self._settings = settings
        self._connect_seconds = connect_seconds
        self._read_seconds = read_seconds
        self._total_seconds = total_seconds
        self._connection: HTTPConnection | None = None
        self._left_behind: threading.Thread | None = None
        for name in _NEEDED:
            import_module(name)

    def send(self, endpoint: Endpoint, body: bytes) -> Reply:
        """Deliver a JSON array and answer the reply, whatever its status.

        Raises:
            Unavailable: There is no reply.
        """
        if self._left_behind is not None and self._left_behind.is_alive():
            # A resolver that hangs would hang again, and each time leave a thread.
            raise Unavailable(self._complaint("is still looked up", TimeoutError()), is_sent=False)
        exchange = _Exchange(self._take_connection(), *self._request(endpoint, body))
        exchange.read_seconds = self._read_seconds
        self._run(exchange)
        if exchange.reply is None:
            raise self._explain(exchange.error or TimeoutError(), is_sent=exchange.is_sent)
        self._connection = exchange.connection
        return exchange.reply

    def close(self) -> None:
        """Let go of the connection; a later send opens a new one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _run(self, exchange: "_Exchange") -> None:
        """Run an exchange on a thread of its own: nothing else can limit a look-up in DNS."""
        thread = threading.Thread(target=exchange.run, name="mp-asgi-exchange", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the interpreter ends and starts no thread any more
            exchange.run()
            return
        thread.join(self._total_seconds)
        if thread.is_alive():
            exchange.give_up()
            self._left_behind = thread

    def _take_connection(self) -> "HTTPConnection":
        connection, self._connection = self._connection, None
        # A kept-alive connection that the other side has closed meanwhile is no longer connected.
        if connection is not None and connection.is_connected:
            return connection
        if connection is not None:
            connection.close()
        return self._new_connection()

    def _new_connection(self) -> "HTTPConnection":
        from urllib3.connection import HTTPConnection, HTTPSConnection  # noqa: PLC0415

        from .final_response import FinalResponse  # noqa: PLC0415

        url = urlsplit(self._settings.api_url)
        host, seconds = url.hostname or "", self._connect_seconds
        connection = (
            HTTPConnection(host, url.port, timeout=seconds)
            if url.scheme == "http"
            else HTTPSConnection(host, url.port, timeout=seconds, cert_reqs="CERT_REQUIRED")
        )
        connection.response_class = FinalResponse
        return connection

    def _request(self, endpoint: Endpoint, body: bytes) -> tuple[str, dict[str, str], bytes]:
        """Answer target, headers and body in the form that the endpoint documents."""
        headers = {"Content-Type": "application/json", "User-Agent": f"mp-asgi/{__version__}"}
        if endpoint is Endpoint.EVENTS:
            body = gzip.compress(body, compresslevel=1)
            headers |= {"Content-Encoding": "gzip", "Authorization": self._authorization()}
        elif endpoint is Endpoint.ALIASES:
            # The only form that identity.openapi.yaml has for `$create_alias`.
            body = urlencode({"data": body}).encode("ascii")
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        return self._target(endpoint), headers, body

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

    def _explain(self, error: BaseException, *, is_sent: bool) -> BaseException:
        """Answer what to raise: foreign errors stop here, bugs do not."""
        from http.client import HTTPException  # noqa: PLC0415  # loads when the first batch goes

        from urllib3.exceptions import HTTPError  # noqa: PLC0415

        if not isinstance(error, (HTTPError, HTTPException, OSError)):
            return error
        what = "gave no reply" if is_sent else "cannot be reached"
        unavailable = Unavailable(self._complaint(what, error), is_sent=is_sent)
        unavailable.__cause__ = error
        return unavailable

    def _complaint(self, what: str, error: Exception) -> str:
        # The error's own text may quote an address or a header; its type says enough.
        return f"{self._settings.api_url} {what} ({type(error).__name__}{_remedy(error)})"


class _Exchange:
    """One request and its reply, which may be given up from another thread.

    Attributes:
        connection: Its own while it runs; free for the next one after a reply.
        reply: None until there is one.
        error: Why there is none.
        is_sent: Whether the request may have been read.
        read_seconds: How long the reply, or a part of it, may take.
    """

    def __init__(
        self, connection: "HTTPConnection", target: str, headers: Mapping[str, str], body: bytes
    ) -> None:
        self.connection = connection
        self.reply: Reply | None = None
        self.error: BaseException | None = None
        self.is_sent = False
        self.read_seconds = 0.0
        self._request = target, headers, body
        self._lock = threading.Lock()
        self._is_given_up = False

    def run(self) -> None:
        """Connect if need be, send, and read the reply. Never raises."""
        try:
            if self.connection.sock is None:
                self.connection.connect()
                self.connection.timeout = self.read_seconds
            with self._lock:
                self._check()
                self.is_sent = True
            reply = self._carry()
            with self._lock:
                # A socket that was shut down looks like the end of a reply.
                self._check()
                self.reply = reply
        except BaseException as error:  # noqa: BLE001  # raised where the sender waits
            self.error = error
            self.connection.close()

    def give_up(self) -> None:
        """End it, wherever it is: what is not sent by now is never sent, what comes no reply."""
        with self._lock:
            self._is_given_up = True
        if (sock := self.connection.sock) is not None:
            with contextlib.suppress(OSError):
                # Past the TLS layer: that one's own shutdown breaks whoever reads.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def _check(self) -> None:
        if self._is_given_up:
            raise TimeoutError

    def _carry(self) -> Reply:
        connection, (target, headers, body) = self.connection, self._request
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
            connection.close()
        names = {name.lower(): value for name, value in response.headers.items()}
        return Reply(response.status, bytes(read[:MAX_REPLY_BYTES]), names)


def _remedy(error: BaseException) -> str:
    """Answer what to do about an error that says what is wrong; empty for others."""
    import ssl  # noqa: PLC0415  # loads when the first batch goes

    from urllib3.exceptions import NameResolutionError  # noqa: PLC0415

    if isinstance(error, NameResolutionError):
        return ": nobody knows that name; check MIXPANEL_API_HOST and the DNS of this machine"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f": {error.verify_message}; {_CERTIFICATES.get(error.verify_code, _UNTRUSTED)}"
    if isinstance(error, ssl.SSLError):
        return ": no TLS there; check scheme and port of MIXPANEL_API_HOST, and any proxy between"
    return ""
