import io
import json
import os
import sqlite3
import stat
import subprocess
import sys

import pytest

from mp_asgi.cli import main
from mp_asgi.delivery.journals import Journals
from mp_asgi.delivery.outbox.factory import open_outbox
from mp_asgi.delivery.outbox.location import find_location
from mp_asgi.delivery.outbox.sqlite import SQLiteOutbox
from mp_asgi.dev import Fault
from mp_asgi.erasure.desk import POLL_SECONDS
from mp_asgi.erasure.eraser import NOT_PURGED, SEND_SECONDS
from mp_asgi.erasure.receipt import NOT_CLEARED
from mp_asgi.events import ActState, Link
from mp_asgi.ledger import LedgerUnavailable
from mp_asgi.settings import Settings
from mp_asgi.wire import KeyMaker
from tests.cli.people import DEVICE, DEVICE_KEY, OAUTH, TOKEN, USER_KEY
from tests.support import NOW, make_entry, make_settings


def test_a_user_is_erased_here_and_at_mixpanel(office):
    code, out, err = office.on_file("erase")

    assert code == 0
    assert "Erasure of 1 user and 1 device (GDPR)" in out
    assert "task-1  PENDING  1 user" in out
    assert "task-2  PENDING  1 device" in out
    assert "2 jobs taken; it may take 30 days, --status TASK tells" in out
    assert "ledger      kept until a later run finds that Mixpanel is done" in out
    assert "Requests to Mixpanel: 2 of 2" in err
    assert "Jobs finished" not in err
    assert "still holds their records and links" in err
    assert [job.distinct_ids for job in office.standin.privacy.jobs] == [
        ("U1-secret",),
        (f"$device:{DEVICE}",),
    ]
    standings = office.ledger.standings([USER_KEY, DEVICE_KEY])
    assert {standing.state for standing in standings.values()} == {ActState.ERASED}


def unset_ledger(monkeypatch):
    for name in ("MP_ASGI_LEDGER", "MP_ASGI_LEDGER_KEYS"):
        monkeypatch.delenv(name)


def put_waiting(office):
    """Let something of the user wait, as the app does. Answer its outbox."""
    outbox = SQLiteOutbox(office.path / "outbox.sqlite", make_settings())
    outbox.put([make_entry("Visited clinic", user=USER_KEY, at=NOW - 1)], NOW)
    return outbox


@pytest.mark.parametrize("has_ledger", [True, False], ids=["ledger", "no-ledger"])
def test_what_waits_in_the_outbox_is_deleted_and_sends_are_waited_for(
    office, monkeypatch, has_ledger
):
    monkeypatch.setenv("MP_ASGI_OUTBOX", f"sqlite:///{office.path}/outbox.sqlite")
    if not has_ledger:
        unset_ledger(monkeypatch)
    outbox = put_waiting(office)
    began = office.clock()

    code, out, _ = office.on_file("erase")

    assert code == 0
    assert "1 message deleted" in out
    assert office.clock() >= began + SEND_SECONDS
    assert outbox.stats().totals["dropped", "erased"] == 1
    assert outbox.stats().depth == 0
    outbox.close()


@pytest.mark.parametrize("has_ledger", [True, False], ids=["ledger", "no-ledger"])
def test_an_outbox_that_cannot_be_used_is_a_problem_and_mixpanel_is_not_asked(
    office, monkeypatch, has_ledger
):
    (office.path / "outbox.sqlite").mkdir()
    monkeypatch.setenv("MP_ASGI_OUTBOX", f"sqlite:///{office.path}/outbox.sqlite")
    if not has_ledger:
        unset_ledger(monkeypatch)

    code, out, err = office.on_file("erase")

    assert code == 1
    assert "outbox      not reached" in out
    assert "is no file" in err
    assert NOT_PURGED in err
    assert office.standin.privacy.jobs == []


@pytest.mark.parametrize("outbox", ["memory", "sqlite:////nowhere/outbox.sqlite"])
def test_an_outbox_that_nobody_can_open_is_out_of_reach(office, monkeypatch, outbox):
    monkeypatch.setenv("MP_ASGI_OUTBOX", outbox)

    code, out, _ = office.on_file("erase")

    assert code == 0
    assert "out of reach from here; each process drops what it reads a tombstone for" in out


def leave_journal():
    """Let a process that has no threads write something down, and end. Answer the journal."""
    journals = Journals(find_location(Settings.from_env()).journals)
    file = journals.create(is_lone=True)
    file.append(b"record")
    journals.leave(file)
    return file.path


@pytest.mark.parametrize("has_ledger", [True, False], ids=["ledger", "no-ledger"])
def test_who_may_stand_in_a_journal_is_stopped_before_there_is_an_outbox(
    office, monkeypatch, has_ledger
):
    leave_journal()
    if not has_ledger:
        unset_ledger(monkeypatch)

    code, out, _ = office.on_file("erase")
    outbox = open_outbox(Settings.from_env(), creates=False)
    outbox.put([make_entry("Visited clinic", user=USER_KEY, at=NOW - 1)], NOW)

    assert code == 0
    assert "0 messages deleted" in out
    assert outbox.stats().depth == 0
    outbox.close()


def test_the_journals_that_still_hold_what_was_tracked_are_named(office):
    journal = leave_journal()

    _, _, err = office.on_file("erase")
    [warning] = [text for text in office.read_json("erase")["warnings"] if "Journals" in text]

    assert f"{journal.name} (in {journal.parent})" in warning
    assert f"mp-asgi erase: {warning}" in err.splitlines()


def test_without_journals_nothing_is_said_of_them(office):
    assert office.read_json("erase")["warnings"] == [NOT_CLEARED]


def test_a_later_run_with_the_same_receipt_clears_the_ledger_once_mixpanel_is_done(office):
    options = ("erase", "--receipt", str(office.path / "receipt.json"))
    office.on_file(*options)
    links = len(office.ledger.links_of_user(USER_KEY))
    office.standin.privacy.finish()

    code, out, err = office.on_file(*options)

    assert code == 0
    assert "2 jobs done" in out
    assert "1 record emptied, links gone" in out
    assert "still holds" not in err
    assert "Jobs finished by Mixpanel: 2 of 2" in err
    assert "Requests to Mixpanel" not in err
    assert (links, office.ledger.links_of_user(USER_KEY)) == (1, [])


def test_a_failed_job_is_called_failed_and_placed_again(office):
    options = ("erase", "--receipt", str(office.path / "receipt.json"))
    office.on_file(*options)
    office.standin.privacy.fail()

    code, out, _ = office.on_file(*options)

    assert code == 0
    assert "2 jobs failed and asked for again, 2 jobs taken; it may take 30 days" in out
    assert "task-2  FAILURE  1 device" in out
    assert [job.distinct_ids for job in office.standin.privacy.jobs][2:] == [
        ("U1-secret",),
        (f"$device:{DEVICE}",),
    ]


def test_waiting_for_a_job_that_fails_says_what_to_do(office):
    def sleep(seconds):
        office.clock.advance(seconds)
        if seconds == POLL_SECONDS:
            office.standin.privacy.fail()

    office.sleep = sleep
    code, out, err = office.on_file("erase", "--wait")

    assert code == 1
    assert "2 jobs failed; run this again" in out
    assert "Task task-1 ended as FAILURE. Run this again." in err


def test_what_mixpanel_did_not_take_is_told_and_not_waited_for(office):
    def sleep(seconds):
        office.clock.advance(seconds)
        if office.standin.privacy.jobs:
            office.standin.misbehave(Fault.UNAVAILABLE, None)

    office.sleep = sleep
    code, _, err = office.on_file("erase", "--wait")

    assert code == 1
    assert "1 device not taken: " in err
    assert {request.method for request in office.standin.requests} == {"POST"}


def test_a_device_that_comes_to_light_while_mixpanel_works_is_waited_for_too(office):
    key = KeyMaker(TOKEN).device_key("late-device")
    links = [Link("U1-secret", "late-device", USER_KEY, key, NOW - 9)]

    def sleep(seconds):
        office.clock.advance(seconds)
        if seconds == POLL_SECONDS:
            office.ledger.append(links)
            office.standin.privacy.advance()
            links.clear()

    office.sleep = sleep
    code, out, _ = office.on_file("erase", "--wait")

    assert code == 0
    assert "3 jobs done" in out
    assert "links gone" in out
    assert [job.distinct_ids for job in office.standin.privacy.jobs][2:] == [
        ("$device:late-device",)
    ]


def test_sends_of_other_processes_are_waited_for(office):
    began_at = office.clock.now

    _, _, err = office.on_file("erase")

    assert office.clock.now - began_at >= SEND_SECONDS
    assert "Seconds until no earlier send is under way: 120 of 120" in err


@pytest.mark.parametrize("options", [(), ("--json",)], ids=["text", "json"])
def test_nobody_is_named_and_no_secret_is_shown(office, options):
    _, out, err = office.on_file("erase", *options)

    shown = out + err
    assert not any(word in shown for word in ("U1-secret", DEVICE, OAUTH, TOKEN))


def test_raw_ids_are_shown_only_if_asked(office):
    receipt = office.read_json("erase", "--reveal")

    assert receipt["ids"] == {"users": ["U1-secret"], "devices": [DEVICE]}


def test_a_dry_run_sends_and_writes_nothing(office):
    path = office.path / "receipt.json"
    before = {file.name: file.read_bytes() for file in office.path.iterdir()}

    code, out, _ = office.on_file("erase", "--dry-run", "--receipt", str(path))

    assert code == 0
    assert "has done nothing" in out
    assert out.count("\n  ") == 2
    assert office.standin.requests == []
    assert {file.name: file.read_bytes() for file in office.path.iterdir()} == before


def test_a_dry_run_in_json_says_what_is_there(office):
    plan = office.read_json("erase", "--dry-run", "--reveal")

    assert plan == {
        "would_erase": ["user U1-secret", f"device {DEVICE}"],
        "ledger": True,
        "mixpanel": True,
    }


def test_a_dry_run_says_what_is_missing(office, without_ledger, monkeypatch):
    monkeypatch.delenv("MIXPANEL_OAUTH_TOKEN")

    code, _, err = office.on_file("erase", "--dry-run")

    assert code == 0
    assert "nothing stops these people" in err
    assert "MIXPANEL_OAUTH_TOKEN is not set" in err


def test_waiting_ends_with_mixpanels_success(office):
    office.standin.privacy.finish()

    def sleep(seconds):
        office.clock.advance(seconds)
        office.standin.privacy.advance()

    office.sleep = sleep
    code, out, err = office.on_file("erase", "--wait", "--compliance", "ccpa")

    assert code == 0
    assert "(CCPA)" in out
    assert "2 jobs done" in out
    assert "task-2  SUCCESS  1 device" in out
    assert "--status TASK" not in out
    assert "links gone" in out
    assert office.ledger.links_of_user(USER_KEY) == []
    assert "Jobs finished by Mixpanel: 2 of 2" in err


def test_a_receipt_lets_a_later_run_go_on(office):
    path = office.path / "receipt.json"
    office.standin.misbehave(Fault.UNAVAILABLE, None)
    failed, out, err = office.on_file("erase", "--receipt", str(path))
    office.standin.behave()
    began_at = office.clock.now

    code, _, _ = office.on_file("erase", "--receipt", str(path))

    assert (failed, code) == (1, 0)
    assert "no job taken" in out
    assert "status 503" in err
    assert office.clock.now - began_at < SEND_SECONDS
    assert len(office.standin.privacy.jobs) == 2
    assert json.loads(path.read_text())["mixpanel"]["is_taken"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [item.name for item in office.path.glob("*.new")] == []


def test_what_was_created_is_not_created_twice(office):
    path = office.path / "receipt.json"
    office.on_file("erase", "--receipt", str(path))

    code, _, _ = office.on_file("erase", "--receipt", str(path))

    assert code == 0
    assert len(office.standin.privacy.jobs) == 2


@pytest.mark.parametrize("when", ["fence", "poll"])
def test_ctrl_c_leaves_what_can_be_gone_on_with(office, when):
    path = office.path / "receipt.json"

    def sleep(seconds):
        office.clock.advance(seconds)
        if (when == "poll") is (seconds == POLL_SECONDS):
            raise KeyboardInterrupt

    office.sleep = sleep
    code, out, err = office.on_file("erase", "--wait", "--receipt", str(path))

    assert code == 1
    assert "What was done stays done" in err
    assert "tombstones  20" in out
    assert json.loads(path.read_text())["tombstones"]["at"]


def test_a_failure_after_the_tombstones_shows_how_far_it_got(office):
    def sleep(seconds):
        office.clock.advance(seconds)
        raise LedgerUnavailable("The ledger gave no answer.")

    office.sleep = sleep
    code, out, err = office.on_file("erase", "--json")

    receipt = json.loads(out)
    assert code == 1
    assert receipt["tombstones"]["at"]
    assert receipt["warnings"] == [NOT_CLEARED]
    (problem,) = receipt["problems"]
    assert problem == "The ledger gave no answer. What was done stays done. Run this again."
    assert problem in err


def test_a_receipt_that_cannot_be_kept_any_more_is_shown(office):
    path = office.path / "kept" / "receipt.json"
    path.parent.mkdir()

    def sleep(seconds):
        office.clock.advance(seconds)
        if office.standin.privacy.jobs and path.exists():
            path.unlink()
            path.parent.rmdir()

    office.sleep = sleep
    code, out, err = office.on_file("erase", "--receipt", str(path))

    assert code == 1
    assert "task-2  PENDING  1 device" in out
    assert f"No such file or directory: '{path}'. What was done stays done." in err


def test_a_failed_job_that_was_placed_again_does_not_spoil_the_wait(office):
    options = ("erase", "--receipt", str(office.path / "receipt.json"))
    office.on_file(*options)
    office.standin.privacy.fail()
    office.on_file(*options)
    office.standin.privacy.finish()

    code, out, err = office.on_file(*options, "--wait")

    assert code == 0
    assert "2 jobs done, 2 jobs failed and asked for again\n" in out
    assert "Run this again" not in err
    assert "links gone" in out


def test_a_failure_before_anything_was_done_is_only_told(office):
    with sqlite3.connect(office.path / "ledger.db") as database:
        database.execute(
            "CREATE TRIGGER no BEFORE INSERT ON mp_asgi_records BEGIN SELECT RAISE(FAIL, ''); END"
        )
    database.close()

    code, out, err = office.on_file("erase")

    assert (code, out) == (1, "")
    assert "gave no answer" in err
    assert "stays done" not in err


def test_ctrl_c_before_anything_was_done_leaves_no_receipt(office):
    def read_clock():
        raise KeyboardInterrupt

    office.read_clock = read_clock
    code, out, err = office.on_file("erase")

    assert (code, out) == (1, "")
    assert "What was done" not in err


def test_ctrl_c_while_ids_are_read_says_so(office):
    office.ids.unlink()
    os.mkfifo(office.ids)

    child = subprocess.Popen(
        [sys.executable, "-m", "mp_asgi", "erase", "-f", str(office.ids)],
        stderr=subprocess.PIPE,
        text=True,
    )
    # Once the pipe opens, the command is reading it.
    with office.ids.open("w"):
        child.send_signal(2)
        _, err = child.communicate(timeout=30)

    assert child.returncode == 1
    assert err == "mp-asgi erase: interrupted. Run it again to go on.\n"


def test_a_receipt_of_other_people_is_refused(office):
    path = office.path / "receipt.json"
    office.on_file("erase", "--receipt", str(path))
    office.write("U2")

    code, _, err = office.on_file("erase", "--receipt", str(path))

    assert code == 1
    assert "about other people" in err


def test_without_a_ledger_it_works_and_warns(office, without_ledger):
    began_at = office.clock.now

    code, out, err = office.on_file("erase")

    assert code == 0
    assert "nothing stops these people" in err
    assert "tombstones  none" in out
    assert "what waits there will be sent" in out
    assert office.clock.now - began_at < SEND_SECONDS
    assert len(office.standin.privacy.jobs) == 1


def test_without_a_token_the_exit_code_says_that_mixpanel_was_not_asked(office, monkeypatch):
    monkeypatch.delenv("MIXPANEL_OAUTH_TOKEN")

    code, out, err = office.on_file("erase")

    assert code == 1
    assert "Mixpanel was not asked: MIXPANEL_OAUTH_TOKEN is not set" in err
    assert "ledger      kept" in out
    assert office.ledger.current(USER_KEY).state is ActState.ERASED


def test_who_is_switched_off_can_erase(office, monkeypatch):
    monkeypatch.setenv("MIXPANEL_ENABLED", "0")

    code, _, _ = office.on_file("erase")

    assert code == 0
    assert office.ledger.current(USER_KEY).state is ActState.ERASED


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        pytest.param(["undefined"], "line 1: Mixpanel refuses this user ID", id="refused-id"),
        pytest.param(["cookie:x"], "line 1: this is no ID cookie", id="foreign-cookie"),
        pytest.param(["#"], "There is no ID", id="nobody"),
    ],
)
def test_a_list_that_cannot_be_used_is_wrong_usage(office, lines, problem):
    office.write(*lines)

    code, out, err = office.on_file("erase")

    assert (code, out) == (2, "")
    assert problem in err
    assert office.standin.requests == []


def test_a_wrong_byte_is_no_id(office):
    office.ids.write_bytes(b"caf\xe9\n")

    code, _, err = office.on_file("erase")

    assert (code, "line 1" in err) == (2, True)


def test_a_byte_order_mark_is_not_part_of_an_id(office):
    office.ids.write_bytes(b"\xef\xbb\xbfU1-secret\r\n")

    assert office.read_json("erase", "--dry-run", "--reveal")["would_erase"][0] == "user U1-secret"


def test_a_missing_file_is_wrong_usage(office):
    office.ids.unlink()

    code, _, err = office.on_file("erase")

    assert (code, "No such file" in err) == (2, True)


def test_ids_are_not_taken_from_the_command_line(office):
    with pytest.raises(SystemExit) as refused:
        main(["erase", "U1-secret"])

    assert refused.value.code == 2


def test_ids_come_from_standard_input(office):
    done = subprocess.run(
        [sys.executable, "-m", "mp_asgi", "erase", "--dry-run", "--reveal"],
        input="U2\n",
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout == "Would erase, and has done nothing:\n  user U2\n"


def test_ids_in_any_letters_are_printed_to_any_terminal(office):
    done = subprocess.run(
        [sys.executable, "-m", "mp_asgi", "erase", "--dry-run", "--reveal"],
        input="ü\n".encode(),
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        check=True,
    )

    assert done.stdout == b"Would erase, and has done nothing:\n  user \\xfc\n"


def test_a_stream_of_somebody_elses_is_left_as_it_is(office, monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)

    code = main(["erase", "--dry-run", "-f", str(office.ids)])

    assert code == 0
    assert "has done nothing" in stream.getvalue()


def test_a_terminal_is_told_what_to_type(office):
    master, slave = os.openpty()
    os.write(master, b"U2\n\x04")
    with subprocess.Popen(
        [sys.executable, "-m", "mp_asgi", "erase", "--dry-run"],
        stdin=slave,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        out, err = child.communicate(timeout=30)
    os.close(slave)
    os.close(master)

    assert child.returncode == 0
    assert err == "Type one ID a line, end with Ctrl-D.\n"
    assert "user " in out


def test_settings_that_cannot_be_used_are_named(office, monkeypatch):
    monkeypatch.delenv("MIXPANEL_TOKEN")

    code, _, err = office.on_file("erase")

    assert (code, "MIXPANEL_TOKEN is not set" in err) == (1, True)


@pytest.mark.parametrize("options", [(), ("--dry-run",)], ids=["for-real", "dry-run"])
def test_a_ledger_that_is_not_there_is_an_error_and_not_an_empty_one(office, monkeypatch, options):
    monkeypatch.chdir(office.path)
    monkeypatch.setenv("MP_ASGI_LEDGER", "nowhere.db")

    code, out, err = office.on_file("erase", *options)

    assert (code, out) == (1, "")
    assert str(office.path / "nowhere.db") in err
    assert not (office.path / "nowhere.db").exists()
    assert office.standin.requests == []


def test_a_missing_directory_of_the_receipt_is_named_as_it_was_given(office):
    path = office.path / "nowhere" / "receipt.json"

    code, _, err = office.on_file("erase", "--receipt", str(path))

    assert code == 2
    assert err.endswith(f"No such file or directory: '{path}'\n")
    assert office.ledger.current(USER_KEY).state is ActState.GRANTED


@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
def test_a_job_can_be_asked_for_and_cancelled(office, as_json):
    options = ("--json",) if as_json else ()
    office.on_file("erase")

    asked, status, _ = office.call("erase", "--status", "task-1", *options)
    cancelled, answer, _ = office.call("erase", "--cancel", "task-1", *options)
    lost, after, _ = office.call("erase", "--status", "task-1", *options)

    assert (asked, cancelled, lost) == (0, 0, 1)
    if as_json:
        assert json.loads(status) == {"task_id": "task-1", "status": "PENDING", "link": ""}
        assert json.loads(answer) == {"task_id": "task-1", "is_cancelled": True}
        assert json.loads(after)["status"] == "REVOKED"
    else:
        assert (status, answer, after) == ("PENDING\n", "Cancelled.\n", "REVOKED\n")


def test_what_has_started_cannot_be_cancelled(office):
    office.on_file("erase")
    office.standin.privacy.finish()

    code, _, err = office.call("erase", "--cancel", "task-1")

    assert (code, "has started" in err) == (1, True)


@pytest.mark.parametrize("option", ["--status", "--cancel"])
def test_a_job_is_asked_for_without_the_ledger(office, monkeypatch, option):
    office.on_file("erase")
    monkeypatch.setenv("MP_ASGI_LEDGER", str(office.path / "nowhere.db"))

    code, _, _ = office.call("erase", option, "task-1")

    assert code == 0


@pytest.mark.parametrize("option", ["--status", "--cancel"])
@pytest.mark.parametrize("task_id", ["\udcff", "two words", ""], ids=ascii)
def test_what_is_no_task_id_is_wrong_usage(office, option, task_id):
    with pytest.raises(SystemExit) as refused:
        main(["erase", option, task_id])

    assert refused.value.code == 2
    assert "is no task ID" in office.capsys.readouterr().err


@pytest.mark.parametrize("option", ["--status", "--cancel"])
def test_asking_needs_the_token(office, monkeypatch, option):
    monkeypatch.delenv("MIXPANEL_OAUTH_TOKEN")

    code, _, err = office.call("erase", option, "task-1")

    assert (code, "MIXPANEL_OAUTH_TOKEN" in err) == (1, True)
