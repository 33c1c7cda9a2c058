"""Erase by `Analytics.erase`: what `mp-asgi erase` does, and what only the process itself can."""

import pytest

from mp_asgi import Analytics
from mp_asgi.dev import StandIn, run_in_thread
from mp_asgi.erasure.people import UnreadablePeople
from mp_asgi.events import ActState
from tests.doors import World, grant, identify, track
from tests.erasure.conftest import OAUTH
from tests.support import TIMEOUT, make_settings


@pytest.fixture
def world(tmp_path):
    standin = StandIn("t0ken", oauth_token=OAUTH)
    with (
        run_in_thread(standin) as server,
        World(
            "asgi",
            standin=standin,
            url=server.url,
            ledger=f"sqlite:///{tmp_path / 'ledger.db'}",
            ledger_keys=["l" * 32],
            oauth_token=OAUTH,
        ) as world,
    ):
        yield world


def stand(world, user_id):
    key = world.analytics.core.keys.user_key(user_id)
    return world.analytics.ledger.standings([key])[key]


def test_a_user_is_erased_everywhere_and_never_sent_again(world):
    browser = world.browser()
    browser.visit(grant(), identify("U1"), track("Waits"))

    receipt = world.analytics.erase(user_ids=["U1"], seconds=0)
    browser.visit(track("Afterwards"))

    assert receipt.problems == ()
    assert stand(world, "U1").state is ActState.ERASED
    assert world.analytics.flush(TIMEOUT)
    assert world.rows() == []


def test_mixpanel_is_told_of_the_user_and_of_the_device(world):
    browser = world.browser()
    browser.visit(grant(), identify("U1"), track("Sent"))
    device_id = browser.device_id
    assert world.analytics.flush(TIMEOUT)

    world.analytics.erase(user_ids=["U1"], seconds=0)

    told = [tuple(job.distinct_ids) for job in world.standin.privacy.jobs]
    assert told == [("U1",), (f"$device:{device_id}",)]


def test_somebody_else_goes_on(world):
    world.browser().visit(grant(), identify("U1"), track("Gone"))
    world.browser().visit(grant(), identify("U2"), track("Stays"))

    world.analytics.erase(user_ids=["U1"], seconds=0)

    assert world.analytics.flush(TIMEOUT)
    assert [row.name for row in world.rows()] == ["Stays"]


def test_a_visitor_without_an_account_is_erased_by_their_cookie(world):
    browser = world.browser()
    browser.visit(grant(), track("Waits"))
    value = next(cookie.value for name, cookie in browser.jar.items() if name.endswith("mp_id"))

    receipt = world.analytics.erase(cookies=[value], seconds=0)

    assert len(receipt.named) == 1
    assert world.analytics.flush(TIMEOUT)
    assert world.rows() == []


def test_a_later_grant_of_that_person_begins_anew(world):
    browser = world.browser()
    browser.visit(grant(), identify("U1"), track("Before"))
    world.analytics.erase(user_ids=["U1"], seconds=0)
    world.clock.advance(60)
    world.clock.began = world.clock.now  # for the threads that deliver, too

    browser.visit(grant(), identify("U1"), track("After"))

    assert world.analytics.flush(TIMEOUT)
    assert [row.name for row in world.rows()] == ["After"]


def test_nothing_is_done_for_an_id_that_mixpanel_refuses(world):
    with pytest.raises(UnreadablePeople):
        world.analytics.erase(user_ids=["U1", "undefined"], seconds=0)

    assert world.standin.privacy.jobs == []


def test_without_an_oauth_token_the_receipt_says_who_was_not_asked():
    analytics = Analytics(make_settings())

    receipt = analytics.erase(user_ids=["U1"], seconds=0)

    assert "MIXPANEL_OAUTH_TOKEN" in receipt.problems[0]
