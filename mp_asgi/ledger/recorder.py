"""Put acts at the end of a project's chain, each once, and archive the notices they name."""

import json
import secrets
from collections.abc import Collection, Sequence
from hashlib import sha256
from typing import Any, Final

from sqlalchemy import Connection, String, insert, select

from mp_asgi.events import Act, ActState, Notice

from .chain import digest_of, hash_of
from .head import Head, lock_head, move_head
from .keys import Keyring
from .moment import to_milliseconds
from .past import find_pasts, find_rows
from .tables import notices, records

SALT_BYTES: Final = 16

_LIMITS: Final = {
    column.name: column.type.length for column in records.columns if isinstance(column.type, String)
}


class Recorder:
    """The one writer of a chain, until the transaction is over.

    Args:
        connection: To write with.
        project: Whose chain.
        keyring: Its newest key writes.
        keys: Of the outbox: whose past will be asked for.
        now: Seconds since the epoch.
    """

    def __init__(
        self,
        connection: Connection,
        project: str,
        keyring: Keyring,
        keys: Collection[bytes],
        now: float,
    ) -> None:
        self._connection = connection
        self._project = project
        self._keyring = keyring
        self._now = now
        self._head = lock_head(connection, project, keyring)
        self.pasts = find_pasts(connection, project, keyring, keys, now)
        self._rows: list[dict[str, Any]] = []
        self._notices: dict[tuple[str, str], Notice] = {}

    def record(self, acts: Sequence[tuple[Act, str]]) -> None:
        """Record acts with their kinds, unless recorded or a tombstone stands then or later.

        What an erased person did before the erasure would otherwise come back with a retry.
        """
        named = [(act, kind, self._name(act)) for act, kind in acts]
        statement = select(records.c.id).where(records.c.project == self._project)
        asked = {name for _, _, names in named for name in names}
        known = {row.id for row in find_rows(self._connection, statement, records.c.id, asked)}
        for act, kind, names in named:
            if names.isdisjoint(known) and self._add(act, kind):
                known |= names
        self._write()

    def _name(self, act: Act) -> set[str]:
        return {_identify(act, subject) for subject in self._keyring.subjects_of(act.key)}

    def _add(self, act: Act, kind: str) -> bool:
        past = self.pasts[act.key]
        at = to_milliseconds(act.at, act.state.value, self._now)
        if at <= past.erased_at:
            return False
        past.revision += 1
        if act.state is ActState.ERASED:
            past.erased_at = at
        self._rows.append(self._chain(act, kind, at, past.revision))
        if act.notice is not None:
            self._archive(act.notice)
        return True

    def _write(self) -> None:
        if not self._rows:
            return
        self._connection.execute(insert(records), self._rows)
        move_head(self._connection, self._project, self._keyring.newest, self._head)
        statement = select(notices.c.digest, notices.c.language)
        statement = statement.where(notices.c.project == self._project)
        digests = {digest for digest, _ in self._notices}
        for row in find_rows(self._connection, statement, notices.c.digest, digests):
            self._notices.pop((row.digest, row.language), None)
        if self._notices:
            self._connection.execute(insert(notices), self._render_notices())

    def _chain(self, act: Act, kind: str, at: int, revision: int) -> dict[str, Any]:
        key = self._keyring.newest
        subject = key.subject_of(act.key)
        row: dict[str, Any] = {
            "project": self._project,
            "seq": self._head.seq + 1,
            "key_id": key.id,
            "id": _identify(act, subject),
            "subject": subject,
            "revision": revision,
            "kind": kind,
            "at": at,
            "salt": secrets.token_hex(SALT_BYTES),
            **_render_texts(act),
        }
        row["digest"] = digest_of(row)
        row["hash"] = hash_of(key, self._head.hash, row["digest"])
        self._head = Head(row["seq"], row["hash"])
        return row

    def _archive(self, notice: Notice) -> None:
        self._notices[(notice.digest, _clean(notice.language, "language"))] = notice

    def _render_notices(self) -> list[dict[str, Any]]:
        return [
            {
                "project": self._project,
                "digest": digest,
                "language": language,
                "text": json.dumps(notice.text),
            }
            for (digest, language), notice in self._notices.items()
        ]


def _identify(act: Act, subject: str) -> str:
    words = f"{subject} {act.state.value} {float(act.at)!r} {act.source}"
    return sha256(words.encode("utf-8", "surrogatepass")).hexdigest()


def _render_texts(act: Act) -> dict[str, str]:
    notice = act.notice
    texts = {
        "state": act.state.value,
        "version": act.version,
        "notice_digest": notice.digest if notice else "",
        "language": notice.language if notice else "",
        "basis": act.basis,
        "model": act.model,
        "region": act.region,
        "source": act.source,
        "evidence": act.evidence,
    }
    return {name: _clean(text, name) for name, text in texts.items()}


def _clean(text: str, name: str) -> str:
    """Answer what the column can hold: PostgreSQL refuses NUL, all refuse lone surrogates."""
    cleaned = text.encode("utf-8", "replace").decode().replace("\0", "")
    return cleaned[: _LIMITS[name]]
