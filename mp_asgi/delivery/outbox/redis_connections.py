"""Connect to Redis within a bound, whatever the URL says. What is said there is decided elsewhere.

Loaded with the extra `redis` only.
"""

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import redis
from redis.connection import Connection, ConnectionPool, SSLConnection

if TYPE_CHECKING:
    _Base = Connection
else:
    _Base = object

PATIENCE: Final = 1.25  # of the timeout: one part that is silent says itself what it was

MAX_CONNECTIONS: Final = 2**31  # redis-py's own; a process has a thread or two that ask at once


class _Attempt(threading.Thread):
    """One try to connect.

    Attributes:
        error: Why it failed; None while it runs, and when it has not.
    """

    def __init__(self, connect: Callable[[], object]) -> None:
        super().__init__(name="mp-asgi-connect", daemon=True)
        self.error: BaseException | None = None
        self._connect = connect

    def run(self) -> None:  # type: ignore[explicit-override]  # typing.override is 3.12
        """Connect. Never raises."""
        try:
            self._connect()
        except BaseException as error:  # noqa: BLE001  # raised where it is waited for
            self.error = error


class _Bounded(_Base):
    """A connection whose `connect` ends in time: no timeout of a socket covers a look-up in DNS.

    What was given up goes on, and the next call waits for it again: a look-up that hangs has one
    thread, not one for each call.
    """

    _sock: Any
    _attempt: _Attempt | None = None

    def connect(self) -> None:  # type: ignore[explicit-override]  # typing.override is 3.12
        """Connect, unless that is done.

        Raises:
            redis.TimeoutError: It takes longer than `socket_connect_timeout`, look-up included.
        """
        attempt, self._attempt = self._attempt, None
        if attempt is None or not attempt.is_alive():
            if self._sock is not None:
                return
            attempt = _Attempt(super().connect)
            try:
                attempt.start()
            except RuntimeError:  # the interpreter ends and starts no thread any more
                attempt.run()
        if attempt.is_alive():
            attempt.join(PATIENCE * (self.socket_connect_timeout or 0))
        if attempt.is_alive():
            self._attempt = attempt
            raise redis.TimeoutError("Timeout connecting to server")
        if attempt.error is not None:
            raise attempt.error


class _BoundedConnection(_Bounded, Connection):
    """Without TLS."""


class _BoundedSSLConnection(_Bounded, SSLConnection):
    """With TLS."""


def bound_pool(seconds: float) -> type[ConnectionPool]:
    """Answer a pool whose connections take so many seconds to connect, and for each answer.

    What it needs wins over the options of a URL: an answer that was decoded is no event any more,
    and a thread that finds no connection free would think that the server failed.
    """

    class BoundedPool(ConnectionPool):
        def __init__(self, connection_class: type[Connection] = Connection, **options: Any) -> None:
            is_tls = issubclass(connection_class, SSLConnection)
            ours = {
                "socket_timeout": seconds,
                "socket_connect_timeout": seconds,
                "decode_responses": False,
                "encoding": "utf-8",
                "max_connections": MAX_CONNECTIONS,
            }
            super().__init__(
                connection_class=_BoundedSSLConnection if is_tls else _BoundedConnection,
                **options | ours,
            )

    return BoundedPool
