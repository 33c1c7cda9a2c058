"""Run an app on loopback in a thread, for tests and the demo."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.types import ASGIApp

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

HOST = "127.0.0.1"
START_SECONDS = 10.0
STOP_SECONDS = 10.0
BACKLOG = 128


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens."""

    port: int

    @property
    def url(self) -> str:
        """Scheme and authority, without a trailing slash."""
        return f"http://{HOST}:{self.port}"


@contextmanager
def run_in_thread(app: ASGIApp, port: int = 0, *, log_level: str = "critical") -> Iterator[Address]:
    """Serve an ASGI app with uvicorn while the context is open; port 0 takes a free one.

    Args:
        app: What to serve.
        port: On loopback.
        log_level: uvicorn's. To it a cut-off answer is an error, while the stand-in was told to.

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
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    with _listen(port) as listener:
        thread = _Thread(lambda: server.run(sockets=[listener]))
        try:
            thread.wait_until(lambda: server.started)
            yield Address(listener.getsockname()[1])
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
