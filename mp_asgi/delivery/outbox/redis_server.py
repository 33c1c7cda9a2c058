"""Run `redis.lua` on a server, or on a cluster, and say what fails without saying a secret."""

import re
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

from mp_asgi.errors import OutboxUnavailable

if TYPE_CHECKING:
    import redis.exceptions
    from redis.retry import Retry

TIMEOUT_SECONDS: Final = 2.0  # to connect, and for each answer

_SCRIPT: Final = Path(__file__).with_name("redis.lua")

Argument = str | bytes | int | float


class Server:
    """The way to a server, or to a cluster. Says what fails without saying a secret.

    Attributes:
        name: Of the server, for messages.
    """

    def __init__(self, url: str) -> None:
        try:
            import redis.exceptions  # noqa: PLC0415  # an extra

            from .redis_connections import bound_pool  # noqa: PLC0415
        except ImportError as error:
            text = 'The outbox on Redis needs a package: pip install "mp-asgi[redis]"'
            raise OutboxUnavailable(text) from error
        # What the first look-up of a name needs: no thread of ours imports it (`mp_asgi.forks`).
        import_module("encodings.idna")
        self._redis = redis
        self._url = url
        parts = urlsplit(url)
        self.name = f"Redis at {parts.hostname}:{parts.port or 6379}"
        self._script = _SCRIPT.read_text()
        self._pool_class = bound_pool(TIMEOUT_SECONDS)
        try:
            self._node = self._connect_to_node()
        except Exception as error:  # its text may quote the URL
            option = re.search(r"(?:argument|value for) '(\w+)'", str(error))
            remedy = f"Mend or remove {option[1]}= in it." if option else "Mend what follows the ?."
            raise OutboxUnavailable(f"The URL of {self.name} cannot be used. {remedy}") from error
        self._client: redis.Redis | redis.RedisCluster = self._node
        self._sha = self._node.register_script(self._script).sha

    def run(self, tag: str, arguments: Sequence[Argument]) -> Any:
        """Call the script.

        Raises:
            OutboxUnavailable: No answer came, or a refusal.
        """
        try:
            return self._evaluate(tag, arguments)
        except self._redis.exceptions.MovedError:
            return self._run_on_cluster(tag, arguments)
        # A name that is none is a UnicodeError, a cluster that is gone an error of its own kind.
        except Exception as error:  # noqa: BLE001  # the caller keeps its events elsewhere
            self._leave_cluster()
            raise self._unavailable(error) from None

    def close(self) -> None:
        """Let go of the connections; a later call opens them again."""
        self._leave_cluster()
        self._node.connection_pool.disconnect()

    def _evaluate(self, tag: str, arguments: Sequence[Argument]) -> Any:
        try:
            return self._client.evalsha(self._sha, 1, tag, *arguments)
        except self._redis.exceptions.NoScriptError:  # nothing was done
            return self._client.eval(self._script, 1, tag, *arguments)

    def _run_on_cluster(self, tag: str, arguments: Sequence[Argument]) -> Any:
        self._leave_cluster()
        try:
            self._client = self._connect_to_cluster()
            return self._evaluate(tag, arguments)
        except Exception as error:  # noqa: BLE001  # the caller keeps its events elsewhere
            self._leave_cluster()
            raise self._unavailable(error) from None

    def _leave_cluster(self) -> None:
        """Begin with the node of the URL again: what is known of the others may be over."""
        client, self._client = self._client, self._node
        if client is not self._node:
            with suppress(Exception):  # foreign; it is not used any more
                client.close()

    def _connect_to_node(self) -> "redis.Redis":
        # What a retry repeats may have been done: only who holds a ticket may repeat.
        pool = self._pool_class.from_url(self._url, retry=self._never())
        pool.connection_class(**pool.connection_kwargs)  # refuses what is no option
        return self._redis.Redis(connection_pool=pool)

    def _connect_to_cluster(self) -> "redis.RedisCluster":
        return self._redis.RedisCluster.from_url(
            self._url, retry=self._never(), connection_pool_class=self._pool_class
        )

    def _never(self) -> "Retry":
        from redis.backoff import NoBackoff  # noqa: PLC0415
        from redis.retry import Retry  # noqa: PLC0415

        return Retry(NoBackoff(), 0)

    def _unavailable(self, error: Exception) -> OutboxUnavailable:
        text = str(error)
        password = urlsplit(self._url).password or ""
        for secret in filter(None, (unquote(password), password, self._url)):
            text = text.replace(secret, "…")
        return OutboxUnavailable(f"{self.name}: {type(error).__name__}: {text[:200]}")
