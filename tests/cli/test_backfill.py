import json
import signal
import threading
import time
from hashlib import sha256

import pytest

from mp_asgi.backfill import PORTION_LINES
from mp_asgi.dev import Fault
from mp_asgi.events import Act, ActState, Endpoint, Subject
from mp_asgi.ledger import Ledger
from mp_asgi.wire import KeyMaker
from tests.cli.depot import BASIS, make_line, on_both_storages, signal_when, start
from tests.cli.people import LEDGER_KEY, TOKEN
from tests.support import TIMEOUT, wait_for

USER_KEY = KeyMaker(TOKEN).user_key("U1-secret")


def backfill(depot, *options):
    return depot.call("backfill", *options, *BASIS, is_now=True)


def read_json(depot, *options, code=0):
    return depot.read_json("backfill", *options, *BASIS, code=code, is_now=True)


def make_lines(count):
    return [make_line(f"Event {number}") for number in range(count)]


def start_backfill(file):
    return start("backfill", file, *BASIS)


@on_both_storages
def test_a_file_is_read_stored_and_delivered(depot):
    file = depot.write(*make_lines(3))

    code, out, err = backfill(depot, file)

    assert code == 0
    assert out == (
        "3 lines read, 3 stored.\n"
        "Meanwhile the outbox, visitors' events included: 3 delivered, 0 buried, 0 dropped, "
        "0 waiting.\n"
    )
    assert "Storing: 3 of 3" in err
    assert [event["event"] for event in depot.standin.events] == ["Event 0", "Event 1", "Event 2"]
    assert "secret" not in out + err


def test_the_past_keeps_its_time(depot):
    backfill(depot, depot.write(make_line(time=1_600_000_000)))

    (event,) = depot.standin.events
    assert event["properties"]["time"] == 1_600_000_000


def test_nothing_is_read_unless_consent_is_asserted(depot):
    with pytest.raises(SystemExit) as stop:
        depot.call("backfill", depot.write(make_line()), is_now=True)

    assert stop.value.code == 2


@pytest.mark.parametrize("options", [(), ("--json",)], ids=["lines", "json"])
def test_the_basis_is_recorded_with_the_digest_of_the_file(depot, options):
    file = depot.write(make_line())
    digest = sha256((depot.path / "events.ndjson").read_bytes()).hexdigest()

    _, out, err = backfill(depot, file, *options)

    assert f"mp-asgi backfill: file {digest}; basis: ticket 17\n" in err
    if options:
        content = json.loads(out)
        assert (content["file"], content["basis"]) == (digest, "ticket 17")


def test_a_basis_of_nothing_is_none(depot):
    with pytest.raises(SystemExit) as stop:
        depot.call("backfill", depot.write(make_line()), "--basis", " ")

    assert stop.value.code == 2


def test_a_run_that_may_not_go_on_says_so_before_it_waits_for_room(depot, monkeypatch):
    file = depot.write(make_line())
    backfill(depot, file)
    monkeypatch.setenv("MP_ASGI_OUTBOX_MAX_MESSAGES", "10")
    depot.standin.misbehave(Fault.HANG, times=None)
    depot.put_sendable(7)

    alarm = threading.Timer(TIMEOUT, signal.raise_signal, [signal.SIGTERM])
    alarm.start()
    code, _, err = backfill(depot, file)
    alarm.cancel()

    assert code == 1
    assert "--resume goes on there" in err


def test_a_bad_line_is_told_and_nothing_is_stored(depot):
    file = depot.write(make_line(), "{", make_line(time="secret"))

    code, out, err = backfill(depot, file)

    assert (code, out) == (2, "")
    assert "mp-asgi backfill: line 2: it is no JSON.\n" in err
    assert "mp-asgi backfill: line 3: 'time' is no time from 1971 to now" in err
    assert "nothing was stored. --skip-bad" in err
    assert "secret" not in err
    assert depot.outbox.stats().totals == {}
    assert read_json(depot, file, code=2) == {"error": "bad lines", "bad": 2}


def test_bad_lines_can_be_left_out(depot):
    file = depot.write(make_line(), "{")

    content = read_json(depot, file, "--skip-bad")

    assert (content["read"], content["stored"], content["bad"]) == (2, 1, 1)
    assert len(depot.standin.events) == 1


def test_a_portion_of_nothing_but_bad_lines_is_no_earlier_run(depot):
    file = depot.write(*["{"] * PORTION_LINES, make_line())

    assert read_json(depot, file, "--skip-bad")["stored"] == 1


def test_of_many_bad_lines_the_first_are_told(depot):
    _, _, err = backfill(depot, depot.write(*["{"] * 23))

    assert err.count("it is no JSON") == 20
    assert "mp-asgi backfill: and 3 more bad lines." in err


def test_a_file_that_was_imported_is_not_imported_again(depot):
    file = depot.write(*make_lines(2))
    backfill(depot, file)

    code, _, err = backfill(depot, file)
    content = read_json(depot, file, "--resume")

    assert code == 1
    assert "--resume goes on there" in err
    assert (content["stored"], content["seen"]) == (0, 2)
    assert len(depot.standin.events) == 2


def test_another_file_with_the_same_lines_doubles_nothing_at_mixpanel(depot):
    backfill(depot, depot.write(make_line()))
    backfill(depot, depot.write(make_line(), ""))

    (key,) = depot.standin.duplicates().values()
    assert key == 2  # of one dedupe key: Mixpanel counts one


def test_a_run_that_was_killed_goes_on_where_it_was(depot, monkeypatch):
    monkeypatch.setenv("MP_ASGI_OUTBOX_MAX_MESSAGES", str(2 * PORTION_LINES))
    depot.standin.misbehave(Fault.UNAVAILABLE, times=None)
    file = depot.write(*make_lines(3 * PORTION_LINES + 1))
    process = start_backfill(file)
    wait_for(lambda: depot.outbox.stats().depth == PORTION_LINES)
    process.kill()
    process.communicate(timeout=TIMEOUT)
    depot.standin.behave()
    give_back(depot)

    content = read_json(depot, file, "--resume")

    assert (content["seen"], content["stored"]) == (PORTION_LINES, 2 * PORTION_LINES + 1)
    assert len(depot.standin.events) == 3 * PORTION_LINES + 1
    assert depot.standin.duplicates() == {}


def give_back(depot):
    """Give back what a killed process held, instead of waiting until its lease runs out."""
    leased = depot.outbox.lease(
        Endpoint.EVENTS, time.time() + 200, max_messages=1000, max_bytes=10**7, seconds=1.0
    )
    depot.outbox.release([item.id for item in leased], 0.0)


def test_a_signal_ends_it_and_says_how_to_go_on(depot, monkeypatch):
    monkeypatch.setenv("MP_ASGI_OUTBOX_MAX_MESSAGES", str(2 * PORTION_LINES))
    depot.standin.misbehave(Fault.UNAUTHORIZED, times=None)
    process = start_backfill(depot.write(*make_lines(3 * PORTION_LINES)))
    wait_for(lambda: depot.standin.requests)

    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=TIMEOUT)

    assert process.returncode == 1
    assert f"{3 * PORTION_LINES} lines read, {PORTION_LINES} stored." in out
    assert "interrupted. What is stored stays; --resume goes on." in err
    assert "Mixpanel answers /import with status 401" in err
    assert "Traceback" not in err


def test_a_signal_while_there_is_no_room_stores_no_more(depot, monkeypatch):
    monkeypatch.setenv("MP_ASGI_OUTBOX_MAX_MESSAGES", str(2 * PORTION_LINES))
    depot.standin.misbehave(Fault.UNAUTHORIZED, times=None)

    with signal_when(lambda: depot.standin.requests):
        code, out, err = backfill(depot, depot.write(*make_lines(2 * PORTION_LINES)))

    assert code == 1
    assert f"{PORTION_LINES} stored." in out
    assert "interrupted" in err


class Interrupted:
    """An outbox during whose first put the process is told to end, by some signals."""

    def __init__(self, outbox, *signals):
        self._outbox = outbox
        self._signals = signals
        self._has_come = False

    def put(self, *arguments):
        result = self._outbox.put(*arguments)
        if not self._has_come and len(arguments) == 3:  # with a ticket: not the worker's
            self._has_come = True
            for number in self._signals:
                signal.raise_signal(number)
        return result

    def __getattr__(self, name):
        return getattr(self._outbox, name)


def test_a_signal_while_there_is_room_stores_no_more_though_nothing_waits(depot, monkeypatch):
    depot.outbox.forget([USER_KEY], time.time(), time.time())
    interrupted = Interrupted(depot.outbox, signal.SIGTERM)
    monkeypatch.setattr("mp_asgi.cli.outbox.open_outbox", lambda *_, **__: interrupted)

    file = depot.write(*make_lines(2 * PORTION_LINES))
    content = read_json(depot, file, code=1)

    assert (content["refused"], content["waiting"]) == (PORTION_LINES, 0)


def test_who_ends_it_twice_learns_how_to_go_on(depot, monkeypatch):
    interrupted = Interrupted(depot.outbox, signal.SIGINT, signal.SIGINT)
    monkeypatch.setattr("mp_asgi.cli.outbox.open_outbox", lambda *_, **__: interrupted)

    code, _, err = backfill(depot, depot.write(make_line()))

    assert code == 1
    assert err.splitlines()[-1] == (
        "mp-asgi backfill: interrupted. What is stored stays; --resume goes on."
    )


@on_both_storages
def test_half_of_the_outbox_stays_the_visitors(depot, monkeypatch):
    monkeypatch.setenv("MP_ASGI_OUTBOX_MAX_MESSAGES", str(2 * PORTION_LINES))
    file = depot.write(*make_lines(3 * PORTION_LINES))

    content = read_json(depot, file)

    assert (content["stored"], content["overflowed"]) == (3 * PORTION_LINES, 0)
    assert len(depot.standin.events) == 3 * PORTION_LINES


def test_an_outbox_in_which_there_is_never_room_is_a_problem(depot, monkeypatch):
    monkeypatch.setenv("MP_ASGI_OUTBOX_MAX_MESSAGES", "2")

    code, _, err = backfill(depot, depot.write(*make_lines(3)))

    assert code == 1
    assert "MP_ASGI_OUTBOX_MAX_MESSAGES" in err


@on_both_storages
def test_who_has_a_stop_mark_since_is_left_out(depot):
    depot.outbox.forget([USER_KEY], time.time(), time.time())
    file = depot.write(make_line(), make_line(distinct_id="U2"))

    code, out, _ = backfill(depot, file)

    assert code == 0
    assert "1 refused, because they have withdrawn" in out
    assert [event["properties"]["distinct_id"] for event in depot.standin.events] == ["U2"]


def test_whom_the_ledger_denies_is_left_out(depot, monkeypatch):
    path = str(depot.path / "ledger.db")
    monkeypatch.setenv("MP_ASGI_LEDGER", path)
    monkeypatch.setenv("MP_ASGI_LEDGER_KEYS", LEDGER_KEY)
    ledger = Ledger(path, [LEDGER_KEY], project=TOKEN.encode())
    ledger.open()
    ledger.append([Act(key=USER_KEY, subject=Subject.USER, state=ActState.DENIED, at=time.time())])
    ledger.close()

    content = read_json(depot, depot.write(make_line(), make_line(distinct_id="U2")))

    assert (content["delivered"], content["dropped"]) == (1, 1)
    assert [event["properties"]["distinct_id"] for event in depot.standin.events] == ["U2"]


def test_profile_updates_travel_too(depot):
    update = {"$distinct_id": "U1", "$set": {"plan": "pro"}}

    content = read_json(depot, depot.write(json.dumps(update)))

    assert content["delivered"] == 1
    assert depot.standin.people[0]["$set"] == {"plan": "pro"}


def test_a_file_that_is_not_there_is_one_sentence(depot):
    code, out, err = backfill(depot, str(depot.path / "nowhere"))

    assert (code, out) == (2, "")
    assert err.count("\n") == 1


def test_an_empty_file_is_no_problem(depot):
    assert read_json(depot, depot.write())["read"] == 0


def test_who_is_switched_off_imports_nothing(depot, monkeypatch):
    monkeypatch.setenv("MIXPANEL_ENABLED", "0")

    code, _, err = backfill(depot, depot.write(make_line()))

    assert code == 1
    assert "MIXPANEL_ENABLED=0" in err
