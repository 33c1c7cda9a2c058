"""Read a project's whole ledger again and say what somebody changed in it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, RowMapping, select

from mp_asgi.events import ActState, Notice

from .chain import digest_of, hash_of, seal_erased, seal_head, start_hash
from .keys import Key, Keyring
from .links import read_link
from .record import read_notice_text
from .tables import CONTENT, heads, links, notices, records

PAGE: Final = 1000  # records in one statement, which the timeout bounds

_LOWEST: Final = -(1 << 63)  # below every seq, also of a row that somebody put in


@dataclass(frozen=True, slots=True)
class Verification:
    """What a look at the whole ledger found.

    Attributes:
        is_intact: Whether there is no problem.
        records: How many there are, erased ones included.
        erased: How many of them are empty.
        head: Hash of the last record: noted elsewhere and given to a later verification, it
            shows that nothing before was taken away.
        problems: One sentence each.
    """

    is_intact: bool
    records: int
    erased: int
    head: str
    problems: tuple[str, ...]


def verify_ledger(
    connection: Connection, project: str, keyring: Keyring, noted: str
) -> Verification:
    """Recompute every digest, hash and seal, and open every link.

    Args:
        connection: To read with; all statements see the same moment.
        project: Whose chain.
        keyring: The ledger's keys.
        noted: The hash of a record that must be there; empty for none.
    """
    audit = _Audit(project, keyring, noted)
    for row in _read_records(connection, project):
        audit.check(row)
    head = select(heads).where(heads.c.project == project)
    audit.check_end(connection.execute(head).mappings().first())
    notice = select(notices).where(notices.c.project == project)
    audit.check_notices(connection.execute(notice).mappings().all())
    for link in connection.execute(select(links).where(links.c.project == project)):
        if read_link(link, keyring) is None:
            audit.problems.append(f"A link of the user {link.user_subject} was changed.")
    problems = tuple(audit.problems)
    return Verification(not problems, audit.records, audit.erased, audit.hash, problems)


class _Audit:
    """One walk along a chain.

    Attributes:
        problems: One sentence each.
        records: How many were seen.
        erased: How many of them are empty.
        hash: Of the last one.
    """

    def __init__(self, project: str, keyring: Keyring, noted: str) -> None:
        self.problems: list[str] = []
        self.records = 0
        self.erased = 0
        self.hash = start_hash(project)
        self._keyring = keyring
        self._noted = noted
        self._is_noted_seen = noted in {"", self.hash}
        self._seq = 0
        self._tombstones: set[int] = set()
        self._erased_by: dict[int, int] = {}
        self._named: dict[tuple[str, str], int] = {}

    def check(self, row: RowMapping) -> None:
        """Look at the next record."""
        seq = row["seq"]
        self.records += 1
        key = self._keyring.find(row["key_id"])
        if key is None:
            self.problems.append(f"Record {seq} names the key {row['key_id']}, which is missing.")
        else:
            self._check_place(row, key)
            self._check_content(row, key)
        if row["notice_digest"]:
            self._named.setdefault((row["notice_digest"], row["language"]), seq)
        self._is_noted_seen = self._is_noted_seen or row["hash"] == self._noted
        self._seq, self.hash = seq, row["hash"]

    def check_end(self, head: RowMapping | None) -> None:
        """Look at the end of the chain, after the last record."""
        if head is None:
            self.problems.append("The row of mp_asgi_heads that ends the chain is missing.")
        elif (head["seq"], head["hash"]) != (self._seq, self.hash):
            self.problems.append(
                f"The chain ends at record {head['seq']}, but the last record is {self._seq}."
            )
        elif not self._is_sealed(head):
            self.problems.append("The row of mp_asgi_heads that ends the chain was changed.")
        if not self._is_noted_seen:
            self.problems.append(f"The noted record {self._noted} is missing.")
        for seq, tombstone in self._erased_by.items():
            if tombstone not in self._tombstones:
                self.problems.append(f"Record {seq} is empty without a tombstone.")

    def check_notices(self, archived: Sequence[RowMapping]) -> None:
        """Look at all archived notices, after the last record."""
        for notice in archived:
            self._named.pop((notice["digest"], notice["language"]), None)
            if Notice("", read_notice_text(notice["text"])).digest != notice["digest"]:
                self.problems.append(f"The text of the notice {notice['digest']} was changed.")
        for (digest, _), seq in self._named.items():
            self.problems.append(f"The notice {digest} of record {seq} is missing.")

    def _check_place(self, row: RowMapping, key: Key) -> None:
        seq = row["seq"]
        if seq != self._seq + 1:
            # What the record continues is gone, so its hash cannot be checked.
            self.problems.append(f"Record {self._seq + 1} is missing: {seq} follows.")
        elif row["hash"] != hash_of(key, self.hash, row["digest"]):
            self.problems.append(f"Record {seq} does not continue the chain.")

    def _check_content(self, row: RowMapping, key: Key) -> None:
        seq, erased_by = row["seq"], row["erased_by"]
        if erased_by is None:
            if digest_of(row) != row["digest"]:
                self.problems.append(f"The content of record {seq} was changed.")
            elif row["state"] == ActState.ERASED.value:
                self._tombstones.add(seq)
            return
        self.erased += 1
        self._erased_by[seq] = erased_by
        is_empty = all(row[name] is None for name in CONTENT)
        if not is_empty or row["seal"] != seal_erased(key, row["digest"], erased_by):
            self.problems.append(f"Record {seq} was not erased by us.")

    def _is_sealed(self, head: RowMapping) -> bool:
        key = self._keyring.find(head["key_id"])
        return key is not None and head["seal"] == seal_head(
            key, head["project"], head["seq"], head["hash"]
        )


def _read_records(connection: Connection, project: str) -> Iterator[RowMapping]:
    statement = select(records).where(records.c.project == project).order_by(records.c.seq)
    seq = _LOWEST
    while True:
        page = statement.where(records.c.seq > seq).limit(PAGE)
        rows = connection.execute(page).mappings().all()
        yield from rows
        if len(rows) < PAGE:
            return
        seq = rows[-1]["seq"]
