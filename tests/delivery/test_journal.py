import fcntl
import io
import os
import stat

import pytest

from mp_asgi.delivery.journal import (
    GROUP_BYTES,
    Group,
    Journal,
    JournalFile,
    Record,
    gather,
    make_record,
    make_ticket,
    read_on,
    read_records,
)
from mp_asgi.delivery.outbox.base import Ticket
from tests.support import NOW, full_disk

SEAL = make_record(b"", 0, 0.0)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "mine"


def bodies(groups) -> list[list[bytes]]:
    return [[record.body for record in group.records] for group in groups]


def read_all(data: bytes, start: int = 0) -> list[Record]:
    return list(read_records(io.BytesIO(data), start, start + len(data)))


def read_groups(path) -> list[Group]:
    return gather(path.name, read_all(path.read_bytes()))


def read_bodies(path) -> list[bytes]:
    return [record.body for record in read_all(path.read_bytes()) if record.body]


def open_journal(path) -> Journal:
    return Journal(JournalFile(path, is_new=True))


def test_what_is_appended_is_in_the_file_at_once_and_nobody_else_may_read_it(path):
    journal = open_journal(path)

    assert journal.append(b"one", 2, NOW)
    assert read_bodies(path) == [b"one"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert journal.waiting == 2


def test_a_seal_puts_what_stands_before_it_together_and_a_settled_group_is_not_read_again(path):
    journal = open_journal(path)
    journal.append(b"one", 1, NOW)
    journal.append(b"two", 1, NOW)
    (first,) = journal.seal()

    journal.settle(first)
    is_stored = journal.is_stored
    journal.append(b"three", 3, NOW)
    (second,) = journal.seal()

    assert is_stored
    assert bodies([first, second]) == [[b"one", b"two"], [b"three"]]
    assert first.ticket.source == second.ticket.source == "mine"
    assert first.ticket.number < second.ticket.number
    assert (journal.waiting, journal.is_stored) == (3, False)


def test_nothing_new_needs_no_seal(path):
    journal = open_journal(path)
    journal.append(b"one", 1, NOW)
    journal.settle(journal.seal()[0])
    size = journal.file.size

    assert journal.seal() == []
    assert journal.file.size == size


@pytest.mark.parametrize("failures", [0, 1, 3])
def test_whoever_reads_the_file_later_groups_it_in_the_same_way(path, failures):
    journal = open_journal(path)
    groups = []
    for name in (b"a", b"b"):
        journal.append(name, 1, NOW)
        for _ in range(failures):
            journal.seal()  # and the outbox did not take it
        journal.append(name * 2, 1, NOW)
        (*_, group) = found = journal.seal()
        groups += found
        for item in found:
            journal.settle(item)
        assert journal.is_stored, group
    journal.append(b"unsealed", 1, NOW)

    assert read_groups(path) == groups


def test_what_is_put_one_by_one_stands_behind_the_same_tickets(path):
    journal = open_journal(path)
    for name in (b"a", b"b", b"c"):
        journal.append(name, 1, NOW)
    (group,) = journal.seal()

    numbers = [make_ticket(path.name, record).number for record in group.records]

    assert numbers == sorted(set(numbers))
    assert group.ticket == Ticket("mine", numbers[-1])


def test_a_large_group_is_cut_where_everybody_cuts_it(path):
    journal = open_journal(path)
    for _ in range(3):
        journal.append(bytes(GROUP_BYTES // 2 + 1), 1, NOW)
    groups = journal.seal()

    assert [len(group.records) for group in groups] == [2, 1]
    assert read_groups(path) == groups


@pytest.mark.parametrize("cut", range(1, len(make_record(b"torn", 1, NOW))))
def test_what_ends_in_the_middle_of_a_record_ends_before_it(cut):
    whole, torn = make_record(b"whole", 1, NOW), make_record(b"torn", 1, NOW)

    records = read_all(whole + torn[:cut])

    assert records == [Record(len(whole), 1, NOW, b"whole")]


@pytest.mark.parametrize("place", [0, 5, 9, 22], ids=["length", "checksum", "messages", "body"])
def test_a_record_that_was_changed_is_none(place):
    record = bytearray(make_record(b"body", 1, NOW))
    record[place] ^= 1

    assert read_all(bytes(record)) == []


def test_a_record_knows_where_it_ends():
    one, two = make_record(b"one", 1, NOW), make_record(b"two", 2, NOW + 1)

    assert read_all(one + two, 100) == [
        Record(100 + len(one), 1, NOW, b"one"),
        Record(100 + len(one) + len(two), 2, NOW + 1, b"two"),
    ]


def test_a_file_that_is_shorter_than_was_said_ends_where_it_ends():
    record = make_record(b"one", 1, NOW)

    assert list(read_records(io.BytesIO(record), 0, 1_000)) == [Record(len(record), 1, NOW, b"one")]


def test_an_absurd_length_is_not_read():
    class Strict(io.BytesIO):
        def read(self, size=-1, /):
            assert size < 100
            return super().read(size)

    record = b"\xff" * 3 + make_record(b"one", 1, NOW)[3:]

    assert list(read_records(Strict(record), 0, len(record))) == []


def test_a_damaged_length_hides_no_record_behind_it():
    whole = [make_record(name, 1, NOW) for name in (b"one", b"two", b"three")]
    damaged = b"\xff" * 4 + whole[1][4:]
    content = whole[0] + damaged + whole[2]

    records = list(read_on(io.BytesIO(content), 0, len(content)))

    assert [record.body for record in records] == [b"one", b"three"]
    assert records[1].start == len(whole[0] + damaged)


def test_a_file_that_became_shorter_meanwhile_is_read_to_its_end():
    content = make_record(b"one", 1, NOW)

    assert len(list(read_on(io.BytesIO(content), 0, len(content) + 100))) == 1


def test_a_journal_that_cannot_be_deleted_says_so(path, monkeypatch):
    def refuse(self: object, *, missing_ok: bool = False) -> None:
        raise PermissionError

    monkeypatch.setattr(type(path), "unlink", refuse)

    assert not JournalFile(path, is_new=True).remove()
    assert path.exists()
    JournalFile(path, is_new=False).close()


def test_what_does_not_fit_on_the_disk_leaves_nothing_behind(path):
    journal = open_journal(path)
    journal.append(b"one", 1, NOW)

    with full_disk(journal.file.size + 5):
        is_kept, is_kept_at_the_limit = (
            journal.append(b"torn", 1, NOW),
            journal.append(b"torn", 1, NOW),
        )
    journal.append(b"two", 1, NOW)

    assert not is_kept
    assert not is_kept_at_the_limit
    assert journal.waiting == 2
    assert read_bodies(path) == [b"one", b"two"]


def test_what_cannot_be_sealed_is_not_put(path):
    journal = open_journal(path)
    journal.append(b"one", 1, NOW)

    with full_disk(journal.file.size + 5):
        groups, sealed = journal.seal(), journal.file.read_sealed(0)

    assert (groups, sealed) == ([], None)
    assert bodies(journal.seal()) == [[b"one"]]


def test_a_disk_that_fails_is_told_by_the_answer(path):
    journal = open_journal(path)
    journal.file.abandon()

    assert not journal.append(b"one", 1, NOW)


def test_after_its_end_a_journal_keeps_nothing(path):
    journal = open_journal(path)
    journal.end()

    assert not journal.append(b"late", 1, NOW)
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
