"""Keep which users and devices met, raw IDs encrypted: an erasure must name them to Mixpanel."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from cryptography.fernet import InvalidToken
from sqlalchemy import Column, Connection, Row, delete, insert, or_, select, update

from mp_asgi.events import Link

from .errors import LedgerUnavailable
from .keys import Key, Keyring
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
        """Keep a link; one of the same user and device that is there learns its origins.

        Args:
            link: What met.
            at: Milliseconds since the epoch.
        """
        if (row := self._find_pair(link)) is not None:
            self._widen(row, link)
            return
        key = self._keyring.newest
        self._connection.execute(
            insert(links).values(
                project=self._project,
                user_subject=key.subject_of(link.user_key),
                device_subject=key.subject_of(link.device_key),
                key_id=key.id,
                at=at,
                token=_encrypt(link, key),
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

    def _find_pair(self, link: Link) -> Row[Any] | None:
        pairs = [
            (links.c.user_subject == key.subject_of(link.user_key))
            & (links.c.device_subject == key.subject_of(link.device_key))
            for key in self._keyring
        ]
        return next(iter(self._find(or_(*pairs))), None)

    def _widen(self, row: Row[Any], link: Link) -> None:
        key, kept = self._keyring.find(row.key_id), read_link(row, self._keyring)
        if key is None or kept is None:
            return  # somebody changed it, which whoever reads it is told
        # Where nobody said, any origin counts.
        is_told = kept.origins and link.origins
        origins = "".join(dict.fromkeys(kept.origins + link.origins)) if is_told else ""
        if origins == kept.origins:
            return
        statement = update(links).where(
            links.c.project == self._project,
            links.c.user_subject == row.user_subject,
            links.c.device_subject == row.device_subject,
        )
        token = _encrypt(replace(kept, origins=origins), key)
        self._connection.execute(statement.values(token=token))

    def _find(self, condition: Any) -> Sequence[Row[Any]]:
        statement = select(links).where(links.c.project == self._project, condition)
        return self._connection.execute(statement.order_by(links.c.at)).all()


def read_link(row: Row[Any], keyring: Keyring) -> Link | None:
    """Answer the link in a row; None if the row was changed or its key is not ours."""
    key = keyring.find(row.key_id)
    if key is None:
        return None
    try:
        names = json.loads(key.links.decrypt(row.token))
    except InvalidToken:
        return None
    user_id, device_id, user_key, device_key, *origins = names  # the first ledgers kept none
    link = Link(
        user_id,
        device_id,
        bytes.fromhex(user_key),
        bytes.fromhex(device_key),
        to_seconds(row.at),
        "".join(origins),
    )
    named = (key.subject_of(link.user_key), key.subject_of(link.device_key))
    return link if named == (row.user_subject, row.device_subject) else None


def _encrypt(link: Link, key: Key) -> str:
    keys = (link.user_key.hex(), link.device_key.hex())
    names = [link.user_id, link.device_id, *keys, link.origins]
    return key.links.encrypt(json.dumps(names).encode()).decode()


def _names(subjects: Sequence[str]) -> Any:
    return or_(links.c.user_subject.in_(subjects), links.c.device_subject.in_(subjects))
