import json
import os
import stat
import subprocess
import sys

import pytest

from mp_asgi.cli import main
from mp_asgi.dev import Fault
from mp_asgi.erasure.eraser import SEND_SECONDS
from mp_asgi.events import ActState
from tests.cli.people import DEVICE, DEVICE_KEY, OAUTH, TOKEN, USER_KEY


def test_a_user_is_erased_here_and_at_mixpanel(office):
    code, out, err = office.on_file("erase")

    assert code == 0
    assert "Erasure of 1 user and 1 device (GDPR)" in out
    assert "task-1  PENDING  1 user" in out
    assert "task-2  PENDING  1 device" in out
    assert "1 record emptied" in out
    assert "Requests to Mixpanel: 2 of 2" in err
    assert [job.distinct_ids for job in office.standin.privacy.jobs] == [
        ("U1-secret",),
        (f"$device:{DEVICE}",),
    ]
    standings = office.ledger.standings([USER_KEY, DEVICE_KEY])
    assert {standing.state for standing in standings.values()} == {ActState.ERASED}
    assert office.ledger.links_of_user(USER_KEY) == []


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
    before = office.ledger.verify().head

    code, out, _ = office.on_file("erase", "--dry-run", "--receipt", str(path))

    assert code == 0
    assert "has done nothing" in out
    assert out.count("\n  ") == 2
    assert office.standin.requests == []
    assert office.ledger.verify().head == before
    assert not path.exists()


def test_a_dry_run_in_json_says_what_is_there(office):
    plan = office.read_json("erase", "--dry-run", "--reveal")

    assert plan == {
        "would_erase": ["user U1-secret", f"device {DEVICE}"],
        "ledger": True,
        "mixpanel": True,
    }


def test_a_dry_run_says_what_is_missing(office, monkeypatch):
    monkeypatch.delenv("MP_ASGI_LEDGER")
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
    assert "SUCCESS" in out
    assert "--status TASK" not in out
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
        if (when == "poll") is (seconds == 60.0):
            raise KeyboardInterrupt

    office.sleep = sleep
    code, out, err = office.on_file("erase", "--wait", "--receipt", str(path))

    assert code == 1
    assert "What was done stays done" in err
    assert "tombstones  20" in out
    assert json.loads(path.read_text())["tombstones"]["at"]


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


def test_without_a_ledger_it_works_and_warns(office, monkeypatch):
    monkeypatch.delenv("MP_ASGI_LEDGER")
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
def test_asking_needs_the_token(office, monkeypatch, option):
    monkeypatch.delenv("MIXPANEL_OAUTH_TOKEN")

    code, _, err = office.call("erase", option, "task-1")

    assert (code, "MIXPANEL_OAUTH_TOKEN" in err) == (1, True)
