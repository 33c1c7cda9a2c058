"""Hold the end of a project's chain: who holds its row appends, and nobody else."""

from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, Select, func, insert, select, update

from .chain import seal_head, start_hash
from .errors import LedgerUnavailable, UnusableLedger
from .keys import Key, Keyring
from .tables import heads, records

_HEAD: Final = select(heads.c.seq, heads.c.hash, heads.c.key_id)


class Head(NamedTuple):
    """The last record of a chain.

    Attributes:
        seq: Its place; 0 before the first.
        hash: In hexadecimal digits.
    """

    seq: int
    hash: str


def lock_head(connection: Connection, project: str, keyring: Keyring) -> Head:
    """Answer the end of the chain, which stays the end until the transaction is over.

    Raises:
        LedgerUnavailable: As for `read_head`.
    """
    return _read(connection, _HEAD.with_for_update(), project, keyring)


def read_head(connection: Connection, project: str, keyring: Keyring) -> Head:
    """Answer the end of the chain.

    Raises:
        LedgerUnavailable: There is none, so that nobody knows who has refused; or its last writer
            used a key that we do not list, so that we cannot find whom it wrote about.
    """
    return _read(connection, _HEAD, project, keyring)


def _read(
    connection: Connection, statement: Select[Any, Any, Any], project: str, keyring: Keyring
) -> Head:
    row = connection.execute(statement.where(heads.c.project == project)).first()
    if row is None:
        raise LedgerUnavailable("The ledger has no chain for this project: it is lost, or new.")
    if row.key_id not in {key.id for key in keyring}:
        raise LedgerUnavailable(
            "The ledger was written with a key that this process does not list. Restart it with "
            "all keys; list a new key everywhere, before the last one, before it writes."
        )
    return Head(row.seq, row.hash)


def move_head(connection: Connection, project: str, key: Key, head: Head) -> None:
    """Let the chain end at `head`."""
    connection.execute(
        update(heads).where(heads.c.project == project).values(_render(project, key, head))
    )


def start_chain(connection: Connection, project: str, key: Key) -> None:
    """Let a project's chain begin, unless it has.

    Raises:
        UnusableLedger: There are records, but their end is gone.
    """
    if connection.execute(select(heads.c.seq).where(heads.c.project == project)).first():
        return
    count = select(func.count()).select_from(records).where(records.c.project == project)
    if connection.execute(count).scalar_one():
        raise UnusableLedger(
            "The ledger holds records, but the row of mp_asgi_heads that ends their chain is gone. "
            "Somebody removed it: restore a backup."
        )
    head = Head(0, start_hash(project))
    connection.execute(insert(heads).values(project=project, **_render(project, key, head)))


def _render(project: str, key: Key, head: Head) -> dict[str, object]:
    seal = seal_head(key, project, head.seq, head.hash)
    return {"seq": head.seq, "hash": head.hash, "key_id": key.id, "seal": seal}
