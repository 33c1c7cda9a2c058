"""What others have left: stops first, then everything in the order in which it was submitted."""

import errno
import logging
import os
import resource
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import pytest

from mp_asgi.delivery import heir as heir_module
from mp_asgi.delivery.heir import Heir
from mp_asgi.delivery.journal import JournalFile, make_record
from mp_asgi.delivery.journals import Journals
from tests.support import NOW


class Estate:
    """A directory with journals, who inherits them, and what they did."""

    def __init__(self, directory: Path) -> None:
        self.theirs = Journals(directory)
        self.journals = Journals(directory)
        self.done: list[str] = []
        self.refused: set[str] = set()
        self.damaged = 0
        self.is_pressed = False
        self.heir = self.make_heir()

    def make_heir(self) -> Heir:
        return Heir(
            self.journals,
            forget=lambda record: self.do(f"stop {record.body.decode()}"),
            store=lambda group: self.do(b" ".join(r.body for r in group.records).decode()),
            on_damaged=self.damage,
            is_pressed=lambda: self.is_pressed,
        )

    def damage(self) -> None:
        self.damaged += 1

    def do(self, what: str) -> bool:
        if what in self.refused:
            return False
        self.done.append(what)
        return True

    def write(self, *items: tuple[str, int], is_lone: bool = False) -> JournalFile:
        file = self.theirs.create(is_lone=is_lone)
        self.go_on(file, *items)
        return file

    def go_on(self, file: JournalFile, *items: tuple[str, int]) -> None:
        """Append what was submitted so many seconds after NOW; capitals are stops."""
        for name, second in items:
            count = 0 if name.isupper() else 1
            file.append(make_record(name.encode(), count, NOW + second))

    def leave(self, *items: tuple[str, int], is_lone: bool = False) -> JournalFile:
        file = self.write(*items, is_lone=is_lone)
        self.theirs.leave(file)
        return file

    def puts(self) -> list[str]:
        return [what for what in self.done if not what.startswith("stop")]


@pytest.fixture
def estate(tmp_path):
    return Estate(tmp_path / "journals")


def test_every_stop_is_obeyed_before_anything_is_put_whatever_stands_before_it(estate):
    estate.leave(("a", 1), ("b", 2))
    estate.leave(("c", 3), ("A", 4), is_lone=True)
    estate.write(("d", 5), ("B", 6), is_lone=True)

    assert estate.heir.inherit()
    assert sorted(estate.done[:2]) == ["stop A", "stop B"]
    assert len(estate.done) == 6 + 2  # a stop is put as nothing, under its ticket


def test_what_was_submitted_in_several_processes_is_put_in_its_order(estate):
    one = estate.write(("a", 1), ("d", 4), is_lone=True)
    estate.write(("b", 2), ("e", 5), is_lone=True)
    estate.leave(("c", 3))
    estate.go_on(one, ("f", 6))  # the file that began first was written last

    assert estate.heir.inherit()
    assert estate.puts() == list("abcdef")


def test_a_clock_that_was_set_back_reverses_nothing_within_a_file(estate):
    estate.leave(("a", 9), ("b", 1), ("c", 2))

    assert estate.heir.inherit()
    assert estate.puts() == ["a", "b", "c"]


def test_orphans_are_removed_and_what_lives_is_followed(estate):
    orphan, lone = estate.leave(("a", 1)), estate.write(("b", 2), is_lone=True)

    assert estate.heir.inherit()
    estate.go_on(lone, ("c", 3))
    assert estate.heir.inherit()

    assert estate.puts() == ["a", "b", "c"]
    assert not orphan.path.exists()
    assert lone.path.exists()


def test_who_lived_and_ended_is_inherited_from_where_it_was_followed(estate):
    lone = estate.write(("a", 1), is_lone=True)
    estate.heir.inherit()
    estate.go_on(lone, ("b", 2))
    estate.theirs.leave(lone)

    assert estate.heir.inherit()
    assert estate.puts() == ["a", "b"]
    assert not lone.path.exists()


def test_of_a_living_process_with_threads_only_stops_are_taken(estate):
    living = estate.write(("a", 1), ("A", 2))

    assert estate.heir.inherit()
    assert estate.done == ["stop A"]
    assert living.path.exists()


def test_a_stop_is_obeyed_once(estate):
    estate.write(("A", 1), is_lone=True)

    assert estate.heir.forget()
    assert estate.heir.forget()

    assert estate.done == ["stop A"]


def test_while_a_stop_is_not_obeyed_nothing_is_put_and_nothing_removed(estate):
    orphan = estate.leave(("a", 1), ("A", 2), ("B", 3))
    estate.refused = {"stop A"}

    assert not estate.heir.inherit()
    assert estate.done == []
    assert orphan.path.exists()
    estate.refused.clear()
    assert estate.heir.inherit()
    assert estate.puts()[0] == "a"


def test_what_is_not_taken_stays_and_what_was_is_not_put_again(estate, caplog):
    caplog.set_level(logging.INFO)
    orphan = estate.leave(("a", 1), ("b", 2))
    estate.refused = {"b"}

    assert not estate.heir.inherit()
    assert orphan.path.exists()
    estate.refused.clear()
    assert estate.heir.inherit()

    assert estate.puts() == ["a", "b"]
    assert caplog.messages == ["Adopted 1 messages of processes that have ended."] * 2


def test_so_many_files_are_open_at_once_and_no_more(estate, monkeypatch):
    monkeypatch.setattr(heir_module, "MAX_FILES", 2)
    estate.heir = estate.make_heir()
    for second, name in enumerate("abcde"):
        estate.leave((name, second))
    estate.leave(("A", 9))
    estate.write(("f", 10), is_lone=True)

    assert estate.heir.inherit()
    assert estate.done[0] == "stop A"
    assert sorted(estate.puts()) == sorted("abcdefA")
    assert len(estate.journals.others()) == 1


@pytest.fixture
def scarce(monkeypatch):
    """Names of files whose next opening by their path finds no descriptor."""
    names: set[str] = set()
    really = Path.open

    def open_unless_scarce(self: Path, *arguments: Any, **options: Any) -> Any:
        if self.name in names:
            names.remove(self.name)
            raise OSError(errno.EMFILE, "Too many open files")
        return really(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", open_unless_scarce)
    return names


def test_an_orphan_is_read_through_its_lock_and_needs_no_other_descriptor(estate, scarce):
    orphan = estate.leave(("a", 1), ("A", 2))
    scarce.add(orphan.path.name)

    assert estate.heir.inherit()
    assert estate.done == ["stop A", "a", "A"]
    assert not orphan.path.exists()


def test_nothing_is_put_or_removed_while_a_file_cannot_be_read(estate, scarce, caplog):
    living, orphan = estate.write(("A", 1)), estate.leave(("b", 2))
    scarce.add(living.path.name)

    assert not estate.heir.inherit()
    assert (estate.puts(), orphan.path.exists()) == ([], True)
    assert estate.heir.inherit()
    assert estate.done == ["stop A", "b"]
    assert len([text for text in caplog.messages if "cannot be read" in text]) == 1


def test_a_file_that_cannot_be_read_hides_no_stop_in_another_one(estate, scarce):
    living = estate.write(("A", 1))
    estate.write(("B", 2))
    scarce.add(living.path.name)

    assert not estate.heir.forget()
    assert estate.done == ["stop B"]


def test_an_orphan_whose_descriptor_fails_stays(estate):
    orphan = estate.leave(("a", 1))
    file = JournalFile(orphan.path, is_new=False)
    unreadable = os.open(orphan.path, os.O_WRONLY)
    os.dup2(unreadable, file._descriptor)
    os.close(unreadable)
    estate.journals.orphans = lambda but: iter([file])

    assert not estate.heir.inherit()
    assert orphan.path.exists()


def test_what_is_removed_meanwhile_is_nothing(estate):
    lone = estate.write(("a", 1), is_lone=True)
    estate.journals.others = estate.journals.lone = lambda: [lone.path]
    lone.remove()

    assert estate.heir.inherit()
    assert estate.done == []


def test_with_few_descriptors_fewer_orphans_are_open_at_once(estate, caplog):
    for name in "abcde":
        estate.leave((name, 1))
    held: set[JournalFile] = estate.journals._open
    orphans = estate.journals.orphans
    most = []

    def orphans_while_few(but: Collection[Path]) -> Iterator[JournalFile]:
        for file in orphans(but):
            if len(held) > 3:
                estate.journals.leave(file)
                raise OSError(errno.EMFILE, "Too many open files")
            yield file

    estate.journals.orphans = orphans_while_few
    estate.heir._store = lambda group: not most.append(len(held))

    assert estate.heir.inherit()
    assert max(most) == 1
    assert estate.journals.others() == []
    assert len([text for text in caplog.messages if "open files" in text]) == 1


def test_without_any_descriptor_nothing_is_heard_or_taken_in(estate):
    orphan = estate.leave(("a", 1))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)

    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        answers = estate.heir.forget(), estate.heir.inherit()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert answers == (False, False)
    assert orphan.path.exists()


def test_when_not_even_one_orphan_can_be_opened_nothing_was_taken_in(estate):
    orphan = estate.leave(("a", 1))

    def refuse(but: Collection[Path]) -> Iterator[JournalFile]:
        raise OSError(errno.EMFILE, "Too many open files")

    estate.journals.orphans = refuse

    assert not estate.heir.inherit()
    assert orphan.path.exists()


def test_what_cannot_be_removed_is_put_once_and_keeps_no_other_one(estate, monkeypatch, caplog):
    monkeypatch.setattr(heir_module, "MAX_FILES", 2)
    estate.heir = estate.make_heir()
    for name in "abcde":
        estate.leave((name, 1))

    def refuse(self: Path, *, missing_ok: bool = False) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "unlink", refuse)

    assert estate.heir.inherit()
    assert estate.heir.inherit()
    assert sorted(estate.puts()) == list("abcde")
    assert len([text for text in caplog.messages if "cannot be deleted" in text]) == 1


@pytest.mark.parametrize("place", [1, 10, 20], ids=["length", "count", "body"])
def test_behind_a_damaged_record_all_others_are_read(estate, place):
    file = estate.write(("a", 1), ("b", 2), ("c", 3), ("A", 4))
    content = bytearray(file.path.read_bytes())
    content[place + file.size // 4] ^= 1
    file.path.write_bytes(content)
    estate.theirs.leave(file)

    assert estate.heir.inherit()
    assert estate.done == ["stop A", "a", "c", "A"]
    assert estate.damaged == 1
    assert not file.path.exists()


def test_who_is_pressed_breaks_off_after_a_part_and_goes_on_in_the_next_call(estate, monkeypatch):
    monkeypatch.setattr(heir_module, "PART", 2)
    estate.leave(("a", 1), ("b", 2), ("c", 3))
    estate.is_pressed = True

    assert not estate.heir.inherit()
    assert (estate.puts(), estate.heir.is_interrupted) == (["a", "b"], True)
    assert estate.heir.inherit()
    assert (estate.puts(), estate.heir.is_interrupted) == (["a", "b", "c"], False)
    assert estate.journals.others() == []


def test_a_long_file_is_read_in_parts(estate, monkeypatch):
    monkeypatch.setattr(heir_module, "PART", 2)
    estate.write(("a", 1), ("b", 2), ("c", 3), is_lone=True)

    assert estate.heir.inherit()
    assert estate.puts() == list("abc")


def test_a_record_that_is_still_being_written_is_left_to_the_next_time(estate):
    lone = estate.write(("a", 1), is_lone=True)
    record = make_record(b"b", 1, NOW + 2)
    lone.append(record[:-1])

    assert estate.heir.inherit()
    first = estate.puts()
    lone.append(record[-1:])
    assert estate.heir.inherit()

    assert (first, estate.puts()) == (["a"], ["a", "b"])


def test_a_record_that_ends_in_its_middle_was_never_kept(estate):
    file = estate.write(("a", 1))
    file.append(make_record(b"torn", 1, NOW)[:-1])
    estate.theirs.leave(file)

    assert estate.heir.inherit()
    assert estate.puts() == ["a"]
    assert not file.path.exists()
