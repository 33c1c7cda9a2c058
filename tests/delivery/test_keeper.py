"""The journal of one process: when there is one, what fails, and who gets it."""

import os
import shutil
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from mp_asgi.delivery import keeper as keeper_module
from mp_asgi.delivery import mover as mover_module
from mp_asgi.delivery.counters import Counters
from mp_asgi.delivery.intake import Intake
from mp_asgi.delivery.journal import make_record
from mp_asgi.delivery.journals import Journaling, Journals
from mp_asgi.delivery.keeper import Keeper, keeps_journal
from mp_asgi.errors import OutboxUnavailable
from mp_asgi.events import Stop
from tests.delivery.test_strict import refuse_threads, start
from tests.delivery.test_worker import in_child
from tests.support import NOW, TIMEOUT, RecordingTransport, make_entry, make_settings

__all__ = ["start"]


def make_keeper(directory: Path) -> Keeper[str]:
    journaling: Journaling[str] = Journaling(lambda: directory, str.encode, bytes.decode)
    return Keeper(journaling, Counters(), clock=lambda: NOW, max_bytes=1_000_000)


def failures(keeper: Keeper[str]) -> int:
    return keeper._counters.snapshot().other.get("journal_failed", 0)


def block(directory: Path) -> None:
    """Let no journal be made any more."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.write_text("in the way")


def test_without_a_directory_nothing_is_kept_and_nothing_fails():
    def refuse() -> Path:
        raise OutboxUnavailable("no directory")

    keeper: Keeper[str] = Keeper(
        Journaling(refuse, str.encode, bytes.decode), Counters(), clock=lambda: NOW, max_bytes=1
    )
    keeper.open(is_lone=True)
    keeper.leave()
    keeper.abandon()

    assert (keeper.journal, keeper.shelf(), failures(keeper)) == (None, None, 0)


def test_what_the_file_does_not_take_is_not_kept_and_is_said(tmp_path, caplog):
    keeper = make_keeper(tmp_path)
    keeper.open(is_lone=False)
    keeper.journal.file.abandon()

    kept = [keeper.keep(keeper.journal, "a", 1) for _ in range(2)]

    assert (kept, keeper.waiting(), failures(keeper)) == ([False, False], 0, 2)
    assert caplog.messages == [
        f"{keeper.trouble} More of the same are only counted (journal_failed)."
    ]


def test_only_who_empties_the_journal_now_makes_it_anew(tmp_path):
    keeper = make_keeper(tmp_path)
    keeper.open(is_lone=False)
    before, now = keeper.shelf(), keeper.shelf()
    keeper.journal = None

    assert before.reopen() is None
    assert now.reopen() is keeper.journal is not None
    keeper.detach()
    assert now.reopen() is None


def test_at_the_end_what_cannot_be_packed_is_told(tmp_path):
    keeper, intake = make_keeper(tmp_path), Intake()
    intake.items.extend([("a", 1), (b"no text", 2)])
    intake.mark()

    assert keeper.keep_left(intake, 0.0) == 2

    assert not intake.items
    (file,) = keeper.journals.orphans()
    assert file.path.read_bytes() == make_record(b"a", 1, NOW)


def test_at_the_end_what_no_journal_can_hold_is_told_and_a_stop_stays(tmp_path):
    keeper, intake = make_keeper(tmp_path / "journals"), Intake()
    stop = Stop((b"key",), NOW)
    intake.items.extend([("a", 1), (stop, 0)])
    block(tmp_path / "journals")

    assert keeper.keep_left(intake, 0.0) == 1

    assert (list(intake.items), failures(keeper)) == ([(stop, 0)], 1)


def test_without_threads_a_file_that_cannot_be_followed_by_another_grows(tmp_path, monkeypatch):
    monkeypatch.setattr(keeper_module, "ROTATE_BYTES", 0)
    keeper = make_keeper(tmp_path / "journals")
    keeper.open(is_lone=True)
    block(tmp_path / "journals")

    kept = [keeper.keep(keeper.journal, "a", 1) for _ in range(2)]

    assert (kept, failures(keeper), keeper.journal.waiting) == ([True, True], 2, 2)


def pretend_uwsgi(patch: pytest.MonkeyPatch, *, has_threads: bool) -> None:
    server = ModuleType("uwsgi")
    server.__dict__["opt"] = {"enable-threads": str(has_threads).lower()}
    patch.setitem(sys.modules, "uwsgi", server)


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_uwsgi(monkeypatch, has_threads=False)


def test_what_cannot_be_packed_takes_the_relaxed_way(start, caplog):
    process = start()
    process.worker.submit(("a", object()), 1)  # type: ignore[arg-type]
    process.worker._home.intake.items.clear()
    process.submit("b")

    assert process.worker.flush(TIMEOUT)
    assert process.sent() == ["b"]
    assert process.counters.snapshot().other["journal_failed"] == 1
    assert len([text for text in caplog.messages if "journal failed" in text]) == 1
    assert "TypeError" in process.worker.pulse().trouble


def test_without_a_journal_events_take_the_relaxed_way(start):
    process = start()
    (process.directory / "journals").write_text("in the way")
    process.submit("a")

    assert process.worker.flush(TIMEOUT)
    assert process.sent() == ["a"]
    assert process.counters.snapshot().other["journal_failed"] == 1
    (process.directory / "journals").unlink()


def test_a_relaxed_process_keeps_a_journal_where_it_ends_without_a_word(start, monkeypatch):
    pretend_uwsgi(monkeypatch, has_threads=True)
    process = start(durability="relaxed")
    process.outbox.fails = True

    process.submit("a")

    assert len(process.files()) == 1
    process.outbox.fails = False
    assert process.worker.flush(TIMEOUT)
    assert process.sent() == ["a"]


def test_a_relaxed_process_keeps_none_elsewhere(start):
    process = start(durability="relaxed")
    process.submit("a")

    assert process.worker.flush(TIMEOUT)
    assert process.files() == []


def test_without_threads_everything_stays_in_a_journal_that_others_read(start, no_threads, caplog):
    lone = start(durability="relaxed")
    lone.submit("a")
    lone.submit("b")

    assert not lone.worker.start()
    assert [name.endswith(".lone-1") for name in lone.files()] == [True]
    assert "enable-threads" in lone.worker.pulse().trouble
    assert len([text for text in caplog.messages if "enable-threads" in text]) == 1
    assert lone.worker.close(0.1)
    assert len(lone.files()) == 1


def test_a_process_with_threads_delivers_for_one_without_while_that_lives(start, monkeypatch):
    with monkeypatch.context() as patch:
        pretend_uwsgi(patch, has_threads=False)
        lone = start()
        lone.submit("a")
    process = start()
    process.worker.start()
    assert process.worker.flush(TIMEOUT)
    lone.submit("b")
    assert process.worker.flush(TIMEOUT)
    lone.worker.exit()
    process.submit("c")

    assert process.worker.flush(TIMEOUT)
    assert process.sent() == ["a", "b", "c"]
    assert len(process.files()) == 1


def test_without_threads_a_large_journal_goes_on_in_another_file(start, no_threads, monkeypatch):
    monkeypatch.setattr(keeper_module, "ROTATE_BYTES", 10)
    lone = start()
    lone.submit("a")
    lone.submit("b")

    assert len(lone.files()) == 3


def test_without_threads_and_without_anybody_who_drains_the_disk_is_not_filled(
    start, no_threads, monkeypatch
):
    monkeypatch.setattr(keeper_module, "LOOK_SECONDS", 0)
    lone = start(outbox_max_bytes=1_000_000, outbox_max_messages=2)
    lone.submit("x" * 1_000_000)
    for name in "abc":
        lone.submit(name)

    assert len(lone.worker._home.intake.items) == 2
    assert lone.worker.stats().dropped == {"overflow": 1}


def test_a_denial_and_an_identity_are_kept_though_the_journals_are_full(
    start, no_threads, monkeypatch
):
    monkeypatch.setattr(keeper_module, "LOOK_SECONDS", 0)
    lone = start(outbox_max_bytes=1_000_000)
    lone.submit("x" * 1_000_000)
    lone.worker.submit(("$identify",), 1, is_identity=True)
    lone.worker.submit(Stop([b"device"], NOW))

    assert not lone.worker._home.intake.items
    assert b"$identify" in b"".join(
        path.read_bytes() for path in lone.worker._home.keeper.journals.filled()
    )


def test_full_journals_that_were_emptied_take_what_comes_next(start, no_threads, monkeypatch):
    monkeypatch.setattr(keeper_module, "LOOK_SECONDS", 0)
    lone = start(outbox_max_bytes=1_000_000, outbox_max_messages=1)
    lone.submit("x" * 1_000_000)
    lone.submit("in memory")
    for path in lone.worker._home.keeper.journals.filled():
        path.unlink()

    lone.submit("kept")

    assert lone.worker.stats().dropped == {}
    assert len(lone.worker._home.intake.items) == 1


def test_a_denial_that_no_journal_takes_is_obeyed_at_once(start, no_threads):
    other = start(durability="relaxed")
    other.outbox(other.directory / "outbox.sqlite3", other.settings).put([make_entry("a")], NOW)
    lone = start()
    block(lone.directory / "journals")

    lone.worker.submit(Stop([b"device"], NOW))

    assert lone.worker.stats().dropped == {"stopped": 1}
    assert not lone.worker._home.intake.items


def test_a_denial_that_nothing_takes_is_counted_and_tried_again_at_the_end(
    start, no_threads, caplog
):
    lone = start()
    block(lone.directory / "journals")
    lone.outbox.fails = True
    for _ in range(2):
        lone.worker.submit(Stop([b"device"], NOW))

    assert lone.counters.snapshot().other["stop_lost"] == 2
    assert len([text for text in caplog.messages if "did not forget" in text]) == 1
    lone.outbox.fails = False
    lone.worker.exit()
    lone.submit("before")
    assert lone.worker.stats().dropped == {"stopped": 1}


def test_where_somebody_delivers_a_lone_file_does_not_outlive_a_minute_of_requests(
    start, no_threads
):
    lone = start()
    lone.submit("a")
    lone.clock.advance(keeper_module.LONE_SECONDS)

    lone.submit("b")

    assert len(lone.files()) == 2
    assert len(list(Journals(lone.directory / "journals").orphans())) == 1


def test_where_nobody_delivers_small_files_do_not_fill_the_disk(start, no_threads):
    lone = start()
    for _ in range(9):
        lone.submit("a")
        lone.clock.advance(keeper_module.LONE_SECONDS)
    before = len(lone.files())
    for file in (journals := Journals(lone.directory / "journals")).orphans():
        journals.remove(file)

    lone.submit("b")

    assert before == 2
    assert len(lone.files()) == 2
    assert len(list(journals.orphans())) == 1


def test_a_lone_file_with_a_denial_is_left_at_once(start, no_threads):
    lone = start()
    lone.submit("a")

    lone.worker.submit(Stop([b"device"], NOW))

    (orphan,) = Journals(lone.directory / "journals").orphans()
    assert b'["a"]' in orphan.path.read_bytes()


@pytest.mark.parametrize(
    ("durability", "is_uwsgi", "answer"),
    [("strict", False, True), ("relaxed", True, True), ("relaxed", False, False)],
)
def test_a_journal_is_kept_in_strict_mode_and_on_uwsgi(monkeypatch, durability, is_uwsgi, answer):
    if is_uwsgi:
        pretend_uwsgi(monkeypatch, has_threads=True)

    assert keeps_journal(make_settings(durability=durability, outbox="sqlite")) is answer


def test_an_empty_lone_journal_is_removed_at_the_end(start, no_threads):
    lone = start()
    lone.worker.start()

    lone.worker.exit()

    assert lone.files() == []


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
@pytest.mark.parametrize("has_hook", [True, False], ids=["at-fork-hook", "pid-check-only"])
def test_a_forked_child_keeps_its_own_journal_and_lets_go_of_its_parents(
    start, has_hook, monkeypatch
):
    if not has_hook:
        monkeypatch.delattr(os, "register_at_fork")
    process = start()
    with monkeypatch.context() as patch:
        refuse_threads(patch)  # a storage in use at a fork without hooks is the storage's matter
        process.submit("parent")

    def story() -> str:
        process.transport = RecordingTransport()
        process.submit("child")
        is_flushed = process.worker.flush(TIMEOUT)
        return f"{is_flushed} {process.sent()} {len(process.files())}"

    assert in_child(story) == "True ['child'] 2"
    process.worker.start()
    assert process.worker.flush(TIMEOUT)
    assert process.sent() == ["parent"]


def test_a_submit_during_a_close_is_kept_in_another_journal(start):
    process = start()
    process.submit("a")
    journal = process.worker._home.keeper.journal
    process.worker._stop(0.0)
    process.worker._running_pid = os.getpid()  # as the submit saw it
    process.worker._home.keeper.journal = journal
    assert journal.is_over
    process.worker._home.keeper.detach()
    process.worker._running_pid = 0

    process.submit("b")

    assert not process.worker._home.keeper.journal.is_over
    assert process.worker.flush(TIMEOUT)
    assert process.sent() == ["a", "b"]


def test_closing_while_others_track_stays_strict(start):
    process = start()
    is_over = threading.Event()

    def track() -> None:
        while not is_over.is_set():
            process.submit("a")

    trackers = [threading.Thread(target=track) for _ in range(2)]
    for tracker in trackers:
        tracker.start()
    for _ in range(10):
        process.worker.close(0.05)
    is_over.set()
    for tracker in trackers:
        tracker.join(TIMEOUT)
    process.submit("last")

    assert not process.worker._home.keeper.journal.is_over
    assert process.counters.snapshot().other.get("journal_failed") is None


def test_a_journal_that_could_not_be_made_is_made_later(start):
    process = start()
    (process.directory / "journals").write_text("in the way")
    process.submit("a")
    assert process.worker.flush(TIMEOUT)
    (process.directory / "journals").unlink()
    process.clock.advance(mover_module.ADOPT_SECONDS)

    assert process.worker.flush(TIMEOUT)

    assert process.worker._home.keeper.journal is not None
    assert process.worker.pulse().trouble == ""
    assert len(process.files()) == 1


def test_whatever_the_making_of_a_journal_raises_reaches_no_request(start, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("blocking call")  # as blockbuster does

    process = start()
    with monkeypatch.context() as patch:
        patch.setattr("mp_asgi.delivery.journals.Journals.create", refuse)
        process.submit("a")
    process.worker._home.keeper.journal = None

    assert process.worker.flush(TIMEOUT)
    assert process.sent() == ["a"]
    assert process.counters.snapshot().other["journal_failed"] == 1


def test_what_no_thread_has_taken_at_the_end_is_left_in_a_journal(start):
    process = start(durability="relaxed", close_timeout=0.05)
    gate = threading.Event()
    storing = threading.Event()

    def hang(outbox: Any, *arguments: Any) -> Any:
        storing.set()
        assert gate.wait(TIMEOUT)
        raise OutboxUnavailable("locked")

    process.outbox.put = hang
    process.submit("in hand")
    assert storing.wait(TIMEOUT)
    process.submit("waits")

    process.worker.exit()
    gate.set()

    assert process.counters.snapshot().dropped["shutdown"] == 1
    other = start(durability="relaxed")
    other.worker.start()
    assert other.worker.flush(TIMEOUT)
    assert other.sent() == ["waits"]
