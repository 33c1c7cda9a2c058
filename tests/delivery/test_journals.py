import errno
import stat

import pytest

from mp_asgi.delivery.journal import JournalFile
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


def test_the_journals_of_others_are_told_from_a_processs_own(directory):
    mine, theirs = Journals(directory), Journals(directory)
    mine.create(is_lone=False)
    mine.create(is_lone=True)
    other, lone = theirs.create(is_lone=False), theirs.create(is_lone=True)

    assert lone.path.name.endswith(LONE_SUFFIX)
    assert mine.lone() == [lone.path]
    assert sorted(mine.others()) == sorted([other.path, lone.path])


def test_the_journals_of_all_processes_count(directory):
    for is_lone in (False, True):
        Journals(directory).create(is_lone=is_lone).append(b"12345678")

    assert Journals(directory).size_bytes() == 2 * 8


def test_who_looks_for_what_is_left_finds_the_journals_that_hold_anything(directory):
    journals = Journals(directory)
    written, lone, _ = (journals.create(is_lone=is_lone) for is_lone in (False, True, False))
    for file in (written, lone):
        file.append(b"record")

    assert set(Journals(directory).filled()) == {written.path, lone.path}


def test_a_child_lets_go_of_what_it_inherited(directory):
    journals = Journals(directory)
    file = journals.create(is_lone=False)

    journals.abandon()

    assert [orphan.path for orphan in Journals(directory).orphans()] == [file.path]


def test_what_cannot_be_opened_for_want_of_a_descriptor_is_not_taken_for_a_living_one(
    directory, monkeypatch
):
    journals = Journals(directory)
    journals.leave(journals.create(is_lone=False))

    def refuse(*arguments: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("mp_asgi.delivery.journal.os.open", refuse)

    with pytest.raises(OSError, match="Too many"):
        list(journals.orphans())


def test_what_was_seen_before_is_not_looked_for_again(directory):
    journals = Journals(directory)
    seen, new = journals.create(is_lone=False), journals.create(is_lone=False)
    for file in (seen, new):
        journals.leave(file)

    assert [file.path for file in journals.orphans({seen.path})] == [new.path]


def test_a_request_that_asks_for_their_size_meets_no_want_of_descriptors(directory, monkeypatch):
    journals = Journals(directory)
    journals.create(is_lone=False).append(b"record")

    def refuse(path: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("mp_asgi.delivery.journals.os.scandir", refuse)

    assert journals.size_bytes() == 0
    with pytest.raises(OSError, match="Too many"):
        journals.others()
