"""Look up what a project's records say of subjects, in few statements for many."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Column, Connection, Row, Select, select

from .standing import PastAct
from .tables import records

CHUNK: Final = 1000  # values in one IN list; SQLite may be built to take no more

# After the subject in the order of PastAct.
_PAST_ACT: Final = select(
    records.c.subject,
    records.c.at,
    records.c.seq,
    records.c.state,
    records.c.version,
    records.c.source,
    records.c.revision,
    records.c.id,
)


def find_acts(
    connection: Connection, project: str, owners: Mapping[str, bytes]
) -> dict[bytes, list[PastAct]]:
    """Answer the acts of each key that has any.

    Args:
        connection: To read with.
        project: Whose chain.
        owners: The key behind each subject.
    """
    acts: dict[bytes, list[PastAct]] = {}
    statement = _PAST_ACT.where(records.c.project == project)
    for row in find_rows(connection, statement, records.c.subject, owners):
        acts.setdefault(owners[row.subject], []).append(PastAct._make(row[1:]))
    return acts


def find_rows(
    connection: Connection,
    statement: Select[*tuple[Any, ...]],
    column: Column[Any],
    values: Iterable[str],
) -> Iterator[Row[Any]]:
    """Answer the rows in which the column has one of the values."""
    for chunk in chunks(values):
        yield from connection.execute(statement.where(column.in_(chunk)))


def chunks(values: Iterable[str]) -> Iterator[Sequence[str]]:
    """Cut values into lists that a statement can take."""
    ordered = list(values)
    for start in range(0, len(ordered), CHUNK):
        yield ordered[start : start + CHUNK]
