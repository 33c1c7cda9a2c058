import time
from dataclasses import replace

import pytest

from mp_asgi.cli.leftovers import Leftovers, find_journals, find_leftovers, forwarding
from mp_asgi.delivery.journals import Journals
from mp_asgi.delivery.outbox import spooled
from mp_asgi.delivery.outbox.factory import open_outbox
from mp_asgi.delivery.outbox.location import find_location
from mp_asgi.events import Endpoint
from mp_asgi.health import OLD_SECONDS
from tests.cli.depot import on_both_storages
from tests.support import NOW, make_entry, make_settings, wait_for

on_redis = pytest.mark.parametrize("depot", ["redis"], indirect=True)


@pytest.fixture
def journals(depot):
    return Journals(find_location(depot.settings).journals)


@on_both_storages
def test_where_nothing_is_left_nothing_is_found(depot):
    assert find_leftovers(depot.settings) == Leftovers()
    assert not find_journals(depot.settings)


def test_a_journal_that_is_written_is_not_left(depot, journals):
    file = journals.create(is_lone=False)
    file.append(b"record")

    assert find_leftovers(depot.settings).journals == 0
    assert find_journals(depot.settings) == [file.path]

    journals.leave(file)
    assert find_leftovers(depot.settings) == Leftovers(1, 6)


def test_an_empty_journal_is_nothing_and_looking_takes_no_lock_away(depot, journals):
    journals.leave(journals.create(is_lone=False))

    assert find_leftovers(depot.settings).journals == 0
    assert not find_journals(depot.settings)
    assert [journals.remove(file) for file in journals.orphans()] == [True]


def test_without_a_directory_nothing_was_left(monkeypatch):
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", "")

    assert find_leftovers(make_settings(outbox="redis://127.0.0.1:1")) == Leftovers()
    assert not find_journals(make_settings(outbox="sqlite"))


def test_what_waits_under_another_host_is_left_and_named_by_status(depot):
    settings = replace(depot.settings, api_host="http://127.0.0.1:9")
    other = open_outbox(settings)
    other.put([make_entry("a")], NOW)
    other.close()

    (stray,) = find_leftovers(depot.settings).strays

    assert stray.path == find_location(settings).outbox
    assert depot.read_json("status", code=1)["worries"] == [stray.render()]


def test_an_outbox_without_a_spool_has_nothing_to_forward(depot):
    with forwarding(depot.settings, depot.outbox) as waiting:
        assert waiting() == 0


@on_redis
def test_the_spool_is_handed_over_while_it_is_forwarded(depot):
    depot.spool(3)

    with forwarding(depot.settings, depot.outbox) as waiting:
        wait_for(lambda: waiting() == 0)

    assert depot.outbox.stats().depth == 3
    assert find_leftovers(depot.settings).spool.depth == 0


@on_redis
def test_a_service_hands_over_a_spool_that_comes_after_it(depot, monkeypatch):
    monkeypatch.setattr(spooled, "POLL_SECONDS", 0.01)
    with forwarding(depot.settings, depot.outbox, creates=True) as waiting:
        assert waiting() == 0
        depot.spool(3)
        wait_for(lambda: depot.outbox.stats().depth == 3)

    assert find_leftovers(depot.settings).spool.depth == 0


@on_redis
def test_a_service_without_a_place_for_a_spool_goes_on(depot, monkeypatch):
    settings = replace(depot.settings, state_directory=f"{depot.write('x')}/no-directory")

    with forwarding(settings, depot.outbox, creates=True) as waiting:
        assert waiting() == 0


@on_redis
def test_a_denial_in_the_spool_is_handed_over_before_anything_is_sent(depot):
    depot.outbox.put([make_entry("a")], NOW)
    depot.spool_stop([b"device"], at=NOW)

    with forwarding(depot.settings, depot.outbox):
        assert depot.outbox.stats().depth == 0


@on_redis
def test_a_denial_that_a_process_had_in_hand_when_it_ended_is_waited_for(depot):
    depot.outbox.put([make_entry("a")], NOW)
    depot.spool_stop([b"device"], at=NOW)
    assert depot.lease_spooled(Endpoint.ALIASES, seconds=0.5)

    with forwarding(depot.settings, depot.outbox):
        assert depot.outbox.stats().depth == 0


@on_redis
def test_a_denial_is_not_waited_for_longer_than_a_drain_may_take(depot):
    depot.spool_stop([b"device"], at=NOW)
    assert depot.lease_spooled(Endpoint.ALIASES)

    with forwarding(depot.settings, depot.outbox, seconds=0.1) as waiting:
        assert waiting() == 1


@on_redis
def test_a_drain_delivers_what_is_in_the_spool_of_its_host(depot):
    depot.spool(3)

    code, out, _ = depot.call("drain", is_now=True)

    assert (code, out.startswith("3 messages delivered in ")) == (0, True)


@on_redis
def test_a_spool_that_is_not_handed_over_waits_still(depot):
    depot.spool(1, at=time.time())
    (taken,) = depot.lease_spooled()

    content = depot.read_json("drain", "--max-time", "0.2", code=1, is_now=True)

    assert taken.id >= 0
    assert content["waiting"] == 1


@on_redis
def test_status_tells_of_the_spool(depot):
    depot.spool(2, at=NOW)
    depot.clock.advance(5)

    code, out, _ = depot.call("status")
    look = depot.read_json("status")

    assert code == 0
    assert out.startswith("All is well: 2 messages wait, up to 5 s.\n")
    assert "\nspool    2 messages, " in out
    assert (look["waiting"], look["spooled"]) == (0, 2)


@on_redis
def test_a_spool_that_nobody_hands_over_needs_somebody(depot):
    depot.spool(1, at=NOW)
    depot.clock.advance(OLD_SECONDS + 1)

    code, out, _ = depot.call("status")

    assert code == 1
    assert out.startswith("Needs you: 1 message waits, the longest for 15 min.")
