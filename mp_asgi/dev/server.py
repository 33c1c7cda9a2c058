"""Run an app on loopback in a thread, for tests and the demo."""

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Receive, Scope, Send

from .misconduct import CONNECTION

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication
    from uvicorn.protocols.http.h11_impl import H11Protocol

HOST = "127.0.0.1"
START_SECONDS = 10.0
STOP_SECONDS = 10.0
BACKLOG = 128


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens."""

    port: int
    scheme: str = "http"

    @property
    def url(self) -> str:
        """Scheme and authority, without a trailing slash."""
        return f"{self.scheme}://{HOST}:{self.port}"


@contextmanager
def run_in_thread(
    app: ASGIApp, port: int = 0, *, log_level: str = "critical", certificate: Path | None = None
) -> Iterator[Address]:
    """Serve an ASGI app with uvicorn while the context is open; port 0 takes a free one.

    Args:
        app: What to serve.
        port: On loopback.
        log_level: uvicorn's. To it a cut-off answer is an error, while the stand-in was told to.
        certificate: PEM file with a chain and its key, to speak TLS; None for plain HTTP.

    Raises:
        ImportError: uvicorn is missing.
        OSError: The port is taken.
        RuntimeError: The app did not start.
    """
    try:
        import uvicorn  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ImportError('uvicorn is missing. Run: pip install "mp-asgi[dev]"') from error

    config = uvicorn.Config(
        app,
        log_level=log_level,
        log_config=None,
        access_log=False,
        date_header=False,  # the stand-in says what its own clock says
        timeout_graceful_shutdown=1,
        http=_make_protocol(),
        ssl_certfile=certificate,
    )
    server = uvicorn.Server(config)
    with _listen(port) as listener:
        thread = _Thread(lambda: server.run(sockets=[listener]))
        try:
            thread.wait_until(lambda: server.started)
            yield Address(listener.getsockname()[1], "https" if certificate else "http")
        finally:
            server.should_exit = True
            thread.join(STOP_SECONDS)


@contextmanager
def run_wsgi_in_thread(app: "WSGIApplication", port: int = 0) -> Iterator[Address]:
    """Serve a WSGI app with werkzeug, a thread a request; port 0 takes a free one.

    Raises:
        ImportError: werkzeug, which comes with Flask, is missing.
        OSError: The port is taken.
    """
    try:
        from werkzeug.serving import WSGIRequestHandler, make_server  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ImportError('Flask is missing. Run: pip install "mp-asgi[flask]"') from error

    class Silent(WSGIRequestHandler):
        # typing.override needs Python 3.12.
        def log_request(  # type: ignore[explicit-override]
            self, code: int | str = "-", size: int | str = "-"
        ) -> None:
            """Say nothing: what happens is seen in the browser."""

    with _listen(port) as listener:
        # Given a socket, werkzeug does not look up the machine's name, which may hang offline.
        server = make_server(
            HOST, 0, app, threaded=True, request_handler=Silent, fd=listener.fileno()
        )
        thread = _Thread(server.serve_forever)
        try:
            yield Address(listener.getsockname()[1])
        finally:
            server.shutdown()
            thread.join(STOP_SECONDS)
            server.server_close()


def _make_protocol() -> "type[H11Protocol]":
    """Make uvicorn's HTTP/1.1 tell the app its connection, so that a fault can end it."""
    from uvicorn.protocols.http.h11_impl import H11Protocol  # noqa: PLC0415 - an extra

    class Protocol(H11Protocol):
        # typing.override needs Python 3.12; uvicorn narrows asyncio's type, too.
        def connection_made(  # type: ignore[explicit-override, override]
            self, transport: asyncio.Transport
        ) -> None:
            super().connection_made(transport)
            app = self.app

            async def app_with_connection(scope: Scope, receive: Receive, send: Send) -> None:
                scope[CONNECTION] = transport
                await app(scope, receive, send)

            self.app = app_with_connection

    return Protocol


class _Thread:
    """A thread whose failure is raised by who waits for it."""

    def __init__(self, target: Callable[[], object]) -> None:
        self._target = target
        self._failure: BaseException | None = None
        self._is_over = threading.Event()
        threading.Thread(target=self._run, name="mp-asgi-dev-server", daemon=True).start()

    def wait_until(self, is_started: Callable[[], bool]) -> None:
        """Return when the condition holds, raise if the thread ends before that."""
        deadline = time.monotonic() + START_SECONDS
        while not is_started():
            if self._is_over.wait(0.005) or time.monotonic() > deadline:
                raise RuntimeError("The app did not start.") from self._failure

    def join(self, timeout: float) -> None:
        """Wait for the end of the thread."""
        self._is_over.wait(timeout)

    def _run(self) -> None:
        try:
            self._target()
        except BaseException as error:  # noqa: BLE001 - kept for who waits
            self._failure = error
        finally:
            self._is_over.set()


def _listen(port: int) -> socket.socket:
    # asyncio turns Nagle's delay (40 ms an answer) off only where the protocol is named.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    # A port that just closed may be taken again; one that listens may not.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener
