import os
import signal
import time
from pathlib import Path

import pytest

from mp_asgi.cli import drain as drain_module
from mp_asgi.cli.drain import wait_until_it_answers
from mp_asgi.cli.people import Time
from mp_asgi.delivery.outbox.memory import MemoryOutbox
from mp_asgi.dev import Fault
from mp_asgi.errors import OutboxUnavailable
from mp_asgi.settings import Settings
from tests.cli.depot import (
    BASIS,
    Broken,
    make_line,
    on_both_storages,
    signal_when,
    start,
)
from tests.support import TIMEOUT, make_settings, wait_for

on_redis = pytest.mark.parametrize("depot", ["redis"], indirect=True)


def drain(depot, *options):
    return depot.call("drain", *options, is_now=True)


def open_broken(listener):
    """Open what cannot be written: a full disk, or a pipe whose reader is gone."""
    if listener == "full":
        return Path("/dev/full").open("wb")
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "wb", buffering=0)


def start_service():
    """Run a service in a process of its own. Answer it with the line that says that it runs."""
    process = start("drain", "--forever")
    assert process.stdout is not None
    return process, process.stdout.readline()


@on_both_storages
def test_what_waits_is_delivered(depot):
    depot.put_sendable(3)

    code, out, err = drain(depot)

    assert code == 0
    assert out.startswith("3 messages delivered in ")
    assert out.endswith("Nothing waits.\n")
    assert "Delivering: 3 of 3" in err
    assert len(depot.standin.events) == 3


def test_an_empty_outbox_is_no_problem(depot):
    assert depot.read_json("drain", is_now=True) | {"seconds": 0} == {
        "waiting": 0,
        "leased": 0,
        "journals": 0,
        "delivered": 0,
        "buried": 0,
        "dropped": 0,
        "seconds": 0,
        "trouble": "",
    }


@on_both_storages
def test_what_ended_processes_left_in_journals_is_taken_in_and_delivered(depot):
    depot.leave_journal("First", "Second")
    depot.leave_journal("Third")

    code, out, _ = drain(depot)

    assert code == 0
    assert out.startswith("3 messages delivered in ")
    assert out.endswith("Nothing waits.\n")
    assert len(depot.standin.events) == 3
    assert depot.read_json("status", is_now=True)["journals"] == 0


def test_a_journal_is_delivered_though_nobody_has_made_an_outbox(depot, monkeypatch):
    monkeypatch.setenv("MP_ASGI_OUTBOX", f"sqlite:///{depot.path}/later/outbox.db")
    depot.settings = Settings.from_env()
    depot.leave_journal("Left")

    code, out, _ = drain(depot)

    assert (code, out.startswith("1 message delivered in ")) == (0, True)


def test_a_journal_that_cannot_be_taken_in_is_told(depot, monkeypatch):
    depot.leave_journal("Left")
    broken = Broken(depot.outbox, "put")
    monkeypatch.setattr("mp_asgi.cli.outbox.open_outbox", lambda *_, **__: broken)

    code, out, _ = drain(depot, "--max-time", "0.3")

    assert code == 1
    assert "1 journal not taken in. The outbox does not store" in out


@on_both_storages
def test_what_dies_is_told(depot):
    depot.put_sendable(1)
    depot.put("Refused")

    code, out, _ = drain(depot)

    assert code == 0
    assert "1 message delivered" in out
    assert "1 died: see `mp-asgi dead list`." in out
    assert "dropped" not in out


def test_for_ever_ends_with_a_signal_and_tells_what_it_did(depot):
    depot.put_sendable(1)

    def drop():
        if depot.standin.requests:
            depot.outbox.tally({("dropped", "bot"): 1})
        return depot.standin.requests

    with signal_when(drop):
        code, out, _ = drain(depot, "--forever")

    first, last = out.splitlines()
    assert code == 0
    assert first.startswith("Delivering from sqlite ")
    assert "1 dropped: see `mp-asgi status`." in last


def test_a_service_waits_until_its_server_answers(capsys):
    naps: list[float] = []

    class Away(MemoryOutbox):
        def stats(self):
            if len(naps) < 3:
                raise OutboxUnavailable("Redis at host:6379: ConnectionError.")
            return super().stats()

    wait_until_it_answers(Away(make_settings()), Time(sleep=naps.append))

    assert len(naps) == 3
    told = "mp-asgi drain: Redis at host:6379: ConnectionError. It is tried again.\n"
    assert capsys.readouterr().err == told


@on_redis
def test_a_service_looks_whether_its_server_answers(depot, monkeypatch):
    asked = []
    monkeypatch.setattr(drain_module, "wait_until_it_answers", lambda *_: asked.append(1))
    before = signal.getsignal(signal.SIGTERM)
    with signal_when(lambda: signal.getsignal(signal.SIGTERM) != before):
        code, _, _ = drain(depot, "--forever")

    assert (code, asked) == (0, [1])


def test_for_ever_can_answer_json(depot):
    before = signal.getsignal(signal.SIGTERM)
    with signal_when(lambda: signal.getsignal(signal.SIGTERM) != before):
        content = depot.read_json("drain", "--forever", is_now=True)

    assert content["waiting"] == 0


@on_both_storages
def test_what_stops_delivery_is_told_once_and_as_the_reason_in_the_end(depot):
    depot.put_sendable(1)
    depot.standin.misbehave(Fault.UNAUTHORIZED, times=None)

    code, out, err = drain(depot, "--max-time", "0.5")

    assert code == 1
    assert err.count("mp-asgi drain: Mixpanel answers /import with status 401") == 1
    assert "1 message waits still. Mixpanel answers /import with status 401" in out


def test_why_something_waits_that_nothing_stops_is_guessed(depot):
    depot.put_sendable(1)
    depot.lease(time.time())

    code, out, _ = drain(depot, "--max-time", "0.1")

    assert code == 1
    assert "1 on the way, by us or another process: Mixpanel has not answered yet." in out
    assert "What gets no answer is sent again after 2 min." in out


def test_what_is_not_on_the_way_came_too_late(depot):
    depot.put_sendable(1)

    code, out, _ = drain(depot, "--max-time", "1e-9")

    assert code == 1
    assert "1 message waits still. New ones come, or the time was too short." in out


def test_letters_that_are_replayed_meanwhile_take_nothing_from_what_died(depot, monkeypatch):
    depot.bury("A", "B")
    depot.standin.misbehave(Fault.UNAUTHORIZED, times=None)

    class Replaying(Broken):
        def horizon(self):
            self._outbox.replay([1, 2], time.time())
            return self._outbox.horizon()

    broken = Replaying(depot.outbox, "none")
    monkeypatch.setattr("mp_asgi.cli.outbox.open_outbox", lambda *_, **__: broken)
    depot.put_sendable(1)

    code, out, _ = drain(depot, "--max-time", "0.5")

    assert code == 1
    assert "died" not in out


def test_who_is_switched_off_sends_nothing(depot, monkeypatch):
    monkeypatch.setenv("MIXPANEL_ENABLED", "0")

    code, out, err = drain(depot)

    assert (code, out) == (1, "")
    assert err.startswith("mp-asgi drain: MIXPANEL_ENABLED=0 switches sending off.")


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "x"])
def test_a_time_is_a_number_of_seconds(depot, seconds):
    with pytest.raises(SystemExit) as stop:
        drain(depot, "--max-time", seconds)

    assert stop.value.code == 2


def test_a_time_and_for_ever_exclude_each_other(depot):
    with pytest.raises(SystemExit) as stop:
        drain(depot, "--max-time", "1", "--forever")

    assert stop.value.code == 2


def test_once_needs_an_outbox_and_a_service_makes_one(depot, monkeypatch):
    monkeypatch.setenv("MP_ASGI_OUTBOX", f"sqlite:///{depot.path}/later/outbox.db")

    code, _, err = drain(depot)
    process, line = start_service()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=TIMEOUT)

    assert (code, "There is no outbox" in err) == (1, True)
    assert line.startswith("Delivering from sqlite ")
    assert process.returncode == 0
    assert (depot.path / "later" / "outbox.db").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda item: item.name)
def test_a_service_delivers_until_a_signal_and_gives_back_what_it_holds(depot, monkeypatch, number):
    monkeypatch.setenv("MP_ASGI_FLUSH_INTERVAL", "0.1")
    process, _ = start_service()
    depot.put_sendable(2)
    wait_for(lambda: len(depot.standin.events) == 2)

    depot.standin.misbehave(Fault.UNAUTHORIZED, times=None)
    depot.put_sendable(1)
    wait_for(lambda: len(depot.standin.requests) > 1)
    process.send_signal(number)
    out, err = process.communicate(timeout=TIMEOUT)

    stats = depot.outbox.stats()
    assert process.returncode == 0
    assert "2 messages delivered" in out
    assert "Traceback" not in err
    assert (stats.depth, stats.leased) == (1, 0)


def test_a_signal_ends_a_drain_that_cannot_end(depot):
    depot.put_sendable(1)
    depot.standin.misbehave(Fault.UNAUTHORIZED, times=None)
    process = start("drain")
    wait_for(lambda: depot.standin.requests)

    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=TIMEOUT)

    assert process.returncode == 1
    assert "1 message waits still." in out
    assert "Traceback" not in err


@on_both_storages
def test_several_share_the_work(depot):
    depot.put_sendable(500)
    processes = [start("drain") for _ in range(2)]

    for process in processes:
        process.communicate(timeout=TIMEOUT)

    assert [process.returncode for process in processes] == [0, 0]
    assert len(depot.standin.events) == 500
    assert depot.standin.duplicates() == {}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a full device")
@pytest.mark.parametrize("listener", ["full", "gone"])
def test_a_service_delivers_though_its_log_cannot_be_written(depot, monkeypatch, listener):
    monkeypatch.setenv("MP_ASGI_FLUSH_INTERVAL", "0.1")
    depot.standin.misbehave(Fault.UNAVAILABLE, times=1)
    depot.put_sendable(1)
    with open_broken(listener) as log:
        process = start("drain", "--forever", stderr=log)
        wait_for(lambda: len(depot.standin.events) == 1)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=TIMEOUT)

    assert process.returncode == 0
    assert depot.outbox.stats().depth == 0


@pytest.mark.parametrize("command", ["drain", "backfill"])
def test_a_reader_that_goes_away_ends_nothing_and_is_no_success(depot, command):
    depot.standin.misbehave(Fault.UNAUTHORIZED, times=None)
    depot.put_sendable(1)
    arguments = ["backfill", depot.write(make_line()), *BASIS] if command == "backfill" else []
    with open_broken("gone") as nobody:
        process = start(*arguments or ["drain"], stdout=nobody, stderr=nobody)
        wait_for(lambda: depot.standin.requests)
        still_runs = process.poll() is None
        process.send_signal(signal.SIGTERM)

    assert (still_runs, process.wait(TIMEOUT)) == (True, 1)


def test_a_drain_that_nobody_hears_delivers_and_succeeds(depot):
    depot.put_sendable(2)
    with open_broken("gone") as nobody:
        process = start("drain", stdout=nobody, stderr=nobody)

        assert process.wait(TIMEOUT) == 0
    assert len(depot.standin.events) == 2
