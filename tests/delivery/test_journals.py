import stat

import pytest

from mp_asgi.delivery.journal import JournalFile, make_record
from mp_asgi.delivery.journals import LONE_SUFFIX, SUFFIX, Journals


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "state" / "journals"


def test_a_journal_is_made_in_a_directory_of_its_user_alone(directory):
    file = Journals(directory).create(is_lone=False)

    assert file.path.parent == directory
    assert file.path.name.endswith(SUFFIX)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_no_two_journals_have_one_name(directory):
    journals = Journals(directory)

    assert journals.create(is_lone=False).path != journals.create(is_lone=False).path


def test_who_was_taken_for_an_orphan_begins_another_file(directory, monkeypatch):
    tries = []

    class Taken(JournalFile):
        def __init__(self, path, *, is_new):
            tries.append(path)
            if len(tries) == 1:
                raise BlockingIOError
            super().__init__(path, is_new=is_new)

    monkeypatch.setattr("mp_asgi.delivery.journals.JournalFile", Taken)

    assert Journals(directory).create(is_lone=False).path == tries[1] != tries[0]


def test_only_what_nobody_holds_is_an_orphan(directory):
    mine, others = Journals(directory), Journals(directory)
    living, left = mine.create(is_lone=False), mine.create(is_lone=True)
    mine.leave(left)

    assert [file.path for file in others.orphans()] == [left.path]
    assert living.path.exists()


def test_what_is_no_journal_of_this_version_is_left_alone(directory):
    journals = Journals(directory)
    journals.leave(journals.create(is_lone=False))
    (directory / "1-abc.journal-2").touch()

    assert [file.path.suffix for file in journals.orphans()] == [SUFFIX]


def test_without_a_directory_there_are_no_orphans(directory):
    assert list(Journals(directory).orphans()) == []


def test_what_a_process_without_threads_writes_may_be_read_meanwhile(directory):
    file = Journals(directory).create(is_lone=True)
    file.append(make_record(b"one", 1))
    other = Journals(directory).create(is_lone=False)
    other.append(make_record(b"not this", 1))

    (group,) = Journals(directory).read_lone()

    assert file.path.name.endswith(LONE_SUFFIX)
    assert (group.ticket.source, group.records[0].body) == (file.source, b"one")


def test_the_journals_of_all_processes_count(directory):
    for is_lone in (False, True):
        Journals(directory).create(is_lone=is_lone).append(make_record(b"12345678", 1))

    assert Journals(directory).size_bytes() == 2 * 20


def test_a_child_lets_go_of_what_it_inherited(directory):
    journals = Journals(directory)
    file = journals.create(is_lone=False)

    journals.abandon()

    assert [orphan.path for orphan in Journals(directory).orphans()] == [file.path]
