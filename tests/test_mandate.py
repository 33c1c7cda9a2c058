"""A job may track on the app's word, on the ledger's, on a token; a denial ends all of them."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from mp_asgi import StoredConsent
from mp_asgi.dev import StandIn
from mp_asgi.events import ActState, Standing
from mp_asgi.stops import MAX_REMEMBERED
from tests.desk import DAY, Desk, open_for, record, take_token
from tests.doors import GPC, Row, World, advance, call, deny, grant, login
from tests.support import NOW, make_act

LEDGER_KEY = "l" * 32


@pytest.fixture
def ledger(tmp_path) -> dict[str, Any]:
    return {"ledger": f"sqlite:///{tmp_path / 'ledger.db'}", "ledger_keys": (LEDGER_KEY,)}


@pytest.fixture
def open_world(ledger) -> Iterator[Callable[..., World]]:
    """Open processes over one ledger and one clock, in front of one Mixpanel."""
    standin, worlds = StandIn("t0ken"), []

    def open_one(**settings: Any) -> World:
        clock = worlds[0].clock if worlds else None
        options = {**ledger, "seed": str(len(worlds)), **settings}
        worlds.append(World("asgi", standin=standin, clock=clock, **options))
        return worlds[-1]

    yield open_one
    for world in worlds:
        world.__exit__()


@pytest.fixture(params=["asgi", "wsgi-validated"])
def world(request) -> Iterator[World]:
    with World(request.param) as world:
        yield world


# --- the app's word -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("consent", "refused"),
    [
        pytest.param(True, {}, id="yes"),
        pytest.param(StoredConsent(True), {}, id="stored-yes"),
        pytest.param(StoredConsent(True, NOW - DAY), {}, id="yesterday"),
        pytest.param(StoredConsent(True, datetime.fromtimestamp(NOW, UTC)), {}, id="datetime"),
        pytest.param(False, {"app-denied": 1}, id="no"),
        pytest.param(StoredConsent(False, NOW), {"app-denied": 1}, id="stored-no"),
        pytest.param(StoredConsent(True, NOW - 181 * DAY), {"grant-expired": 1}, id="too-old"),
        pytest.param(None, {"no_consent": 1}, id="not-known"),
        pytest.param("granted", {"invalid_consent": 1}, id="text"),
        pytest.param(1, {"invalid_consent": 1}, id="number"),
        pytest.param(StoredConsent(True, "today"), {"invalid_consent": 1}, id="unreadable-time"),
    ],
)
def test_a_job_tracks_where_the_app_knows_of_a_grant_that_counts(consent, refused):
    desk = Desk()

    insert_id = desk.visitor(user_id="U1", consent=consent).track("Paid")

    assert bool(insert_id) == bool(desk.sink.accepted) == (not refused)
    assert desk.refused() == refused


def test_a_grant_for_an_older_notice_does_not_count():
    desk = Desk(consent_version=f"2@{datetime.fromtimestamp(NOW - DAY, UTC).isoformat()}")

    desk.visitor(user_id="U1", consent=StoredConsent(True, NOW - 2 * DAY)).track("Paid")

    assert desk.refused() == {"notice-changed": 1}


def test_an_opt_out_site_needs_a_grant_for_jobs_too():
    desk = Desk(consent="opt-out")

    desk.visitor(user_id="U1", consent=None).track("Paid")

    assert desk.refused() == {"no_consent": 1}


# --- withdrawals that this process saw ------------------------------------------------------------


@pytest.mark.parametrize(
    ("consent", "is_sent"),
    [
        pytest.param(True, False, id="a-bare-yes-proves-nothing"),
        pytest.param(StoredConsent(True, NOW - 5), False, id="a-yes-of-before"),
        pytest.param(StoredConsent(True, NOW + 5), True, id="a-later-yes"),
    ],
)
def test_a_withdrawal_of_this_process_is_beaten_only_by_a_later_grant(world, consent, is_sent):
    browser = world.browser()
    browser.visit(grant())
    browser.visit(login("U1"), deny())
    world.clock.advance(10)

    assert bool(open_for(world, consent).track("Paid")) == is_sent
    assert world.rows() == ([Row("Paid", None, "U1")] if is_sent else [])
    assert world.stats().refused == ({} if is_sent else {"withdrawn": 1})


def test_what_is_withdrawn_after_the_job_began_it_does_not_survive(world):
    browser = world.browser()
    browser.visit(grant(), login("U1"))
    world.clock.advance(10)
    job = open_for(world, StoredConsent(True, NOW + 10))
    job.track("Before")
    world.clock.advance(10)

    browser.visit(deny())
    job.track("After")
    world.clock.advance(10)
    browser.visit(grant(), login("U1"))
    job.track("After the new grant")

    assert world.rows() == []
    assert world.stats().refused == {"withdrawn": 2}


def test_a_signal_of_before_is_beaten_by_what_the_app_knows(world):
    browser = world.browser()
    browser.visit(grant(), login("U1"))
    browser.visit(headers=GPC)
    browser.visit(call(lambda tracker: tracker.device_id), headers=GPC)
    world.clock.advance(10)

    assert open_for(world).track("Paid")


def test_a_denied_device_is_over_whatever_the_app_knows(world):
    browser = world.browser()
    browser.visit(grant())
    device = browser.device_id
    browser.visit(deny())
    world.clock.advance(10)

    job = open_for(world, StoredConsent(True, NOW + 10), device_id=device)

    assert job.track("Paid") is None
    assert world.stats().refused == {"withdrawn": 1}


def test_a_stop_that_is_forgotten_may_have_been_this_persons():
    desk = Desk()
    job = desk.visitor(user_id="U1", consent=True)
    desk.core.stops.add([b"%d" % i for i in range(MAX_REMEMBERED + 1)], NOW + 1, is_act=True)

    job.track("Paid")
    desk.clock.advance(2)
    desk.visitor(user_id="U1", consent=True).track("Paid later")

    assert desk.refused() == {"withdrawn": 1}
    assert len(desk.sink.accepted) == 1


# --- the ledger -----------------------------------------------------------------------------------


def stand(desk: Desk, state: ActState, *, at: float = NOW - DAY, **more: Any) -> dict[bytes, Any]:
    """Answer the ledger's answer about U1 or, with `device=True`, about A."""
    keys = desk.core.keys
    key = keys.device_key("A") if more.pop("device", False) else keys.user_key("U1")
    return {key: make_act(state, at, key=key, **more).standing()}


BOTH = {"user_id": "U1", "device_id": "A"}


@pytest.mark.parametrize(
    ("ids", "scope", "standing", "refused"),
    [
        pytest.param(BOTH, "account", {"state": ActState.GRANTED}, {}, id="account"),
        pytest.param(
            BOTH, "device", {"state": ActState.GRANTED}, {"no_consent": 1}, id="device-scope"
        ),
        pytest.param(
            BOTH, "account", {"state": ActState.LIFTED}, {"no_consent": 1}, id="only-lifted"
        ),
        pytest.param(BOTH, "device", {"state": ActState.GRANTED, "device": True}, {}, id="device"),
        pytest.param(
            {"device_id": "A"},
            "device",
            {"state": ActState.GRANTED, "device": True},
            {},
            id="device-alone",
        ),
        pytest.param(
            {"user_id": "U1"},
            "device",
            {"state": ActState.GRANTED, "device": True},
            {"no_consent": 1},
            id="somebody-elses-device",
        ),
        pytest.param(
            BOTH, "account", {"state": ActState.DENIED}, {"account-denied": 1}, id="denied"
        ),
        pytest.param(
            BOTH,
            "account",
            {"state": ActState.ERASED, "device": True},
            {"account-denied": 1},
            id="erased-device",
        ),
        pytest.param(
            BOTH,
            "account",
            {"state": ActState.GRANTED, "at": NOW - 181 * DAY},
            {"no_consent": 1},
            id="too-old",
        ),
        pytest.param(
            BOTH,
            "account",
            {"state": ActState.GRANTED, "version": "1"},
            {"no_consent": 1},
            id="another-notice",
        ),
    ],
)
@pytest.mark.parametrize("is_remembered", [False, True], ids=["asked", "remembered"])
def test_without_the_apps_word_the_ledger_is_asked(ids, scope, standing, refused, is_remembered):
    desk = Desk(has_ledger=True, consent_scope=scope)
    answers = stand(desk, **standing)
    if is_remembered:
        desk.core.accounts.learn(answers)

    def look_up(keys):
        return {key: answers[key] for key in keys if key in answers}

    desk.visitor(**ids, consent=None, look_up=look_up).track("Paid")

    assert desk.refused() == refused


def test_who_may_not_wait_asks_for_later():
    desk = Desk(has_ledger=True)

    desk.visitor(user_id="U1", consent=None).track("Paid")

    assert desk.refused() == {"no_consent": 1}
    assert desk.sink.asked == [desk.core.keys.user_key("U1")]


def test_a_remembered_denial_beats_the_apps_word():
    desk = Desk(has_ledger=True)
    desk.core.accounts.learn(stand(desk, ActState.DENIED))

    desk.visitor(user_id="U1", consent=True).track("Paid")

    assert desk.refused() == {"account-denied": 1}


def test_a_denial_that_is_learned_later_ends_the_job():
    desk = Desk(has_ledger=True)
    job = desk.visitor(user_id="U1", consent=True)
    desk.core.accounts.learn(stand(desk, ActState.DENIED, at=NOW + 1))

    job.track("Paid")

    assert desk.refused() == {"withdrawn": 1}


def test_a_new_grant_in_the_ledger_does_not_revive_what_was_promised_before():
    desk = Desk(has_ledger=True)
    job = desk.visitor(user_id="U1", consent=True)
    key = desk.core.keys.user_key("U1")
    desk.core.accounts.learn({key: Standing(ActState.GRANTED, NOW + 2, NOW + 1, NOW + 2)})

    job.track("Paid")
    desk.clock.advance(5)
    desk.visitor(user_id="U1", consent=True).track("Paid again")

    assert desk.refused() == {"withdrawn": 1}
    assert len(desk.sink.accepted) == 1


def test_a_new_grant_in_the_ledger_beats_a_withdrawal_of_this_process():
    desk = Desk(has_ledger=True)
    key = desk.core.keys.user_key("U1")
    desk.core.stops.add([key], NOW - 10, is_act=True)
    desk.core.accounts.learn({key: Standing(ActState.LIFTED, NOW - 5, NOW - 10, NOW - 5)})

    assert desk.visitor(user_id="U1", consent=True).track("Paid")


def test_a_job_of_another_process_asks_the_ledger_and_waits_for_it(open_world):
    web, worker = open_world(consent_scope="account"), open_world(consent_scope="account")
    web.browser().visit(grant(), login("U1"))
    record(web)

    open_for(worker, None).track("Paid")
    open_for(worker, None, user_id="U2").track("Paid")

    assert worker.rows() == [Row("Paid", None, "U1")]
    assert worker.stats().refused == {"no_consent": 1}


def test_a_denial_in_the_ledger_beats_the_apps_word_before_it_is_sent(open_world):
    web, worker = open_world(), open_world()
    browser = web.browser()
    browser.visit(grant(), login("U1"))
    browser.visit(deny())
    record(web)

    open_for(worker).track("Paid")

    assert worker.rows() == []
    assert worker.stats().dropped == {"withdrawn": 1}


def test_a_ledger_that_does_not_answer_is_no_grant(open_world, tmp_path):
    world = open_world()
    (tmp_path / "ledger.db").write_bytes(b"no database")

    assert open_for(world, None).track("Paid") is None

    assert world.stats().refused == {"no_consent": 1}
    assert world.stats().other["ledger_failed"] >= 1


# --- journey 24 -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "then",
    [
        pytest.param((), id="withdrawn"),
        pytest.param((advance(1), grant(), login("U1")), id="withdrawn-and-granted-anew"),
    ],
)
def test_journey_24_a_token_of_before_a_withdrawal_is_refused_in_the_same_process(world, then):
    browser = world.browser()
    browser.visit(grant())
    [token] = browser.visit(login("U1"), take_token()).notes
    world.clock.advance(1)
    browser.visit(deny())
    browser.visit(*then)
    world.clock.advance(1)

    world.analytics.tracker_from_token(token).track("Mailed")

    assert world.rows() == []
    assert world.stats().refused == {"withdrawn": 1}


@pytest.mark.parametrize(
    "then",
    [
        pytest.param((), id="withdrawn"),
        pytest.param((grant(), login("U1")), id="withdrawn-and-granted-anew"),
    ],
)
@pytest.mark.parametrize("scope", ["device", "account"])
def test_journey_24_a_token_of_before_a_withdrawal_is_refused_in_another_process(
    open_world, then, scope
):
    web, worker = open_world(consent_scope=scope), open_world(consent_scope=scope)
    browser = web.browser()
    browser.visit(grant())
    record(web)
    [token] = browser.visit(login("U1"), take_token()).notes
    record(web)
    browser.visit(deny())
    record(web)
    browser.visit(*then)
    record(web)

    worker.analytics.tracker_from_token(token).track("Mailed")

    assert worker.rows() == []
    assert worker.stats().dropped == {"withdrawn": 1}


def test_journey_24_a_withdrawal_on_the_phone_ends_the_token_of_the_laptop_for_good(open_world):
    web, worker = open_world(), open_world()
    laptop, phone = web.browser(), web.browser()
    laptop.visit(grant())
    phone.visit(grant())
    [token] = laptop.visit(login("U1"), take_token()).notes
    record(web)
    phone.visit(login("U1"), deny())
    record(web)
    phone.visit(login("U1"), grant())
    record(web)

    worker.analytics.tracker_from_token(token).track("Mailed")

    assert worker.rows() == []
    assert worker.stats().dropped == {"withdrawn": 1}


def test_journey_24_a_token_of_after_the_new_grant_is_good_in_another_process(open_world):
    web, worker = open_world(), open_world()
    browser = web.browser()
    browser.visit(grant(), login("U1"))
    record(web)
    browser.visit(deny())
    record(web)
    [token] = browser.visit(login("U1"), grant(), take_token()).notes
    record(web)

    worker.analytics.tracker_from_token(token).track("Mailed")

    assert worker.rows() == [Row("Mailed", browser.device_id, "U1")]


def test_what_a_job_handed_over_is_forgotten_by_a_withdrawal(world):
    browser = world.browser()
    browser.visit(grant())
    [token] = browser.visit(login("U1"), take_token()).notes
    world.analytics.tracker_from_token(token).track("Mailed")
    world.clock.advance(1)

    browser.visit(deny())

    assert world.rows() == []


# --- tokens ----------------------------------------------------------------------------------------


def expire(world: World, token: str, seconds: float) -> dict[str, int]:
    """Answer what a job after so many seconds counts as refused."""
    world.clock.advance(seconds)
    world.analytics.tracker_from_token(token).track("Mailed")
    return dict(world.stats().refused)


@pytest.mark.parametrize(
    ("seconds", "refused"),
    [
        pytest.param(60.0, {}, id="at-its-end"),
        pytest.param(60.1, {"token_expired": 1}, id="after-it"),
    ],
)
def test_a_token_counts_as_long_as_it_says(world, seconds, refused):
    [token] = world.browser().visit(grant(), take_token(max_age=60)).notes

    assert expire(world, token, seconds) == refused


def test_a_tracker_from_a_token_ends_with_it(world):
    [token] = world.browser().visit(grant(), take_token(max_age=60)).notes
    job = world.analytics.tracker_from_token(token)
    world.clock.advance(61)

    assert job.track("Mailed") is None


@pytest.mark.parametrize(
    ("seconds", "refused"),
    [
        pytest.param(3_600.0, {}, id="while-its-stop-mark-is-kept"),
        pytest.param(3_600.1, {"token_expired": 1}, id="once-that-may-be-gone"),
    ],
)
def test_no_token_outlives_the_stop_mark_of_a_withdrawal(seconds, refused):
    with World("asgi", outbox_max_age=3_600, retry_budget=600) as world:
        [token] = world.browser().visit(grant(), take_token(max_age="60d")).notes

        assert expire(world, token, seconds) == refused


@pytest.mark.parametrize(
    ("seconds", "is_sent"), [(3_600.0, True), (3_600.1, False)], ids=["in-time", "too-late"]
)
def test_a_tracker_does_not_outlive_the_stop_mark_of_a_withdrawal(seconds, is_sent):
    desk = Desk(outbox_max_age=3_600, retry_budget=600)
    job = desk.visitor(user_id="U1", consent=True)
    desk.clock.advance(seconds)

    assert bool(job.track("Paid")) is is_sent
    assert desk.refused() == ({} if is_sent else {"token_expired": 1})


@pytest.mark.parametrize("version", ["2", f"1@{datetime.fromtimestamp(NOW + 1, UTC).isoformat()}"])
def test_a_token_for_an_older_notice_is_refused(version):
    with (
        World("asgi", consent_version="1") as before,
        World("asgi", consent_version=version) as after,
    ):
        [token] = before.browser().visit(grant(), take_token()).notes
        after.clock.advance(5)

        assert expire(after, token, 0) == {"token_expired": 1}


def test_a_token_is_nothing_where_everything_is_switched_off():
    with World("asgi") as world, World("asgi", enabled=False) as worker:
        [token] = world.browser().visit(grant(), take_token()).notes

        assert worker.analytics.tracker_from_token(token).track("Mailed") is None
    assert worker.stats().refused == {"disabled": 1}
