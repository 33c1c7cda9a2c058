"""Take in what other processes have left in their journals: stops first, of all of them, then the
rest in the order in which it was submitted, whichever process that was.

What stands in a journal may be older than a stop in another one, and must not leave before it is
read; and what one user did may stand in the journals of several.
"""

import heapq
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import Final, NamedTuple

from .journal import Group, JournalFile, Record, make_ticket, read_on
from .journals import Journals
from .log import logger

MAX_FILES: Final = 64  # that are locked at once; macOS lets a process have 256
PART: Final = 100  # records that are read at once, and put at least before somebody else's turn


class _Found(NamedTuple):
    at: float
    name: str
    group: Group
    is_behind_damage: bool


class Heir:
    """Empty what processes have left that ended, and follow those without threads, on one thread.

    Args:
        journals: Of the project.
        forget: Obeys the stop in a record. Answers whether the outbox has it now.
        store: Puts a group. Answers whether the outbox has it now.
        on_damaged: Called for what could not be read in the middle of a file.
        is_pressed: Whether to break off, and go on in the next call.

    Attributes:
        is_interrupted: Whether the last call broke off for that.
    """

    def __init__(
        self,
        journals: Journals,
        *,
        forget: Callable[[Record], bool],
        store: Callable[[Group], bool],
        on_damaged: Callable[[], None],
        is_pressed: Callable[[], bool],
    ) -> None:
        self.is_interrupted = False
        self._journals = journals
        self._forget = forget
        self._store = store
        self._on_damaged = on_damaged
        self._is_pressed = is_pressed
        # By file, how far: of each that is there still.
        self._heard: dict[str, int] = {}
        self._stored: dict[str, int] = {}
        self._unread: set[str] = set()  # what could not be read in the last look
        self._max_files = MAX_FILES
        self._told: set[str] = set()

    def forget(self, inherited: Sequence[JournalFile] = ()) -> bool:
        """Obey all stops in others' journals. Return whether the outbox has them: not while one of
        the files cannot be read.

        Args:
            inherited: Orphans that this process holds, beside all that it does not hold.
        """
        self._unread = set()
        try:
            others = self._journals.others()
        except OSError as error:
            return self._give_up(error)
        names = [path.name for path in (*others, *(file.path for file in inherited))]
        heard = self._heard = {name: self._heard.get(name, 0) for name in names}
        readers = {path.name: _follow(path, heard[path.name]) for path in others}
        for file in inherited:
            readers[file.path.name] = file.read_on(heard[file.path.name], file.size)
        return all(self._hear(*reader) for reader in readers.items()) and not self._unread

    def inherit(self) -> bool:
        """Put what others have left. Return whether the outbox has all of it."""
        self.is_interrupted = False
        try:
            return self._inherit(self._journals.others(), self._journals.lone())
        except OSError as error:
            return self._give_up(error)

    def _inherit(self, there: Sequence[Path], lone: Sequence[Path]) -> bool:
        self._stored = {path.name: self._stored.get(path.name, 0) for path in there}
        seen: set[Path] = set()
        while True:
            orphans = self._lock_orphans(seen)
            seen.update(file.path for file in orphans)
            is_last = len(orphans) < self._max_files
            living = [path for path in lone if is_last and path not in seen]
            is_done = self._take_in(orphans, living)
            if is_last or not is_done:
                return is_done

    def _lock_orphans(self, seen: set[Path]) -> list[JournalFile]:
        """Answer the next ones: fewer from now on, if no descriptor is left to the app.

        Raises:
            OSError: Not even one can be opened.
        """
        orphans: list[JournalFile] = []
        try:
            for file in islice(self._journals.orphans(seen), self._max_files):
                orphans.append(file)  # noqa: PERF402  # keeps what came before an error
        except OSError as error:
            self._give_up(error)
            self._max_files = max(1, len(orphans) // 2)
            for file in orphans[self._max_files :]:
                self._journals.leave(file)
            if not orphans:
                raise
        return orphans[: self._max_files]

    def _take_in(self, orphans: Sequence[JournalFile], lone: Sequence[Path]) -> bool:
        """Put what some files hold, as far as their stops are obeyed."""
        adopted: Counter[str] = Counter()
        is_done = self.forget(orphans) and self._store_all(orphans, lone, adopted)
        for file in orphans:
            if not is_done or file.path.name in self._unread:
                self._journals.leave(file)
            elif not self._journals.remove(file):
                self._tell("kept", f"{file.path} cannot be deleted; the outbox has all of it")
        if count := sum(adopted[file.path.name] for file in orphans):
            logger.info("Adopted %d messages of processes that have ended.", count)
        return is_done and self._unread.isdisjoint(file.path.name for file in orphans)

    def _store_all(
        self, orphans: Sequence[JournalFile], lone: Sequence[Path], adopted: Counter[str]
    ) -> bool:
        readers = [self._read_orphan(file) for file in orphans]
        readers += [self._read_lone(path) for path in lone]
        merged = heapq.merge(*readers, key=itemgetter(0))
        for count, (_, name, group, is_behind_damage) in enumerate(merged):
            self.is_interrupted = count >= PART and self._is_pressed()
            if self.is_interrupted or not self._store(group):
                return False
            if is_behind_damage:
                self._on_damaged()
            self._stored[name] = group.end
            adopted[name] += sum(record.messages for record in group.records)
        return True

    def _read_orphan(self, file: JournalFile) -> Iterator[_Found]:
        name = file.path.name
        start, end = self._stored.get(name, 0), self._heard.get(name, 0)
        return self._find(name, start, file.read_on(start, end))

    def _read_lone(self, path: Path) -> Iterator[_Found]:
        start, end = self._stored.get(path.name, 0), self._heard.get(path.name, 0)
        return self._find(path.name, start, _follow(path, start, end))

    def _hear(self, name: str, records: Iterator[Record]) -> bool:
        """Obey the stops of a file. Return whether the outbox took them."""
        for record in self._read(name, records):
            if record.body and not record.messages and not self._forget(record):
                return False
            self._heard[name] = record.end
        return True

    def _find(self, name: str, reached: int, records: Iterator[Record]) -> Iterator[_Found]:
        """Answer each record by itself, with its time."""
        for record in self._read(name, records):
            if record.body:
                group = Group(make_ticket(name, record), [record], record.end)
                yield _Found(record.at, name, group, record.start > reached)
            reached = record.end

    def _read(self, name: str, records: Iterator[Record]) -> Iterator[Record]:
        """Answer the records of a file. What cannot be read is named `unread`."""
        try:
            yield from records
        except FileNotFoundError:  # removed meanwhile
            return
        except OSError as error:
            self._unread.add(name)
            self._tell("unread", f"Journal {name} cannot be read ({error.strerror}); others wait")

    def _give_up(self, error: OSError) -> bool:
        self._tell("descriptors", f"Journals need more open files ({error.strerror})")
        return False

    def _tell(self, problem: str, text: str) -> None:
        if problem not in self._told:
            self._told.add(problem)
            logger.error("%s. More of the same are not logged.", text)


def _follow(path: Path, start: int, end: int | None = None) -> Iterator[Record]:
    """Answer the records of a file, which is open only while a part of it is read; what is written
    meanwhile is left to the next time.
    """
    end = path.stat().st_size if end is None else end
    while start < end:
        with path.open("rb") as file:
            records = list(islice(read_on(file, start, end), PART))
        if not records:
            return
        yield from records
        start = records[-1].end
