"""Read where events wait: in memory, in a file of this host, or on a Redis server."""

import re
from dataclasses import dataclass, field
from enum import Enum
from typing import Self
from urllib.parse import urlsplit

from .parsing import parse_path

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
        path: Of the SQLite file, absolute; empty for the one of this project in the state
            directory.
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
            return cls(OutboxKind.SQLITE, path=parse_path(rest))
        try:
            parts = urlsplit(text)
            # redis-py knows schemes in lower case only, and takes a path that is no number for 0.
            is_redis = text.startswith(("redis://", "rediss://")) and bool(parts.hostname)
            has_database = re.fullmatch(r"/?[0-9]*", parts.path)
            is_usable = is_redis and has_database and (parts.port is None or parts.port > 0)
        except ValueError:
            is_usable = False
        if not is_usable:
            raise ValueError(REMEDY)
        return cls(OutboxKind.REDIS, url=text)


def parse_outbox(text: str) -> str:
    """Answer the text with an absolute path, if there is one. Never raises: `find_problems` says
    what is wrong.
    """
    try:
        path = OutboxPlace.parse(text).path
    except ValueError:
        return text
    return f"sqlite:///{path}" if path else text
