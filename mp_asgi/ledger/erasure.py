"""Erase people from a project's chain: tombstones first, then what was known of them.

RULES section 3. A tombstone keeps the keyed hash, so that tracking does not resume.
"""

from collections.abc import Collection, Iterator, Sequence
from typing import Any, Final

from sqlalchemy import Connection, Row, bindparam, select, update

from mp_asgi.events import Act, ActState, Subject

from .chain import seal_erased
from .errors import LedgerUnavailable
from .head import lock_head
from .keys import Keyring
from .links import Links
from .moment import is_moment
from .past import find_acts, find_rows
from .recorder import Recorder
from .standing import stand
from .tables import CONTENT, records

_ERASED: Final = ActState.ERASED.value
_EMPTY: Final = (
    update(records)
    .where(records.c.seq == bindparam("place"))
    .values(dict.fromkeys(CONTENT))
    .values(erased_by=bindparam("tombstone"), seal=bindparam("vouched"))
)


def bury(
    connection: Connection,
    project: str,
    keyring: Keyring,
    keys: Collection[bytes],
    *,
    at: float,
    now: float,
) -> None:
    """Put a tombstone on each key, unless one is its newest act or stands at `at` or later.

    Args:
        connection: To write with, in a transaction of its own.
        project: Whose chain.
        keyring: The ledger's keys.
        keys: Of the outbox.
        at: Seconds since the epoch.
        now: Likewise.
    """
    recorder = Recorder(connection, project, keyring, keys, now)
    kinds = _find_kinds(connection, project, keyring, keys)
    acts = find_acts(connection, project, keyring.owners(keys), now)
    tombstones: list[tuple[Act, str]] = []
    for key in keys:
        if key not in acts or stand(acts[key]).state is not ActState.ERASED:
            # Whether it is a user or a device may be unknown; the row takes what is known.
            tombstone = Act(
                key=key, subject=Subject.DEVICE, state=ActState.ERASED, at=at, source="operator"
            )
            tombstones.append((tombstone, kinds.get(key, "")))
    recorder.record(tombstones)


def purge(connection: Connection, project: str, keyring: Keyring, keys: Collection[bytes]) -> int:
    """Empty the records that a tombstone of the same key ends, and delete the links of the keys.

    Returns:
        How many records were emptied.
    """
    lock_head(connection, project, keyring)
    owners = keyring.owners(keys)
    statement = select(records).where(records.c.project == project)
    by_key: dict[bytes, list[Row[Any]]] = {}
    for row in find_rows(connection, statement, records.c.subject, owners):
        by_key.setdefault(owners[row.subject], []).append(row)
    emptied = [change for rows in by_key.values() for change in _empty(rows, keyring)]
    if emptied:
        connection.execute(_EMPTY.where(records.c.project == project), emptied)
    Links(connection, project, keyring).remove(owners)
    return len(emptied)


def _empty(rows: Sequence[Row[Any]], keyring: Keyring) -> Iterator[dict[str, Any]]:
    tombstones = [row for row in rows if row.state == _ERASED and is_moment(row.at)]
    if not tombstones:
        return
    erased_at, erased_by = max((row.at, row.seq) for row in tombstones)
    for row in rows:
        # A time that cannot be read is none that keeps a record from its erasure.
        if row.state == _ERASED or (is_moment(row.at) and row.at > erased_at):
            continue
        key = keyring.find(row.key_id)
        if key is None:
            raise LedgerUnavailable(f"The ledger's key {row.key_id} is missing. List it again.")
        seal = seal_erased(key, row.digest, erased_by)
        yield {"place": row.seq, "tombstone": erased_by, "vouched": seal}


def _find_kinds(
    connection: Connection, project: str, keyring: Keyring, keys: Collection[bytes]
) -> dict[bytes, str]:
    owners = keyring.owners(keys)
    found = Links(connection, project, keyring).kinds(owners)
    statement = select(records.c.subject, records.c.kind).where(records.c.project == project)
    for row in find_rows(connection, statement, records.c.subject, owners):
        found[row.subject] = row.kind or found.get(row.subject, "")
    return {owners[subject]: kind for subject, kind in found.items() if subject in owners}
