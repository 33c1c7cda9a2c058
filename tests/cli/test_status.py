import json
import re
import signal
import sys

import pytest

from mp_asgi.cli.look import RECENT_SECONDS
from mp_asgi.events import Endpoint
from mp_asgi.health import OLD_SECONDS
from tests.cli.depot import Broken, on_both_storages, start
from tests.support import NOW, TIMEOUT, make_entry

pytestmark = on_both_storages


class Screen:
    """Standard output on a terminal."""

    def __init__(self, stream):
        self._stream = stream

    def isatty(self):
        return True

    def __getattr__(self, name):
        return getattr(self._stream, name)


def test_the_first_line_says_that_all_is_well(depot):
    depot.put("A", "B")
    depot.clock.advance(42)

    code, out, err = depot.call("status")

    assert (code, err) == (0, "")
    assert out.splitlines()[0] == "All is well: 2 messages wait, up to 42 s."


def test_what_is_known_is_told_in_a_few_lines(depot):
    depot.put("A", "B")
    depot.bury("C")
    depot.put("Stopped", at=NOW)
    depot.outbox.forget([b"device"], NOW - 1, NOW)
    depot.clock.advance(RECENT_SECONDS + 1)

    _, out, _ = depot.call("status")

    rows = dict(line.split(maxsplit=1) for line in out.splitlines() if line)
    assert rows["outbox"].startswith(("sqlite /", "redis://127.0.0.1:"))
    assert re.fullmatch(r"3 messages, \d+ bytes; 0% full", rows["waiting"])
    assert re.fullmatch(r"1: 1 rejected; \d+ bytes", rows["dead"])
    assert rows["dropped"] == "0"


def test_every_message_is_accounted_for(depot):
    depot.bury("A", "B")
    depot.put("C", "D")
    depot.outbox.replay([1], NOW)
    (leased,) = depot.lease()
    depot.outbox.ack([leased.id])
    depot.outbox.drop([depot.lease()[0].id], "stopped")

    look = depot.read_json("status", code=1)
    _, out, _ = depot.call("status")

    assert look["is_balanced"]
    assert "docs/operations.md" in out
    assert "4 accepted + 1 replayed = 1 delivered + 1 waiting + 2 buried + 1 dropped\n" in out


def test_what_does_not_add_up_is_said(depot):
    depot.outbox.tally({("accepted", ""): 1})

    _, out, _ = depot.call("status")

    assert "(does not add up: look again)" in out
    assert not depot.read_json("status")["is_balanced"]


def test_what_waits_too_long_needs_somebody(depot):
    depot.put("A")
    depot.clock.advance(OLD_SECONDS + 1)

    code, out, _ = depot.call("status")

    assert code == 1
    assert out.startswith("Needs you: 1 message waits, the longest for 15 min.")


def test_what_was_tracked_long_ago_and_put_now_needs_nobody(depot):
    depot.put_sendable(1)

    assert depot.read_json("status", is_now=True)["worries"] == []


def test_journals_that_nobody_took_in_need_somebody(depot):
    depot.leave_journal("Left")
    depot.leave_journal("Left")

    code, out, _ = depot.call("status")
    look = depot.read_json("status", code=1)

    assert code == 1
    assert out.startswith("Needs you: 2 journals (")
    assert re.search(r"^journals +2 left behind, ", out, re.MULTILINE)
    assert look["journals"] == 2
    assert look["journal_bytes"] > 100


def test_what_died_within_a_day_needs_somebody(depot):
    depot.bury("A")
    depot.clock.advance(RECENT_SECONDS)

    code, out, _ = depot.call("status")

    assert code == 1
    assert out.startswith("Needs you: 1 message died within a day: `mp-asgi dead list`.")


def test_what_died_before_that_is_only_counted(depot):
    depot.bury("A")
    depot.clock.advance(RECENT_SECONDS + 1)

    look = depot.read_json("status")

    assert (look["dead"], look["recently_dead"]) == ({"rejected": 1}, 0)


@pytest.mark.parametrize(
    ("name", "value"),
    [("MP_ASGI_OUTBOX_MAX_MESSAGES", "2"), ("MP_ASGI_OUTBOX_MAX_BYTES", "1000000")],
    ids=["messages", "bytes"],
)
def test_an_outbox_that_is_nearly_full_needs_somebody(depot, monkeypatch, name, value):
    depot.put("A", "B")
    depot.outbox.put([make_entry("Large", size_bytes=900_000)], NOW)
    monkeypatch.setenv(name, value)

    code, out, _ = depot.call("status")

    assert code == 1
    assert re.match(r"Needs you: The outbox is \d+% full", out)


def test_what_is_on_the_way_and_what_stands_aside_is_told(depot):
    alias = make_entry("$create_alias", endpoint=Endpoint.ALIASES, user=b"user")
    depot.put("A")
    depot.outbox.put([alias, make_entry("B", user=b"user")], NOW)
    depot.lease()

    _, out, _ = depot.call("status")

    assert ", 1 on the way, 1 behind an alias;" in out


def test_who_is_switched_off_may_look(depot, monkeypatch):
    monkeypatch.setenv("MIXPANEL_ENABLED", "0")

    assert depot.call("status")[0] == 0


def test_a_log_gets_a_line_a_look(depot):
    depot.plans = [lambda: depot.put("A"), lambda: depot.bury("B")]

    code, out, _ = depot.call("status", "--watch")

    assert code == 1
    assert out.splitlines() == [
        "2027-01-15T08:00:00Z  well: nothing waits; dead 0, delivered 0, dropped 0",
        "2027-01-15T08:00:02Z  well: 1 message waits, up to 2 s; dead 0, delivered 0, dropped 0",
        (
            "2027-01-15T08:00:04Z  needs you: 1 message waits, up to 4 s; dead 1, delivered 0, "
            "dropped 0"
        ),
    ]


def test_a_program_gets_an_object_a_look(depot):
    depot.plans = [lambda: depot.put("A")]

    _, out, _ = depot.call("status", "--watch", "5", "--json")

    first, second = map(json.loads, out.splitlines())
    assert (first["waiting"], second["waiting"]) == (0, 1)
    assert second["at"] - first["at"] == 5.0


def test_a_terminal_is_drawn_anew(depot, monkeypatch):
    depot.plans = [lambda: None]
    monkeypatch.setattr(sys, "stdout", Screen(sys.stdout))

    _, out, _ = depot.call("status", "--watch")

    assert out.count("\x1b[H\x1b[JAll is well: nothing waits.\n") == 2


@pytest.mark.parametrize("options", [(), ("--json",)], ids=["lines", "json"])
def test_an_outbox_that_is_away_may_come_back(depot, monkeypatch, options):
    broken = Broken(depot.outbox)
    monkeypatch.setattr("mp_asgi.cli.outbox.open_outbox", lambda *_, **__: broken)
    depot.plans = [lambda: setattr(broken, "is_away", False)]

    code, out, _ = depot.call("status", "--watch", *options)

    first, second = out.splitlines()
    assert code == 0
    assert "it is away" in first
    assert "it is away" not in second


def test_ctrl_c_ends_a_watch_in_peace(depot):
    process = start("status", "--watch", "0.1", "--json")
    process.stdout.readline()

    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=TIMEOUT)

    assert (process.returncode, err) == (0, "")


def test_a_reader_that_goes_away_ends_a_watch_in_peace(depot):
    process = start("status", "--watch", "0.1")
    process.stdout.readline()
    process.stdout.close()

    assert process.wait(TIMEOUT) == 0
    assert "Traceback" not in process.stderr.read()
    process.stderr.close()


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "x"])
def test_a_pause_is_a_number_of_seconds(depot, seconds):
    with pytest.raises(SystemExit) as stop:
        depot.call("status", "--watch", seconds)

    assert stop.value.code == 2
