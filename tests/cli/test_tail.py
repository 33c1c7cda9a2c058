import json
import signal
import threading

import pytest

from tests.cli.depot import Broken, on_both_storages, start
from tests.support import NOW, TIMEOUT

pytestmark = on_both_storages


def deliver(depot):
    (leased,) = depot.lease()
    depot.outbox.ack([leased.id])


def test_what_happens_is_a_line_and_what_was_before_is_none(depot):
    depot.put("Before")
    depot.bury("Before")
    depot.outbox.purge([1])
    depot.plans = [
        lambda: depot.put("A", "B"),
        lambda: None,
        lambda: deliver(depot),
        lambda: depot.outbox.drop([depot.lease()[0].id], "withdrawn"),
    ]

    code, out, err = depot.call("tail")

    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "2027-01-15T08:00:01Z  accepted 2; 3 waiting",
        "2027-01-15T08:00:03Z  delivered 1; 2 waiting",
        "2027-01-15T08:00:04Z  dropped 1 (withdrawn 1); 1 waiting",
    ]


def test_what_dies_is_named_once_and_without_properties(depot):
    depot.bury("Long Ago")
    depot.plans = [
        lambda: depot.bury("Signed Up", "Signed Up", "\x1b[31mPaid"),
        lambda: depot.outbox.replay([2], NOW),
    ]

    _, out, _ = depot.call("tail")

    died, replayed = out.splitlines()
    assert died.endswith(
        "accepted 3, buried 3 (rejected 3), died: 2 Signed Up, 1 [31mPaid; 0 waiting"
    )
    assert replayed.endswith("  replayed 1; 1 waiting")


def test_a_program_gets_an_object_a_line(depot):
    depot.plans = [lambda: depot.bury("A"), lambda: depot.put("B")]

    _, out, _ = depot.call("tail", "--json")

    first, second = map(json.loads, out.splitlines())
    assert first == {
        "at": NOW + 1,
        "accepted": 1,
        "buried": {"rejected": 1},
        "names": {"A": 1},
        "waiting": 0,
    }
    assert second == {"at": NOW + 2, "accepted": 1, "waiting": 1}


def set_away(broken, *, is_away):
    broken.is_away = is_away


@pytest.mark.parametrize("options", [(), ("--json",)], ids=["lines", "json"])
def test_an_outbox_that_is_away_is_told_once_each_time(depot, monkeypatch, options):
    broken = Broken(depot.outbox)
    broken.is_away = False
    monkeypatch.setattr("mp_asgi.cli.outbox.open_outbox", lambda *_, **__: broken)
    depot.plans = [
        lambda: set_away(broken, is_away=True),
        lambda: None,
        lambda: set_away(broken, is_away=False),
        lambda: set_away(broken, is_away=True),
    ]

    code, out, _ = depot.call("tail", *options)

    assert code == 0
    assert out.count("it is away") == 2
    assert len(out.splitlines()) == 2


def test_ctrl_c_ends_it_in_peace(depot):
    process = start("tail")
    is_read = threading.Event()

    def put_until_read():
        while not is_read.wait(0.1):
            depot.put("A")

    thread = threading.Thread(target=put_until_read)
    thread.start()
    line = process.stdout.readline()
    is_read.set()
    thread.join(TIMEOUT)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=TIMEOUT)

    assert " accepted " in line
    assert (process.returncode, err) == (0, "")
