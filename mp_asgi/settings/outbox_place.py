"""Read where events wait: in memory, in a file of this host, or on a Redis server."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Self
from urllib.parse import urlsplit

REMEDY = (
    "Use sqlite, sqlite:///path (four slashes before an absolute path), redis://host:6379/0, "
    "rediss://… or memory."
)


class OutboxKind(Enum):
    """What an outbox is made of."""

    MEMORY = "memory"
    SQLITE = "sqlite"
    REDIS = "redis"


@dataclass(frozen=True, slots=True)
class OutboxPlace:
    """Where an outbox is.

    Attributes:
        kind: What it is made of.
        path: Of the SQLite file; empty for the one of this project in the state directory.
        url: Of the Redis server, credentials included.
    """

    kind: OutboxKind
    path: str = ""
    url: str = field(default="", repr=False)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `sqlite`, `sqlite:///path`, `redis://…`, `rediss://…` or `memory`.

        Raises:
            ValueError: It is none of these; the message is the remedy.
        """
        if text in {"memory", "sqlite"}:
            return cls(OutboxKind(text))
        scheme, separator, rest = text.partition(":///")
        # As SQLAlchemy writes it, and so does `MP_ASGI_LEDGER`.
        if scheme == "sqlite" and separator and rest.strip("/"):
            return cls(OutboxKind.SQLITE, path=rest)
        try:
            parts = urlsplit(text)
            is_redis = parts.scheme in {"redis", "rediss"} and bool(parts.hostname)
            is_usable = is_redis and (parts.port is None or parts.port > 0)
        except ValueError:
            is_usable = False
        if not is_usable:
            raise ValueError(REMEDY)
        return cls(OutboxKind.REDIS, url=text)
