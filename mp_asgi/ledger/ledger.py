"""Record what visitors chose, and answer where they stand: the door of this room."""

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from hashlib import sha256
from typing import Final

from sqlalchemy import Column, Connection, func, insert, inspect, select

from mp_asgi.events import Act, Link, Standing

from .erasure import bury, purge
from .errors import LedgerUnavailable, UnusableLedger
from .head import Head, read_head, start_chain
from .keys import Keyring
from .links import Links
from .moment import to_milliseconds
from .past import find_acts
from .record import Record, read_record, select_records
from .recorder import Recorder
from .standing import stand
from .store import Store
from .tables import SCHEMA_VERSION, heads, links, metadata, records, schema
from .verification import PAGE, Verification, verify_ledger

_PAUSE_SECONDS: Final = 0.05
_LATE_MILLISECONDS: Final = 3_600_000  # how long after a tombstone an older link still counts
_ATTEMPTS: Final = 8  # to create the tables, while other processes do the same


class Ledger:
    """The append-only record of one project's consent, in one database.

    Any number of threads and processes may use it, also after a fork. Nothing connects before
    the first call. Each call waits for the database about `timeout_seconds` at most, for each of
    its statements; `verify` and `export` make many.

    Args:
        url: A path, `sqlite:///PATH`, or the URL of a PostgreSQL, MySQL or MariaDB.
        keys: Secrets of at least 32 bytes, oldest first; the last one writes.
        project: Names the Mixpanel project; each has a chain of its own.
        clock: Answers seconds since the epoch. No act is recorded as later than now.
        timeout_seconds: How long a statement, a lock or a connection may take.

    Raises:
        UnusableLedger: The URL or the keys cannot be used.
    """

    def __init__(
        self,
        url: str,
        keys: Sequence[str],
        *,
        project: bytes,
        clock: Callable[[], float] = time.time,
        timeout_seconds: float = 2.0,
    ) -> None:
        self._store = Store(url, timeout_seconds)
        self._keyring = Keyring(keys)
        self._project = sha256(project).hexdigest()[:32]
        self._clock = clock
        self._timeout_seconds = timeout_seconds
        self._seen = Head(0, "")  # how far the chain went when it was last asked

    def open(self, *, creates: bool = True) -> None:
        """Create what is missing, and check that we can go on with what is there.

        Args:
            creates: False where a ledger that is not there is a mistake.

        Raises:
            LedgerUnavailable: The database gave no answer.
            UnusableLedger: There is none; it is of a newer version, holds records made with a key
                that is not listed, or lost the end of the chain; or the file cannot be written.
        """
        if not creates:
            self._require()
        deadline = time.monotonic() + self._timeout_seconds
        for _ in range(_ATTEMPTS - 1):
            try:
                return self._prepare()
            except LedgerUnavailable:
                if time.monotonic() > deadline:
                    raise
                time.sleep(_PAUSE_SECONDS)  # another process creates it, too
        return self._prepare()

    def append(self, items: Sequence[Act | Link]) -> None:
        """Record acts in their order, and links; all of them or none. Twice is as once.

        Nothing is recorded for a key from the time of its tombstone or before it.

        Raises:
            LedgerUnavailable: They may be recorded or not: append them again.
        """
        acts = [item for item in items if isinstance(item, Act)]
        met = [item for item in items if isinstance(item, Link)]
        if not items:
            return
        keys = {act.key for act in acts}.union(*((link.user_key, link.device_key) for link in met))
        now = self._clock()
        with self._store.writing() as connection:
            recorder = Recorder(connection, self._project, self._keyring, keys, now)
            recorder.record([(act, act.subject.value) for act in acts])
            links_now = self._links(connection)
            for link in met:
                at = to_milliseconds(link.at, "", now)
                pasts = [recorder.pasts[key] for key in (link.user_key, link.device_key)]
                erased_at = max(past.erased_at for past in pasts)
                # One that waited in another process while an erasure began tells it of a device.
                if at > erased_at or int(now * 1_000) - erased_at <= _LATE_MILLISECONDS:
                    links_now.add(link, at)

    def standings(self, keys: Collection[bytes]) -> dict[bytes, Standing]:
        """Answer where each key of the outbox stands; a key without records is absent.

        What it takes does not grow with what is recorded of a key.

        Raises:
            LedgerUnavailable: Never a grant.
        """
        owners, before = self._keyring.owners(keys), self._seen
        with self._store.reading() as connection:
            self._seen = self._check_end(connection, before)
            acts = find_acts(connection, self._project, owners, self._clock())
        return {key: stand(found) for key, found in acts.items()}

    def current(self, key: bytes) -> Standing | None:
        """Answer where one key stands; None without records."""
        return self.standings([key]).get(key)

    def history(self, key: bytes) -> list[Record]:
        """Answer what is recorded of one key, in the order of the chain.

        What was erased is not among it: it no longer tells whose it was.
        """
        subjects = self._keyring.subjects_of(key)
        statement = select_records(self._project).where(records.c.subject.in_(subjects))
        with self._store.reading() as connection:
            return [read_record(row) for row in connection.execute(statement)]

    def export(self, *, since: float = 0.0, until: float | None = None) -> Iterator[Record]:
        """Answer the records one by one, in the order of the chain.

        Args:
            since: Seconds since the epoch of the earliest act.
            until: Of the latest act; None for no limit. Erased records have no time, and are
                always among them.
        """
        in_time = records.c.at >= since * 1000
        if until is not None:
            in_time &= records.c.at <= until * 1000
        statement = select_records(self._project).where(in_time | records.c.at.is_(None))
        seq = 0
        while True:
            with self._store.reading() as connection:
                page = statement.where(records.c.seq > seq).limit(PAGE)
                rows = connection.execute(page).all()
            yield from map(read_record, rows)
            if len(rows) < PAGE:
                return
            seq = rows[-1].seq

    def verify(self, head: str = "") -> Verification:
        """Recompute the whole chain and say what was changed.

        Args:
            head: Hash of a record, noted earlier, that must be there. Without it, a database put
                back to an older state as a whole does not show.
        """
        with self._store.reading() as connection:
            return verify_ledger(connection, self._project, self._keyring, head)

    def links_of_user(self, user_key: bytes) -> list[Link]:
        """Answer the devices that a user met, in that order.

        Raises:
            LedgerUnavailable: Also if a link was changed.
        """
        return self._links_of(links.c.user_subject, user_key)

    def links_of_device(self, device_key: bytes) -> list[Link]:
        """Answer the users that a device met, in that order.

        Raises:
            LedgerUnavailable: Also if a link was changed.
        """
        return self._links_of(links.c.device_subject, device_key)

    def erase(self, keys: Collection[bytes], at: float) -> int:
        """Put a tombstone on each key, then empty its records up to `at` and delete its links.

        Nothing of that remains in an SQLite file or its log; a server's own vacuum removes it
        there. Twice is as once.

        Args:
            keys: Of the outbox: a user and its known devices.
            at: Seconds since the epoch.

        Returns:
            How many records were emptied.

        Raises:
            LedgerUnavailable: It may have begun: erase again.
        """
        keys = list(dict.fromkeys(keys))
        with self._store.writing() as connection:
            bury(connection, self._project, self._keyring, keys, at=at, now=self._clock())
        with self._store.writing() as connection:
            emptied = purge(connection, self._project, self._keyring, keys)
        self._store.scrub()
        return emptied

    def close(self) -> None:
        """Close this process's connections; the next call opens new ones."""
        self._store.close()

    def _check_end(self, connection: Connection, before: Head) -> Head:
        """Refuse a ledger that has gone back: an old copy forgets who has refused."""
        head = read_head(connection, self._project, self._keyring)
        if head.seq < before.seq or (head.seq == before.seq and before.hash not in {"", head.hash}):
            raise LedgerUnavailable(
                f"The ledger {self._store.name} ends before what was read from it: it is an older "
                "copy, or another one. Restore it, or restart to go on with this one."
            )
        return head

    def _require(self) -> None:
        self._store.require()
        with self._store.reading() as connection:
            known = inspect(connection).has_table(heads.name)
            row = (
                known
                and connection.execute(
                    select(heads.c.seq).where(heads.c.project == self._project)
                ).first()
            )
        if not row:
            raise UnusableLedger(f"There is no ledger of this project at {self._store.name}.")

    def _prepare(self) -> None:
        self._store.prepare()
        with self._store.writing() as connection:
            metadata.create_all(connection)
            self._check_version(connection)
            self._check_keys(connection)
            start_chain(connection, self._project, self._keyring.newest)

    def _check_version(self, connection: Connection) -> None:
        version = connection.execute(select(func.max(schema.c.version))).scalar()
        if version is None:
            connection.execute(insert(schema).values(version=SCHEMA_VERSION))
        elif version > SCHEMA_VERSION:
            raise UnusableLedger(
                f"The ledger {self._store.name} has version {version}, and this mp-asgi knows "
                f"{SCHEMA_VERSION}. Upgrade mp-asgi."
            )

    def _check_keys(self, connection: Connection) -> None:
        used = select(records.c.key_id).where(records.c.project == self._project).distinct()
        fingerprints = connection.execute(used).scalars().all()
        missing = sorted({*fingerprints} - {key.id for key in self._keyring})
        if missing:
            raise UnusableLedger(
                f"The ledger {self._store.name} holds records made with a key that is not listed "
                f"(fingerprint {', '.join(missing)}). List that key before the newer ones."
            )

    def _links_of(self, column: Column[str], key: bytes) -> list[Link]:
        with self._store.reading() as connection:
            return self._links(connection).of(column, key)

    def _links(self, connection: Connection) -> Links:
        return Links(connection, self._project, self._keyring)
