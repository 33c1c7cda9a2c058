import fcntl
import os
import stat

import pytest

from mp_asgi.delivery.journal import (
    GROUP_BYTES,
    Journal,
    JournalFile,
    Record,
    make_record,
    read_groups,
)
from mp_asgi.delivery.outbox.base import Ticket
from tests.support import full_disk


@pytest.fixture
def path(tmp_path):
    return tmp_path / "mine"


def bodies(groups) -> list[list[bytes]]:
    return [[record.body for record in group.records] for group in groups]


def open_journal(path) -> Journal:
    return Journal(JournalFile(path, is_new=True))


def test_what_is_appended_is_in_the_file_at_once_and_nobody_else_may_read_it(path):
    journal = open_journal(path)

    assert journal.append(b"one", 2)
    assert bodies(read_groups("mine", path.read_bytes())) == [[b"one"]]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert journal.waiting == 2


def test_a_seal_puts_what_stands_before_it_together_and_a_settled_group_is_not_read_again(path):
    journal = open_journal(path)
    journal.append(b"one", 1)
    journal.append(b"two", 1)
    (first,) = journal.seal()

    journal.settle(first)
    is_stored = journal.is_stored
    journal.append(b"three", 3)
    (second,) = journal.seal()

    assert is_stored
    assert bodies([first, second]) == [[b"one", b"two"], [b"three"]]
    assert first.ticket.source == second.ticket.source == "mine"
    assert first.ticket.number < second.ticket.number
    assert (journal.waiting, journal.is_stored) == (3, False)


def test_nothing_new_needs_no_seal(path):
    journal = open_journal(path)
    journal.append(b"one", 1)
    journal.settle(journal.seal()[0])
    size = journal.file.size

    assert journal.seal() == []
    assert journal.file.size == size


@pytest.mark.parametrize("failures", [0, 1, 3])
def test_whoever_reads_the_file_later_groups_it_in_the_same_way(path, failures):
    journal = open_journal(path)
    groups = []
    for name in (b"a", b"b"):
        journal.append(name, 1)
        for _ in range(failures):
            journal.seal()  # and the outbox did not take it
        journal.append(name * 2, 1)
        (*_, group) = found = journal.seal()
        groups += found
        for item in found:
            journal.settle(item)
        assert journal.is_stored, group
    journal.append(b"unsealed", 1)
    journal.append(b"alone", 1)

    later = read_groups("mine", path.read_bytes())

    assert later[: len(groups)] == groups
    assert bodies(later[len(groups) :]) == [[b"unsealed"], [b"alone"]]


def test_a_large_group_is_cut_where_everybody_cuts_it(path):
    journal = open_journal(path)
    for _ in range(3):
        journal.append(bytes(GROUP_BYTES // 2 + 1), 1)
    groups = journal.seal()

    assert [len(group.records) for group in groups] == [2, 1]
    assert read_groups("mine", path.read_bytes()) == groups


@pytest.mark.parametrize("cut", range(1, len(make_record(b"torn", 1))))
def test_what_ends_in_the_middle_of_a_record_ends_before_it(cut):
    whole, torn = make_record(b"whole", 1), make_record(b"torn", 1)

    groups = read_groups("mine", whole + torn[:cut])

    assert bodies(groups) == [[b"whole"]]
    assert groups[0].ticket == Ticket("mine", len(whole))


@pytest.mark.parametrize("place", [0, 5, 9, 14], ids=["length", "checksum", "messages", "body"])
def test_a_record_that_was_changed_is_none(place):
    record = bytearray(make_record(b"body", 1))
    record[place] ^= 1

    assert read_groups("mine", bytes(record)) == []


def test_a_record_knows_where_it_ends():
    data = make_record(b"one", 1) + make_record(b"two", 2)

    groups = read_groups("mine", data, 100)

    assert [group.records for group in groups] == [
        [Record(100 + len(make_record(b"one", 1)), 1, b"one")],
        [Record(100 + len(data), 2, b"two")],
    ]


def test_what_does_not_fit_on_the_disk_leaves_nothing_behind(path):
    journal = open_journal(path)
    journal.append(b"one", 1)

    with full_disk(journal.file.size + 5):
        is_kept, is_kept_at_the_limit = journal.append(b"torn", 1), journal.append(b"torn", 1)
    journal.append(b"two", 1)

    assert not is_kept
    assert not is_kept_at_the_limit
    assert journal.waiting == 2
    assert bodies(read_groups("mine", path.read_bytes())) == [[b"one"], [b"two"]]


def test_what_cannot_be_sealed_is_not_put(path):
    journal = open_journal(path)
    journal.append(b"one", 1)

    with full_disk(journal.file.size + 5):
        groups, sealed = journal.seal(), journal.file.read_sealed(0)

    assert (groups, sealed) == ([], None)
    assert bodies(journal.seal()) == [[b"one"]]


def test_a_disk_that_fails_is_told_by_the_answer(path):
    journal = open_journal(path)
    journal.file.abandon()

    assert not journal.append(b"one", 1)


def test_after_its_end_a_journal_keeps_nothing(path):
    journal = open_journal(path)
    journal.end()

    assert not journal.append(b"late", 1)
    assert path.read_bytes() == b""


def test_nobody_opens_a_journal_whose_process_lives(path):
    file = JournalFile(path, is_new=True)
    with pytest.raises(BlockingIOError):
        JournalFile(path, is_new=False)

    file.close()

    JournalFile(path, is_new=False).remove()
    assert not path.exists()


def test_a_fork_that_lets_go_leaves_the_lock_to_its_parent(path):
    file = JournalFile(path, is_new=True)
    copy = os.dup(file._descriptor)

    os.close(copy)

    with pytest.raises(BlockingIOError):
        JournalFile(path, is_new=False)


def test_a_journal_that_is_left_is_free_though_a_fork_holds_a_copy(path):
    file = JournalFile(path, is_new=True)
    copy = os.dup(file._descriptor)

    file.close()

    JournalFile(path, is_new=False).close()
    os.close(copy)


def test_a_file_that_was_removed_before_it_was_locked_is_none(path, monkeypatch):
    lock = fcntl.flock

    def remove_and_lock(descriptor: int, operation: int) -> None:
        path.unlink()
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", remove_and_lock)

    with pytest.raises(BlockingIOError):
        JournalFile(path, is_new=True)


def test_a_journal_that_was_let_go_closes_no_other_file(path, tmp_path):
    file = JournalFile(path, is_new=True)
    number = file._descriptor
    file.abandon()
    other = os.open(tmp_path / "other", os.O_CREAT | os.O_WRONLY)

    file.close()

    assert other == number
    assert os.write(other, b"open") == 4
    os.close(other)


def test_a_link_is_no_journal(path, tmp_path):
    (tmp_path / "elsewhere").touch()
    path.symlink_to(tmp_path / "elsewhere")

    with pytest.raises(OSError, match="symbolic"):
        JournalFile(path, is_new=False)
