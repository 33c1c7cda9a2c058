"""Look up what a project's records say of subjects, however long their histories are.

Short ones are read as they are. Of the others, each statement goes to one end of an index: an
aggregate over a group would read all of it, in SQLite and in PostgreSQL.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    FromClause,
    Row,
    Select,
    String,
    column,
    or_,
    select,
    text,
)

from mp_asgi.events import ActState

from .keys import Keyring
from .moment import DENIALS, is_moment, to_milliseconds
from .standing import PastAct
from .tables import records

CHUNK: Final = 1000  # values in one IN list; SQLite may be built to take no more
ASKED: Final = 100  # subjects at once; of a UNION, SQLite takes 500 parts (sqlite.org/limits.html)
SHORT: Final = 16  # acts of a subject, on the average of those asked about at once

_STATES: Final = tuple(state.value for state in ActState)
_OPEN: Final = tuple(state for state in _STATES if state not in DENIALS)
_DENIED: Final = ActState.DENIED.value
_ERASED: Final = ActState.ERASED.value
_ASKED: Final = (column("subject", String), column("moment", BigInteger))

_other: Final = records.alias("other")

Own = Select[tuple[int]]  # places of a subject's acts


@dataclass(slots=True)
class Past:
    """What a writer must know of one key.

    Attributes:
        revision: Of its last act.
        erased_at: Milliseconds since the epoch of its newest tombstone; -1 without one.
    """

    revision: int = 0
    erased_at: int = -1


def find_acts(
    connection: Connection, project: str, owners: Mapping[str, bytes], now: float
) -> dict[bytes, list[PastAct]]:
    """Answer the acts that decide where each key stands; a key without records is absent.

    Of a long history these are the newest acts, the newest denial and the first act after it. If
    the time of one cannot be read, all there is is a denial of now, as it could not be outdone.

    Args:
        connection: To read with.
        project: Whose chain.
        owners: The key behind each subject.
        now: Seconds since the epoch.
    """
    names = PastAct._fields
    rows, long = _read_short(connection, project, owners, names)
    for choose in (_newest, _newest_denial, _timeless):
        rows += _ask(connection, project, choose, dict.fromkeys(long, 0), names)
    acts: dict[bytes, list[PastAct]] = {}
    for row in rows:
        acts.setdefault(owners[row.subject], []).append(PastAct._make(row[1:]))
    denial = PastAct(to_milliseconds(now, _DENIED, now), 0, _DENIED)
    spoilt = {
        key: [denial] for key, found in acts.items() if not all(is_moment(act.at) for act in found)
    }
    sound = [subject for subject in long if owners[subject] in acts.keys() - spoilt.keys()]
    ends = {subject: _find_end(acts[owners[subject]]) for subject in sound}
    for row in _ask(connection, project, _first_after, ends, names):
        acts[owners[row.subject]].append(PastAct._make(row[1:]))
    return acts | spoilt


def find_pasts(
    connection: Connection, project: str, keyring: Keyring, keys: Collection[bytes], now: float
) -> dict[bytes, Past]:
    """Answer what a writer must know of each key, also of one without records.

    A tombstone whose time cannot be read is of now.
    """
    owners = keyring.owners(keys)
    pasts = {key: Past() for key in keys}
    names = ("state", "revision", "at")
    rows, long = _read_short(connection, project, owners, names)
    for state in _STATES:
        # Of a key's tombstones the last one is the newest: no other would have been recorded.
        rows += _ask(connection, project, partial(_last_in, state), dict.fromkeys(long, 0), names)
    for row in rows:
        past = pasts[owners[row.subject]]
        past.revision = max(past.revision, row.revision or 0)
        if row.state == _ERASED:
            erased_at = row.at if is_moment(row.at) else to_milliseconds(now, _ERASED, now)
            past.erased_at = max(past.erased_at, erased_at)
    return pasts


def find_rows(
    connection: Connection,
    statement: Select[*tuple[Any, ...]],
    column: Column[Any],
    values: Iterable[str],
) -> Iterator[Row[Any]]:
    """Answer the rows in which the column has one of the values."""
    for chunk in chunks(values):
        yield from connection.execute(statement.where(column.in_(chunk)))


def chunks(values: Iterable[str], size: int = CHUNK) -> Iterator[Sequence[str]]:
    """Cut values into lists that a statement can take."""
    ordered = list(values)
    for start in range(0, len(ordered), size):
        yield ordered[start : start + size]


def _read_short(
    connection: Connection, project: str, subjects: Iterable[str], names: Sequence[str]
) -> tuple[list[Row[Any]], list[str]]:
    """Answer all acts of the subjects that have few, and the subjects that may have many."""
    rows: list[Row[Any]] = []
    long: list[str] = []
    statement = select(records.c.subject, *(records.c[name] for name in names))
    for chunk in chunks(subjects, ASKED):
        limit = SHORT * len(chunk)
        few = statement.where(records.c.project == project, records.c.subject.in_(chunk))
        found = connection.execute(few.limit(limit + 1)).all()
        if len(found) > limit:
            long += chunk
        else:
            rows += found
    return rows, long


def _ask(
    connection: Connection,
    project: str,
    choose: Callable[[Own, FromClause], Own],
    asked: Mapping[str, int],
    names: Sequence[str],
) -> list[Row[Any]]:
    """Answer the one act that is chosen of each subject, asked about with a moment."""
    rows: list[Row[Any]] = []
    for chunk in chunks(asked, ASKED):
        numbers = range(len(chunk))
        parts = [f"SELECT :s{number} AS subject, :m{number} AS moment" for number in numbers]
        values: dict[str, str | int] = {f"s{number}": chunk[number] for number in numbers}
        values |= {f"m{number}": asked[chunk[number]] for number in numbers}
        table = text(" UNION ALL ".join(parts)).columns(*_ASKED).subquery("asked")
        own = select(_other.c.seq).where(
            _other.c.project == project, _other.c.subject == table.c.subject
        )
        # By its place: two indexes begin with the subject, and PostgreSQL may take the wrong one.
        place = choose(own, table).limit(1).correlate(table).scalar_subquery()
        is_chosen = (records.c.project == project) & (records.c.seq == place)
        statement = select(table.c.subject, *(records.c[name] for name in names))
        rows += connection.execute(statement.join_from(table, records, is_chosen), values)
    return rows


def _newest(own: Own, _: FromClause) -> Own:
    return own.where(_other.c.at.is_not(None)).order_by(_other.c.at.desc(), _other.c.seq.desc())


def _newest_denial(own: Own, asked: FromClause) -> Own:
    is_denial = or_(_other.c.state.not_in(_OPEN), _other.c.state.is_(None))
    return _newest(own, asked).where(is_denial)


def _first_after(own: Own, asked: FromClause) -> Own:
    return own.where(_other.c.at > asked.c.moment).order_by(_other.c.at, _other.c.seq)


def _timeless(own: Own, _: FromClause) -> Own:
    return own.where(_other.c.at.is_(None)).order_by(_other.c.at, _other.c.seq)


def _last_in(state: str, own: Own, _: FromClause) -> Own:
    last = own.where(_other.c.state == state, _other.c.revision.is_not(None))
    return last.order_by(_other.c.revision.desc())


def _find_end(acts: Iterable[PastAct]) -> int:
    return max((act.at for act in acts if act.is_denial), default=-1)
