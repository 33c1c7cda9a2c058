"""The journeys of RULES section 4, through both doors, as Mixpanel sees them over HTTP.

Letters are device IDs, U1 and U2 users. Where a journey names users it runs with both identity
sources: the app calls `identify()`, or it gives an `identify_from`.
"""

import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pytest

from mp_asgi import ANONYMOUS
from mp_asgi.dev import StandIn
from tests.desk import take_token
from tests.doors import (
    CROSS_SITE,
    END,
    GPC,
    NAVIGATION,
    START,
    Browser,
    Row,
    World,
    advance,
    deny,
    grant,
    login,
    logout,
    look,
    read_consent,
    read_session_user,
    reset,
    serve_standin,
    set_person,
    track,
)

DAY = 86_400.0
HOUR = 3_600.0
OLD_KEY = "o" * 32
NEW_KEY = "n" * 32
GRANTED = (("x-mp-consent", "granted"),)
POSTED = (("content-type", "text/plain;charset=UTF-8"), ("sec-fetch-site", "same-origin"))


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[StandIn, str]]:
    with serve_standin() as served:
        yield served


Open = Callable[..., World]


@pytest.fixture(params=["asgi", "wsgi-validated"])
def open_world(request: pytest.FixtureRequest, served: tuple[StandIn, str]) -> Iterator[Open]:
    """Open worlds behind one door and in front of one Mixpanel."""
    standin, url = served
    standin.reset()
    worlds: list[World] = []

    def open_one(**settings: Any) -> World:
        clock = worlds[0].clock if worlds else None
        shared = {"standin": standin, "url": url, "clock": clock, "seed": str(len(worlds))}
        worlds.append(World(request.param, **shared, **settings))
        return worlds[-1]

    yield open_one
    for world in worlds:
        world.__exit__()


@dataclass(frozen=True, slots=True)
class Source:
    """Where the middleware learns the user from."""

    open_world: Open
    settings: dict[str, Any]

    @property
    def is_late(self) -> bool:
        return bool(self.settings)

    def open(self, **settings: Any) -> World:
        return self.open_world(**self.settings, **settings)


@pytest.fixture(params=["identify", "identify_from"])
def source(request: pytest.FixtureRequest, open_world: Open) -> Source:
    is_late = request.param == "identify_from"
    return Source(open_world, {"identify_from": read_session_user} if is_late else {})


@pytest.fixture
def world(source: Source) -> World:
    return source.open()


def consenting(world: World, **options: Any) -> Browser:
    """Answer a browser that granted and was seen as nothing else."""
    browser = world.browser(**options)
    browser.visit(grant())
    return browser


# --- 1 to 8: consent and identity, with both sources --------------------------------------------


def test_journey_1_a_first_visit_under_opt_in_gets_no_cookie_and_sends_nothing(world):
    browser = world.browser()

    answer = browser.visit(track("Seen"), read_consent(), look())

    assert answer.cookies == []
    assert answer.notes == [("unknown", "no-choice", True), (None, None, None)]
    assert world.rows() == []


def test_journey_1_a_logged_in_first_visit_sends_nothing_either(world):
    browser = world.browser()

    answer = browser.visit(login("U1"), track("Seen"), set_person(plan="pro"))

    assert answer.cookies == []
    assert (world.rows(), world.standin.people) == ([], [])


def test_journey_2_a_grant_in_the_middle_of_a_request_counts_from_there(world):
    browser = world.browser()

    answer = browser.visit(track("Before"), grant(), track("After"))

    assert answer.cookie_names == ["__Host-mp_id", "__Host-mp_consent"]
    assert world.rows() == [Row("After", browser.device_id, None)]


def test_journey_3_nothing_from_before_the_grant_is_ever_sent(world):
    browser = world.browser()
    browser.visit(track("First visit"))

    browser.visit(track("Too early"), grant(), track("Second visit"))
    a = browser.device_id
    browser.visit(track("Third visit"))

    assert browser.device_id == a
    assert world.rows() == [Row("Second visit", a, None), Row("Third visit", a, None)]


def test_journey_4_a_sign_up_joins_the_anonymous_device_to_the_user(world):
    browser = consenting(world)
    a = browser.device_id

    browser.visit(track("Seen"))
    browser.visit(login("U1"), track("Signed Up"))

    assert browser.device_id == a
    assert world.rows() == [Row("Seen", a, None), Row("Signed Up", a, "U1")]
    assert world.who_is_who() == {"U1": ["Seen", "Signed Up"]}


def test_journey_5_a_login_before_consent_sends_nothing(source):
    world = source.open()
    browser = world.browser()

    browser.visit(login("U1"), track("Early"))

    assert browser.jar == {}
    assert world.rows() == []


def test_journey_5_consent_after_the_login_meets_the_user(source):
    world = source.open()
    browser = world.browser()
    browser.visit(login("U1"), track("Early"))

    browser.visit(grant(), track("Granted"))
    a = browser.device_id
    browser.visit(login("U1"), track("Named"))

    first_user = "U1" if source.is_late else None
    assert world.rows() == [Row("Granted", a, first_user), Row("Named", a, "U1")]
    assert world.who_is_who() == {"U1": ["Granted", "Named"]}


def test_journey_5_a_grant_in_the_request_of_the_login_meets_the_user(world):
    browser = world.browser()

    browser.visit(login("U1"), grant(), track("Granted"))

    assert world.rows() == [Row("Granted", browser.device_id, "U1")]
    assert world.who_is_who() == {"U1": ["Granted"]}


def test_journey_6_a_second_device_has_its_own_id_and_the_same_user(world):
    first, second = consenting(world), consenting(world)
    first.visit(login("U1"), track("Seen"))

    second.visit(track("Seen"))
    second.visit(login("U1"), track("Seen"))

    a, b = first.device_id, second.device_id
    assert a != b
    assert world.rows() == [Row("Seen", a, "U1"), Row("Seen", b, None), Row("Seen", b, "U1")]
    assert world.who_is_who() == {"U1": ["Seen", "Seen", "Seen"]}


def test_journey_7_a_logout_ends_the_user_and_the_device(source):
    world = source.open()
    browser = consenting(world)
    browser.visit(login("U1"), track("Seen"))
    a = browser.device_id

    browser.visit(track("Logged Out"), logout(), track("Seen Home"))
    b = browser.device_id
    browser.visit(track("Seen"))

    assert a != b
    assert world.rows() == [
        Row("Seen", a, "U1"),
        # Rule 3 of section 1: identify_from is not asked where reset() was called, and the cookie
        # keeps no user then. Mixpanel has merged A with U1, so the event is U1's all the same.
        Row("Logged Out", a, None if source.is_late else "U1"),
        Row("Seen Home", b, None),
        Row("Seen", b, None),
    ]
    assert world.who_is_who() == {
        "U1": ["Seen", "Logged Out"],
        f"$device:{b}": ["Seen Home", "Seen"],
    }


def test_journey_8_a_login_that_ended_in_the_app_is_somebody_new(open_world):
    world = open_world(identify_from=read_session_user)
    browser = consenting(world)
    browser.visit(login("U1"), track("Seen"))
    a = browser.device_id

    browser.session["user"] = ANONYMOUS
    browser.visit(track("Seen"))
    b = browser.device_id
    browser.visit(track("Seen"))

    assert a != b
    assert world.rows() == [Row("Seen", a, "U1"), Row("Seen", b, None), Row("Seen", b, None)]
    assert world.who_is_who() == {"U1": ["Seen"], f"$device:{b}": ["Seen", "Seen"]}


def test_journey_8_without_identify_from_a_login_counts_for_12_hours(open_world):
    world = open_world()
    browser = consenting(world)
    browser.visit(login("U1"))
    a = browser.device_id

    world.clock.advance(12 * HOUR)
    browser.visit(track("Last moment"))
    world.clock.advance(1)
    browser.visit(track("Too late"))

    assert browser.device_id == a
    assert world.rows() == [Row("Last moment", a, "U1"), Row("Too late", a, None)]
    assert world.who_is_who() == {"U1": ["Last moment", "Too late"]}


def test_journey_8_an_app_that_cannot_tell_keeps_what_is_known(open_world):
    world = open_world(identify_from=read_session_user)
    browser = consenting(world)
    browser.visit(login("U1"), track("Seen"))
    a = browser.device_id

    browser.session["user"] = None
    browser.visit(track("Seen"))

    assert browser.device_id == a
    assert world.rows() == [Row("Seen", a, "U1"), Row("Seen", a, None)]
    assert world.who_is_who() == {"U1": ["Seen", "Seen"]}


# --- 9 to 14: shared browsers, withdrawal, time, GPC --------------------------------------------


def test_journey_9_two_users_with_a_logout_between_are_two_devices(world):
    browser = consenting(world)
    browser.visit(login("U1"), track("Seen"))
    a = browser.device_id
    browser.visit(logout())

    browser.visit(track("Seen"))
    b = browser.device_id
    browser.visit(login("U2"), track("Seen"))

    assert browser.device_id == b != a
    assert world.rows() == [Row("Seen", a, "U1"), Row("Seen", b, None), Row("Seen", b, "U2")]
    assert world.who_is_who() == {"U1": ["Seen"], "U2": ["Seen", "Seen"]}


def test_journey_10_a_second_user_without_a_logout_gets_a_new_device(world):
    browser = consenting(world)
    browser.visit(login("U1"), track("Seen"))
    a = browser.device_id

    browser.visit(login("U2"), track("Seen"))
    b = browser.device_id
    browser.visit(track("Seen"))

    assert a != b
    assert world.rows() == [Row("Seen", a, "U1"), Row("Seen", b, "U2"), Row("Seen", b, "U2")]
    assert world.who_is_who() == {"U1": ["Seen"], "U2": ["Seen", "Seen"]}


def test_journey_11_a_withdrawal_stops_what_waits_and_a_new_grant_starts_anew(world):
    browser = consenting(world)
    browser.visit(login("U1"), track("Delivered"))
    a = browser.device_id
    world.flush()
    browser.visit(track("Waiting"), set_person(plan="pro"))
    world.clock.advance(1)

    answer = browser.visit(track("Same request"), deny(), track("Behind it"))
    browser.visit(login("U1"), track("Between"))
    world.clock.advance(1)
    browser.visit(grant(), login("U1"), track("Again"))

    assert [cookie.partition(";")[0] for cookie in answer.cookies if "mp_id" in cookie] == [
        "__Host-mp_id="
    ]
    assert browser.device_id not in {a, None}
    assert world.rows() == [Row("Delivered", a, "U1"), Row("Again", browser.device_id, "U1")]
    assert world.standin.people == []
    assert world.stats().dropped == {"stopped": 2}


def test_journey_13_a_grant_counts_180_days_and_then_asks_again(world):
    browser = consenting(world)
    a = browser.device_id

    world.clock.advance(180 * DAY)
    kept = browser.visit(track("Last moment"), read_consent())
    world.clock.advance(1)
    over = browser.visit(track("Too late"), read_consent())

    assert kept.notes == [("granted", "cookie-granted", False)]
    assert over.notes == [("unknown", "grant-expired", True)]
    assert over.cookie_names == ["__Host-mp_id"]
    assert browser.device_id is None
    assert world.rows() == [Row("Last moment", a, None)]


def test_journey_14_gpc_that_comes_later_denies_and_forgets(world):
    browser = consenting(world)
    browser.visit(login("U1"), track("Waiting"))
    world.clock.advance(1)

    answer = browser.visit(track("Under GPC"), read_consent(), headers=GPC)

    assert answer.notes == [("denied", "sec-gpc", False)]
    assert browser.device_id is None
    assert world.rows() == []


def test_journey_14_a_grant_that_overrides_gpc_sticks_on_the_next_request(world):
    browser = consenting(world)
    browser.visit(track("Waiting"))
    world.clock.advance(1)
    browser.visit(track("Denied"), headers=GPC)

    browser.visit(grant(), track("No override"), headers=GPC)
    browser.visit(grant(override_gpc=True), track("Granted"), headers=GPC)
    b = browser.device_id
    answer = browser.visit(track("Next"), read_consent(), headers=GPC)

    assert answer.notes == [("granted", "cookie-granted", False)]
    assert world.rows() == [Row("Granted", b, None), Row("Next", b, None)]


# --- 19 to 23: tabs, planted cookies, keys, changed users, anonymous profiles -------------------


def test_journey_19_a_slow_tab_does_not_undo_a_logout(source):
    world = source.open()
    browser = consenting(world)
    browser.visit(login("U1"), track("Seen"))
    a = browser.device_id
    slow_tab = browser.snapshot()
    browser.visit(logout())
    b = browser.device_id

    browser.session["user"] = "U1" if source.is_late else None  # as the slow request saw it
    browser.visit(track("Slow"), advance(3), jar=slow_tab, headers=NAVIGATION)
    browser.session["user"] = ANONYMOUS
    browser.visit(track("Seen Home"))

    assert browser.device_id == b != a
    assert world.rows() == [
        Row("Seen", a, "U1"),
        Row("Slow", a, "U1"),
        Row("Seen Home", b, None),
    ]


def test_journey_19_a_slow_first_sight_of_the_user_does_not_undo_a_logout(open_world):
    world = open_world(identify_from=read_session_user)
    browser = consenting(world)
    slow_tab = browser.snapshot()
    browser.visit(logout())
    b = browser.device_id

    browser.session["user"] = "U1"
    slow = browser.visit(track("Slow"), advance(3), jar=slow_tab, headers=NAVIGATION)

    assert slow.cookies == []
    assert browser.device_id == b


def test_journey_19_a_slow_tab_does_not_resign_the_id_of_before_a_logout(open_world):
    browser = consenting(open_world(secret_keys=(OLD_KEY,)))
    browser.world = open_world(secret_keys=(OLD_KEY, NEW_KEY))
    slow_tab = browser.snapshot()
    browser.visit(logout())
    b = browser.device_id

    slow = browser.visit(track("Slow"), advance(3), jar=slow_tab, headers=NAVIGATION)

    assert slow.cookies == []
    assert browser.device_id == b


def test_journey_19_a_quick_tab_does_not_resign_an_id_under_a_stop_mark(open_world):
    browser = consenting(open_world(secret_keys=(OLD_KEY,)))
    browser.world = open_world(secret_keys=(OLD_KEY, NEW_KEY))
    quick_tab = browser.snapshot()
    browser.visit(deny())

    quick = browser.visit(track("Quick"), jar=quick_tab, headers=NAVIGATION)

    assert quick.cookies == []
    assert browser.device_id is None
    assert browser.world.rows() == []


def test_journey_20_an_id_planted_by_a_sibling_host_is_ignored_on_https(world):
    attacker, victim = consenting(world), consenting(world)
    planted = attacker.jar["__Host-mp_id"]

    victim.visit(track("Seen"), jar={"mp_id": planted, **victim.jar})

    assert world.rows() == [Row("Seen", victim.device_id, None)]


def test_journey_20_a_planted_id_alone_makes_a_new_visitor(world):
    attacker, victim = consenting(world), consenting(world)
    planted = attacker.jar["__Host-mp_id"]
    own = {"__Host-mp_consent": victim.jar["__Host-mp_consent"]}

    victim.visit(track("Seen"), jar={"mp_id": planted, **own})

    [row] = world.rows()
    assert row == Row("Seen", victim.device_id, None)
    assert row.device != attacker.device_id


def test_journey_20_a_planted_grant_is_ignored_and_a_planted_denial_counts(world):
    attacker, refuser, victim = consenting(world), world.browser(), world.browser()
    refuser.visit(deny())
    consent = attacker.jar["__Host-mp_consent"]
    denial = refuser.jar["__Host-mp_consent"]

    granted = victim.visit(track("Planted"), read_consent(), jar={"mp_consent": consent})
    both = {"__Host-mp_consent": consent, "mp_consent": denial}
    denied = victim.visit(track("Planted"), read_consent(), jar=both)

    assert granted.notes == [("unknown", "no-choice", True)]
    assert denied.notes == [("denied", "cookie-denied", False)]
    assert world.rows() == []


def test_journey_20_two_ids_that_verify_but_differ_mean_no_id(world):
    attacker, victim = consenting(world), consenting(world)
    devices = {attacker.device_id, victim.device_id}
    mine, planted = victim.jar["__Host-mp_id"].value, attacker.jar["__Host-mp_id"].value
    consent = victim.jar["__Host-mp_consent"].value
    header = f"__Host-mp_id={planted}; __Host-mp_id={mine}; __Host-mp_consent={consent}"

    victim.visit(track("Seen"), headers=[("cookie", header)], jar={})

    [row] = world.rows()
    assert row.device == victim.device_id
    assert row.device not in devices


def test_journey_21_an_old_key_that_is_listed_still_counts_and_is_replaced(open_world):
    browser = consenting(open_world(secret_keys=(OLD_KEY,)))
    a, before = browser.device_id, browser.snapshot()
    browser.world = open_world(secret_keys=(OLD_KEY, NEW_KEY))

    other = browser.visit(track("Seen"))
    navigation = browser.visit(track("Seen"), headers=NAVIGATION)
    again = browser.visit(track("Seen"), headers=NAVIGATION)

    assert (other.cookies, again.cookies) == ([], [])
    assert sorted(navigation.cookie_names) == ["__Host-mp_consent", "__Host-mp_id"]
    assert browser.jar["__Host-mp_id"].value != before["__Host-mp_id"].value
    assert browser.world.rows() == [Row("Seen", a, None)] * 3


def test_journey_21_what_was_resigned_outlives_the_old_key(open_world):
    browser = consenting(open_world(secret_keys=(OLD_KEY,)))
    a = browser.device_id
    browser.world = open_world(secret_keys=(OLD_KEY, NEW_KEY))
    browser.visit(track("Seen"), headers=NAVIGATION)
    browser.world.flush()
    browser.world = open_world(secret_keys=(NEW_KEY,))

    browser.visit(track("Seen"))

    assert browser.world.rows() == [Row("Seen", a, None)] * 2


def test_journey_21_a_dropped_key_makes_a_new_visitor_who_is_asked_again(open_world):
    browser = consenting(open_world(secret_keys=(OLD_KEY,)))
    a = browser.device_id
    browser.world = open_world(secret_keys=(NEW_KEY,))

    answer = browser.visit(track("Unknown"), read_consent())
    browser.visit(grant(), track("Granted"))

    assert answer.notes == [("unknown", "unreadable", True)]
    assert browser.device_id != a
    assert browser.world.rows() == [Row("Granted", browser.device_id, None)]


def test_journey_21_under_opt_out_a_dropped_key_keeps_a_denial(open_world):
    world = open_world(secret_keys=(OLD_KEY,), consent="opt-out")
    browser = world.browser()
    browser.visit(deny())
    browser.world = open_world(secret_keys=(NEW_KEY,), consent="opt-out")

    first = browser.visit(track("Seen"), read_consent())
    second = browser.visit(track("Seen"), read_consent())

    assert first.notes == [("denied", "unreadable", False)]
    assert second.notes == [("denied", "cookie-denied", False)]
    assert browser.world.rows() == []


def test_journey_22_a_user_id_that_changes_in_the_app_is_two_users(world):
    browser = consenting(world)
    browser.visit(login("U1"), track("Seen"))
    a = browser.device_id

    browser.visit(login("U2"), track("Seen"))

    assert browser.device_id != a
    assert world.rows() == [Row("Seen", a, "U1"), Row("Seen", browser.device_id, "U2")]
    assert world.who_is_who() == {"U1": ["Seen"], "U2": ["Seen"]}


def test_journey_23_an_anonymous_profile_update_is_counted_and_not_sent(world):
    browser = consenting(world)

    browser.visit(set_person(plan="pro"))
    browser.visit(login("U1"))

    world.flush()
    assert world.standin.people == []
    assert world.stats().refused == {"anonymous_profile": 1}


def test_journey_23_a_held_profile_update_goes_to_who_logs_in_in_the_request(world):
    browser = consenting(world)

    browser.visit(set_person(plan="pro"), login("U1"), track("Logged In"))

    assert world.who_is_who() == {"U1": ["Logged In"]}
    [update] = world.standin.people
    assert (update["$distinct_id"], update["$set"]) == ("U1", {"plan": "pro"})


# --- 24 to 30 -----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["simplified", "original", "legacy"])
@pytest.mark.parametrize("script", [(), (login("U1", new_user=True),)], ids=["nobody", "user"])
def test_journey_24_a_job_with_a_token_speaks_of_who_made_the_request(open_world, mode, script):
    world = open_world(identity=mode)
    browser = consenting(world)
    [token] = browser.visit(*script, track("Ordered"), take_token()).notes
    world.flush()

    worker = open_world(identity=mode)
    worker.analytics.tracker_from_token(token).track("Shipped")

    assert list(worker.who_is_who().values()) == [["Ordered", "Shipped"]]
    assert world.standin.failures() == []


def test_journey_25_legacy_a_sign_up_is_an_alias_and_then_the_users_events(open_world):
    world = open_world(identity="legacy")
    browser = consenting(world)
    a = browser.device_id
    browser.visit(track("Seen"))

    browser.visit(login("U1", new_user=True), track("Signed Up"))
    browser.visit(login("U1"), track("Bought"))

    rows = world.rows()
    alias = Row("$create_alias", a, "U1")
    assert sorted(rows) == sorted(
        [alias, Row("Seen", a, None), Row("Signed Up", a, "U1"), Row("Bought", a, "U1")]
    )
    assert rows.index(alias) < rows.index(Row("Signed Up", a, "U1"))
    assert world.who_is_who() == {a: ["Seen", "Signed Up", "Bought"]}


def test_journey_25_legacy_a_login_alone_is_no_alias(open_world):
    world = open_world(identity="legacy")
    browser = consenting(world)
    a = browser.device_id
    browser.visit(track("Seen"))

    browser.visit(login("U1"), track("Logged In"))

    assert world.rows() == [Row("Seen", a, None), Row("Logged In", a, "U1")]
    assert world.who_is_who() == {a: ["Seen"], "U1": ["Logged In"]}


def test_journey_26_original_the_same_user_again_is_one_device_and_one_identify(source):
    world = source.open(identity="original")
    browser = consenting(world)
    a = browser.device_id
    browser.visit(track("Seen"))

    browser.visit(login("U1"), track("Logged In"))
    browser.visit(logout())
    browser.visit(login("U1"), track("Logged In"))

    assert browser.device_id == a
    assert world.rows() == [
        Row("Seen", a, None),
        Row("$identify", a, "U1"),
        Row("Logged In", a, "U1"),
        Row("Logged In", a, "U1"),
    ]
    assert world.who_is_who() == {"U1": ["Seen", "Logged In", "Logged In"]}


def test_journey_27_original_a_second_user_has_an_own_device_and_an_own_identify(source):
    world = source.open(identity="original")
    browser = consenting(world)
    browser.visit(login("U1"), track("Logged In"))
    a = browser.device_id

    browser.visit(login("U2"), track("Logged In"))
    b = browser.device_id

    assert a != b
    assert world.rows() == [
        Row("$identify", a, "U1"),
        Row("Logged In", a, "U1"),
        Row("$identify", b, "U2"),
        Row("Logged In", b, "U2"),
    ]
    assert world.who_is_who() == {"U1": ["Logged In"], "U2": ["Logged In"]}


def test_journey_28_an_event_from_the_background_alone_is_sent_and_counted(world):
    browser = world.browser()

    answer = browser.visit(START, END, track("Later"), headers=GRANTED)

    assert (answer.cookies, browser.device_id) == ([], None)
    [row] = world.rows()
    assert (row.name, row.user) == ("Later", None)
    assert world.stats().unpersisted == 1
    browser.visit(track("Next"), headers=GRANTED)
    assert list(world.who_is_who().values()) == [["Later"], ["Next"]]


def test_journey_28_a_handler_that_read_the_id_keeps_it_for_the_background(world):
    browser = world.browser()

    browser.visit(look(), START, END, track("Later"), headers=GRANTED)
    a = browser.device_id
    browser.visit(track("Next"), headers=GRANTED)

    assert world.rows() == [Row("Later", a, None), Row("Next", a, None)]
    assert world.who_is_who() == {f"$device:{a}": ["Later", "Next"]}
    assert world.stats().unpersisted == 0


def test_journey_29_a_page_that_keeps_no_id_has_ours(source):
    world = source.open(mount="/_mp", first_party=True)
    browser = consenting(world)
    a = browser.device_id
    browser.visit(track("Served"))

    post(browser, "Opened", "5f1d7a52-7c1e-4d7e-9a43-3f0b8c6e2d11")
    post(browser, "Opened Again", "0b6f4a3e-52c8-4f0d-8d5b-6a1c9e7f2d34")
    browser.visit(login("U1"), track("Logged In"))
    post(browser, "Bought", "77df2d80-2b40-4db8-aedc-ddaaa993adc5")

    assert world.rows() == [
        Row("Served", a, None),
        Row("Opened", a, None),
        Row("Opened Again", a, None),
        Row("Logged In", a, "U1"),
        Row("Bought", a, "U1"),
    ]
    assert world.who_is_who() == {"U1": ["Served", "Opened", "Opened Again", "Logged In", "Bought"]}


def post(browser: Browser, name: str, device_id: str) -> None:
    """Send what mixpanel-browser does with `disable_persistence`: an ID for each page."""
    ids = {"distinct_id": f"$device:{device_id}", "$device_id": device_id}
    properties = {"token": "t0ken", "time": browser.world.clock(), **ids}
    encoded = base64.b64encode(json.dumps([{"event": name, "properties": properties}]).encode())
    body = b"data=" + quote(encoded, safe="").encode()
    answer = browser.visit(method="POST", path="/_mp/track/", headers=POSTED, body=body)
    assert answer.body == b"1"


def test_journey_30_a_cross_site_form_cannot_grant(world):
    browser = world.browser()

    answer = browser.visit(grant(), track("Posted"), method="POST", headers=CROSS_SITE)

    assert answer.cookies == []
    assert world.rows() == []
    assert world.stats().cross_site == 1


def test_journey_30_a_cross_site_form_cannot_deny(world):
    browser = consenting(world)
    before = browser.snapshot()
    browser.visit(track("Waiting"))

    answer = browser.visit(deny(), track("Posted"), method="POST", headers=CROSS_SITE)

    a = browser.device_id
    assert (answer.cookies, browser.jar) == ([], before)
    assert world.rows() == [Row("Waiting", a, None), Row("Posted", a, None)]
    assert world.stats().cross_site == 1


@pytest.mark.parametrize(
    ("headers", "counts"),
    [
        ((("sec-fetch-site", "same-origin"),), True),
        ((("sec-fetch-site", "same-site"),), True),
        ((("origin", "https://shop.example"),), True),
        ((("origin", "https://evil.example"),), False),
        ((("origin", "null"),), False),
        ((("sec-fetch-site", "cross-site"), ("origin", "https://shop.example")), False),
    ],
    ids=lambda value: "-".join(f"{k}={v}" for k, v in value) if isinstance(value, tuple) else None,
)
def test_journey_30_who_asks_decides_whether_a_decision_counts(open_world, headers, counts):
    world = open_world()

    world.browser().visit(grant(), track("Posted"), method="POST", headers=headers)

    assert len(world.rows()) == counts
    assert world.stats().cross_site == (not counts)


def test_journey_30_a_trusted_call_counts_from_anywhere(open_world):
    world = open_world()

    world.browser().visit(grant(trusted=True), track("Posted"), headers=CROSS_SITE)

    assert len(world.rows()) == 1


def test_journey_30_a_cross_site_header_cannot_grant(open_world):
    world = open_world()

    answer = world.browser().visit(track("Foreign grant"), headers=(*CROSS_SITE, *GRANTED))

    assert answer.cookies == []
    assert world.rows() == []


def test_journey_30_a_cross_site_header_can_deny(open_world):
    world = open_world()
    browser = consenting(world)

    browser.visit(track("Denied"), headers=(*CROSS_SITE, ("x-mp-consent", "denied")))

    assert world.rows() == []
    assert browser.device_id is None


def test_a_reset_may_keep_the_device(open_world):
    world = open_world()
    browser = consenting(world)
    browser.visit(login("U1"))
    a = browser.device_id

    browser.visit(reset(new_device=False), track("Seen"))

    assert world.rows() == [Row("Seen", a, None)]
    assert browser.device_id == a


@pytest.mark.parametrize(
    "style", [{"cookie_domain": "shop.example"}, {"cookie_path": "/shop"}], ids=["domain", "path"]
)
def test_a_host_cookie_from_before_it_had_a_domain_or_a_path_is_deleted(open_world, style):
    browser = consenting(open_world())
    browser.world = open_world(**style)

    browser.visit(deny())

    assert browser.device_id is None
