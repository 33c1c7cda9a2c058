"""Keep which users and devices met, raw IDs encrypted: an erasure must name them to Mixpanel."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from cryptography.fernet import InvalidToken
from sqlalchemy import Column, Connection, Row, delete, insert, or_, select

from mp_asgi.events import Link

from .errors import LedgerUnavailable
from .keys import Keyring
from .moment import to_seconds
from .past import chunks
from .tables import links


class Links:
    """One project's links within one transaction."""

    def __init__(self, connection: Connection, project: str, keyring: Keyring) -> None:
        self._connection = connection
        self._project = project
        self._keyring = keyring

    def add(self, link: Link, at: int) -> None:
        """Keep a link, unless that user and that device have one.

        Args:
            link: What met.
            at: Milliseconds since the epoch.
        """
        if self._has(link):
            return
        key = self._keyring.newest
        names = [link.user_id, link.device_id, link.user_key.hex(), link.device_key.hex()]
        self._connection.execute(
            insert(links).values(
                project=self._project,
                user_subject=key.subject_of(link.user_key),
                device_subject=key.subject_of(link.device_key),
                key_id=key.id,
                at=at,
                token=key.links.encrypt(json.dumps(names).encode()).decode(),
            )
        )

    def of(self, column: Column[Any], key: bytes) -> list[Link]:
        """Answer the links whose column names the holder of that key, in the order they met.

        Raises:
            LedgerUnavailable: One cannot be read: somebody changed it.
        """
        found = self._find(column.in_(self._keyring.subjects_of(key)))
        read = [read_link(row, self._keyring) for row in found]
        whole = [link for link in read if link is not None]
        if len(whole) < len(read):
            raise LedgerUnavailable("A link in the ledger was changed and cannot be read.")
        return whole

    def kinds(self, subjects: Iterable[str]) -> dict[str, str]:
        """Answer which subjects the links know as `user` or `device`; those met may be others."""
        found = [row for chunk in chunks(subjects) for row in self._find(_names(chunk))]
        return {row.user_subject: "user" for row in found} | {
            row.device_subject: "device" for row in found
        }

    def remove(self, subjects: Iterable[str]) -> None:
        """Delete every link that names one of the subjects."""
        for chunk in chunks(subjects):
            statement = delete(links).where(links.c.project == self._project, _names(chunk))
            self._connection.execute(statement)

    def _has(self, link: Link) -> bool:
        pairs = [
            (links.c.user_subject == key.subject_of(link.user_key))
            & (links.c.device_subject == key.subject_of(link.device_key))
            for key in self._keyring
        ]
        return bool(self._find(or_(*pairs)))

    def _find(self, condition: Any) -> Sequence[Row[Any]]:
        statement = select(links).where(links.c.project == self._project, condition)
        return self._connection.execute(statement.order_by(links.c.at)).all()


def read_link(row: Row[Any], keyring: Keyring) -> Link | None:
    """Answer the link in a row; None if the row was changed or its key is not ours."""
    key = keyring.find(row.key_id)
    if key is None:
        return None
    try:
        user_id, device_id, user_key, device_key = json.loads(key.links.decrypt(row.token))
    except InvalidToken:
        return None
    link = Link(
        user_id,
        device_id,
        bytes.fromhex(user_key),
        bytes.fromhex(device_key),
        to_seconds(row.at),
    )
    named = (key.subject_of(link.user_key), key.subject_of(link.device_key))
    return link if named == (row.user_subject, row.device_subject) else None


def _names(subjects: Sequence[str]) -> Any:
    return or_(links.c.user_subject.in_(subjects), links.c.device_subject.in_(subjects))
