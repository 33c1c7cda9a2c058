"""The official client speaks through our delivery, under the consent of whom it names."""

import json
import threading
from collections.abc import Callable, Iterator
from contextvars import copy_context
from datetime import UTC, datetime
from typing import Any

import mixpanel
import pytest
from mixpanel.flags.utils import EXPOSURE_EVENT, dispatch_exposure

from mp_asgi import Analytics, Consumer, StoredConsent
from mp_asgi.errors import InvalidEvent
from mp_asgi.events import ActState
from mp_asgi.wire import MAX_PROPERTIES
from tests.doors import (
    FAIL,
    GPC,
    Row,
    World,
    call,
    deny,
    grant,
    identify,
    login,
    read_session_consent,
    read_session_user,
)
from tests.support import NOW, TIMEOUT, RecordingTransport, make_act, make_settings

pytestmark = pytest.mark.usefixtures("clients_clock")

COOKIELESS = {"policy": lambda head: "cookieless", "cookieless": "daily"}


def client_of(world: World, consent: Any = None, token: str = "t0ken") -> mixpanel.Mixpanel:
    return mixpanel.Mixpanel(token, consumer=Consumer(world.analytics, consent=consent))


def say(do: Callable[[], object]) -> Any:
    """Let the official client do something within a request."""
    return call(lambda tracker: do())


@pytest.fixture(params=["asgi", "wsgi-validated"])
def world(request) -> Iterator[World]:
    with World(request.param) as world:
        yield world


@pytest.fixture
def client(world) -> mixpanel.Mixpanel:
    return client_of(world)


# --- the visitor's own messages -------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(lambda tracker: tracker.distinct_id, id="distinct-id"),
        pytest.param(lambda tracker: tracker.device_id, id="device-id"),
        pytest.param(lambda tracker: f"$device:{tracker.device_id}", id="prefixed-device-id"),
        pytest.param(lambda tracker: "U1", id="user-id"),
        pytest.param(lambda tracker: "", id="empty"),
        pytest.param(lambda tracker: None, id="null"),
    ],
)
def test_in_a_request_the_visitors_message_is_the_visitors_event(world, client, name):
    browser = world.browser()
    browser.visit(grant())

    browser.visit(
        identify("U1"), call(lambda tracker: client.track(name(tracker), "Paid", {"amount": 3}))
    )

    assert world.rows() == [Row("Paid", browser.device_id, "U1")]
    assert world.standin.events[0]["properties"]["amount"] == 3


def test_a_number_names_the_user_of_that_number(world, client):
    browser = world.browser()
    browser.visit(grant())

    browser.visit(identify(42), say(lambda: client.track(42, "Paid")))

    assert world.rows() == [Row("Paid", browser.device_id, "42")]


def test_the_mixpanel_style_without_a_distinct_id_names_by_its_properties(world, client):
    browser = world.browser()
    browser.visit(grant())

    browser.visit(
        identify("U1"),
        say(lambda: client.track("", "Own", {"$user_id": "U1", "$device_id": "made up"})),
        say(lambda: client.track("", "Other", {"$user_id": "U2"})),
    )

    assert world.rows() == [Row("Own", browser.device_id, "U1")]
    assert world.stats().refused == {"no_consent": 1}


def test_the_message_keeps_its_time_and_its_insert_id(world, client):
    browser = world.browser()

    browser.visit(
        grant(),
        say(lambda: client.track("", "Paid", {"time": NOW - 60.5, "$insert_id": "order-7"})),
    )

    world.flush()
    properties = world.standin.events[0]["properties"]
    assert (properties["time"], properties["$insert_id"]) == ((NOW - 60.5) * 1000, "order-7")


def test_in_a_request_the_message_happens_where_the_request_does(world, client):
    browser = world.browser()

    browser.visit(grant(), say(lambda: client.track("", "Paid")))
    client_of(world, True).track("U1", "Paid")

    world.flush()
    pages = [event["properties"].get("$current_url") for event in world.standin.events]
    assert pages == ["https://shop.example/", None]


def test_what_the_client_adds_takes_no_room_from_the_apps_properties(world, client):
    browser = world.browser()
    given = dict.fromkeys(map(str, range(MAX_PROPERTIES)), 1)

    browser.visit(grant(), say(lambda: client.track("", "Paid", given)))

    world.flush()
    assert given.items() <= world.standin.events[0]["properties"].items()


def test_what_only_we_write_is_ours(world, client):
    browser = world.browser()

    browser.visit(
        grant(), say(lambda: client.track("", "Paid", {"ip": "198.51.100.1", "$ignore": True}))
    )

    world.flush()
    properties = world.standin.events[0]["properties"]
    assert (properties["ip"], properties["mp_lib"]) == (0, "mp-asgi")
    assert "$ignore" not in properties


@pytest.mark.parametrize(
    ("settings", "script", "headers", "reason"),
    [
        pytest.param({}, (), (), "no-choice", id="no-choice"),
        pytest.param({}, (deny(),), (), "denied-now", id="denied"),
        pytest.param({}, (grant(),), GPC, "sec-gpc", id="browser-objects"),
        pytest.param({"enabled": False}, (), (), "disabled", id="switched-off"),
    ],
)
@pytest.mark.parametrize("name", ["", "U1"])
def test_without_the_visitors_grant_nothing_leaves(settings, script, headers, reason, name):
    with World("asgi", **settings) as world:
        client = client_of(world)

        world.browser().visit(
            *script, identify("U1"), say(lambda: client.track(name, "Paid")), headers=headers
        )

        assert world.rows() == []
        assert world.stats().refused[reason] >= 1


def test_who_is_only_counted_stays_so():
    with World("asgi", **COOKIELESS) as world:
        client = client_of(world)

        world.browser().visit(say(lambda: client.track("", "Paid")))

        [row] = world.rows()
        assert row.user is None
        assert world.standin.events[0]["properties"]["$mp_asgi_consent"] == "cookieless"


def test_the_visitors_profile_and_groups_are_updated(world, client):
    browser = world.browser()
    browser.visit(grant())

    browser.visit(
        identify("U1"),
        say(lambda: client.people_set("U1", {"plan": "pro"})),
        say(lambda: client.people_set_once("U1", {"first": 1})),
        say(lambda: client.people_append("U1", {"tags": "a"})),
        say(lambda: client.people_increment("U1", {"orders": 1})),
        say(lambda: client.people_union("U1", {"tags": ["a"]})),
        say(lambda: client.people_remove("U1", {"tags": "a"})),
        say(lambda: client.people_unset("U1", ["old"])),
        say(lambda: client.people_track_charge("U1", 5)),
        say(lambda: client.people_clear_charges("U1")),
        say(lambda: client.people_delete("U1")),
        say(lambda: client.group_set("company", 7, {"size": 3})),
        say(lambda: client.group_set_once("company", 7, {"since": 1})),
        say(lambda: client.group_union("company", 7, {"tags": ["a"]})),
        say(lambda: client.group_remove("company", 7, {"tags": "a"})),
        say(lambda: client.group_unset("company", 7, ["old"])),
        say(lambda: client.group_delete("company", 7)),
    )

    world.flush()
    assert [operation_of(update) for update in world.standin.people] == [
        ("$set", {"plan": "pro"}),
        ("$set_once", {"first": 1}),
        ("$append", {"tags": "a"}),
        ("$add", {"orders": 1}),
        ("$union", {"tags": ["a"]}),
        ("$remove", {"tags": "a"}),
        ("$unset", ["old"]),
        ("$append", {"$transactions": {"$amount": 5}}),
        ("$unset", ["$transactions"]),
        ("$delete", ""),
    ]
    assert {update["$distinct_id"] for update in world.standin.people} == {"U1"}
    assert [operation_of(update)[0] for update in world.standin.groups] == [
        *("$set", "$set_once", "$union", "$remove", "$unset", "$delete")
    ]


def operation_of(update: dict[str, Any]) -> tuple[str, Any]:
    known = {"$set", "$set_once", "$add", "$append", "$union", "$remove", "$unset", "$delete"}
    [name] = known.intersection(update)
    return name, update[name]


def test_one_message_may_hold_several_operations(world, client):
    browser = world.browser()
    browser.visit(grant())

    browser.visit(
        identify("U1"),
        say(
            lambda: client.people_update({"$distinct_id": "U1", "$set": {"a": 1}, "$add": {"b": 2}})
        ),
    )

    world.flush()
    assert [operation_of(update)[0] for update in world.standin.people] == ["$set", "$add"]


# --- somebody else's messages ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("consent", "is_sent"),
    [
        pytest.param(None, False, id="not-known"),
        pytest.param(True, True, id="the-app-knows"),
        pytest.param(StoredConsent(True, NOW - 5), True, id="the-app-knows-when"),
        pytest.param(False, False, id="the-app-knows-better"),
    ],
)
def test_somebody_elses_event_asks_for_that_person(world, consent, is_sent):
    client, browser = client_of(world, consent), world.browser()
    browser.visit(grant())

    browser.visit(identify("admin"), say(lambda: client.track("U2", "Approved")))

    assert world.rows() == ([Row("Approved", None, "U2")] if is_sent else [])


def test_the_visitors_device_is_nobody_elses(world):
    client, browser = client_of(world, True), world.browser()
    browser.visit(grant())
    device = browser.device_id

    browser.visit(
        identify("U1"), say(lambda: client.track("U2", "Approved", {"$device_id": device}))
    )
    browser.visit(
        say(lambda: client.track("U2", "Approved", {"$device_id": f"$device:{device}"})),
        say(lambda: client.track("U2", "Shipped", {"$device_id": "B"})),
    )

    assert world.rows() == [
        Row("Approved", None, "U2"),
        Row("Approved", None, "U2"),
        Row("Shipped", "B", "U2"),
    ]


@pytest.mark.parametrize(
    ("script", "headers"),
    [
        pytest.param((deny(),), (), id="denied"),
        pytest.param((), GPC, id="browser-objects"),
    ],
)
def test_in_a_refusing_visitors_request_no_word_of_the_app_counts(world, script, headers):
    client = client_of(world, True)

    world.browser().visit(
        *script,
        say(lambda: client.track("U1", "Paid")),
        say(lambda: client.people_set("U1", {"plan": "pro"})),
        say(lambda: client.group_set("company", 7, {"size": 3})),
        headers=headers,
    )

    assert (world.rows(), world.standin.people, world.standin.groups) == ([], [], [])


@pytest.mark.parametrize("settings", [{}, {"adopt_cookie": "visitor"}], ids=["ours", "adopting"])
@pytest.mark.parametrize("name", ["U1", "v-7", "$device:v-7"])
def test_a_visitor_who_has_not_chosen_is_nobody_for_whom_the_app_may_speak(settings, name):
    with World("asgi", **settings) as world:
        client, browser = client_of(world, True), world.browser()
        browser.write("visitor", "v-7")

        browser.visit(identify("U1"), say(lambda: client.track(name, "Seen")))

        is_somebody_else = name != "U1" and not settings
        assert [row.name for row in world.rows()] == (["Seen"] if is_somebody_else else [])
        assert world.stats().refused == ({} if is_somebody_else else {"no-choice": 1})


def test_an_id_cookie_without_a_grant_names_its_visitor_too(world):
    client, browser = client_of(world, True), world.browser()
    browser.visit(grant(), identify("U1"))
    device = browser.device_id
    del browser.jar["__Host-mp_consent"]

    browser.visit(
        say(lambda: client.track(device, "Seen")),
        say(lambda: client.track(f"$device:{device}", "Seen")),
        say(lambda: client.track("U1", "Paid")),
    )

    assert world.rows() == []
    assert world.stats().refused == {"no-choice": 3}


def test_asking_whom_a_message_names_mints_nobody(world):
    client, browser = client_of(world, True), world.browser()

    answer = browser.visit(
        say(lambda: client.track("U2", "Approved")), headers=(("x-mp-consent", "granted"),)
    )

    assert (world.rows(), answer.cookies) == ([Row("Approved", None, "U2")], [])


def test_a_webhook_is_about_somebody_else(world):
    client = client_of(world, StoredConsent(True, NOW - 5))

    answer = world.browser().visit(say(lambda: client.track("U1", "Paid")), method="POST")

    assert world.rows() == [Row("Paid", None, "U1")]
    assert answer.cookies == []


def test_a_request_does_not_wait_for_the_ledger(tmp_path):
    ledger = {"ledger": f"sqlite:///{tmp_path / 'ledger.db'}", "ledger_keys": ("l" * 32,)}
    with World("asgi", consent_scope="account", **ledger) as world:
        client, key = client_of(world), world.analytics.core.keys.user_key("U2")
        world.analytics.ledger.append([make_act(ActState.GRANTED, NOW - 5, key=key)])

        world.browser().visit(say(lambda: client.track("U2", "Not known here")))
        world.analytics.core.accounts.learn(world.analytics.ledger.standings([key]))
        world.browser().visit(say(lambda: client.track("U2", "Known here")))
        client.track("U2", "Outside")

        assert world.rows() == [Row("Known here", None, "U2"), Row("Outside", None, "U2")]
        assert world.stats().refused == {"no_consent": 1}


# --- where the app says late who it is -------------------------------------------------------------


@pytest.fixture(params=["asgi", "wsgi-validated"])
def late_world(request) -> Iterator[World]:
    with World(request.param, identify_from=read_session_user) as world:
        yield world


def test_what_names_the_user_whom_the_app_names_late_is_the_visitors(late_world):
    client, browser = client_of(late_world), late_world.browser()
    browser.visit(grant())
    device = browser.device_id

    browser.visit(
        login("U1"),
        say(lambda: client.track("U1", "Signed Up", {"time": NOW - 1})),
        say(lambda: client.people_set("U1", {"plan": "pro"})),
    )

    assert late_world.rows() == [Row("Signed Up", device, "U1")]
    assert late_world.standin.events[0]["properties"]["time"] == (NOW - 1) * 1000
    assert [update["$distinct_id"] for update in late_world.standin.people] == ["U1"]
    assert late_world.stats().refused == {}


def test_who_is_not_named_late_is_asked_for(late_world):
    client, browser = client_of(late_world), late_world.browser()
    browser.visit(grant())

    browser.visit(login("U1"), say(lambda: client.track("U2", "Approved")))

    assert late_world.rows() == []
    assert late_world.stats().refused == {"no_consent": 1}


def test_a_late_denial_beats_what_the_app_says_of_somebody():
    with World("asgi", identify_from=read_session_user, consent_from=read_session_consent) as world:
        client, browser = client_of(world, True), world.browser()
        browser.session["consent"] = False

        browser.visit(login("U1"), say(lambda: client.track("U1", "Paid")))

        assert world.rows() == []
        assert world.stats().refused == {"app-denied": 1}


@pytest.mark.parametrize("is_agreed", [True, None], ids=["agreed", "not-said"])
def test_what_waits_alone_is_reason_enough_to_ask_the_app(is_agreed):
    with World("asgi", identify_from=read_session_user, consent_from=read_session_consent) as world:
        client, browser = client_of(world, True), world.browser()
        browser.session["consent"] = is_agreed

        browser.visit(login("U1"), say(lambda: client.track("U1", "Paid")))

        rows = [(row.name, row.user) for row in world.rows()]
        assert rows == ([("Paid", "U1")] if is_agreed else [])
        assert world.stats().refused == ({} if is_agreed else {"no-choice": 1})


def test_what_waits_is_taken_also_if_the_handler_raises(late_world):
    client, browser = client_of(late_world), late_world.browser()
    browser.visit(grant(), login("U1"))

    browser.visit(say(lambda: client.track("U1", "Paid")), FAIL)

    assert late_world.rows() == [Row("Paid", browser.device_id, "U1")]


def test_a_user_whom_the_browser_has_not_learnt_of_leaves_without_its_device(late_world):
    client, browser = client_of(late_world), late_world.browser()
    browser.visit(grant())

    browser.visit(login("U1"), say(lambda: client.track("U1", "Paid")), FAIL)

    assert late_world.rows() == [Row("Paid", None, "U1")]


# --- outside of a request -------------------------------------------------------------------------


def test_outside_of_a_request_nothing_leaves_unless_consent_is_given(world, client):
    client.track("U1", "Paid")
    client.people_set("U1", {"plan": "pro"})
    client.group_set("company", 7, {"size": 3})

    assert world.rows() == []
    assert (world.standin.people, world.standin.groups) == ([], [])
    assert world.stats().refused == {"no_consent": 3}


def test_outside_of_a_request_what_the_app_knows_counts(world):
    client = client_of(world, True)

    client.track("U1", "Paid")
    client.track("U1", "Shipped", {"$device_id": "A"})
    client.track("$device:A", "Seen")
    client.track("", "Found", {"$user_id": "U1", "$device_id": "A"})
    client.people_set("U1", {"plan": "pro"})
    client.group_set("company", 7, {"size": 3})

    assert world.rows() == [
        Row("Paid", None, "U1"),
        Row("Shipped", "A", "U1"),
        Row("Seen", "A", None),
        Row("Found", "A", "U1"),
    ]
    assert [update["$distinct_id"] for update in world.standin.people] == ["U1"]
    assert [update["$group_id"] for update in world.standin.groups] == ["7"]


@pytest.mark.parametrize("name", [None, ""])
def test_outside_of_a_request_a_message_names_somebody(world, name):
    client = client_of(world, True)

    client.track(name, "Paid")
    client.people_set(name, {"plan": "pro"})

    assert world.rows() == []
    assert world.stats().refused == {"no_person": 2}


class Leftover:
    """A task that a request left running, with the request's context."""

    def __init__(self) -> None:
        self._context = copy_context()

    def run(self, do: Callable[[], object]) -> None:
        self._context.run(do)


def leave_behind() -> Any:
    return call(lambda tracker: Leftover())


@pytest.mark.parametrize("consent", [True, None], ids=["the-app-knows", "not-known"])
def test_what_outlives_its_request_speaks_for_its_visitor_alone(world, consent):
    client, browser = client_of(world, consent), world.browser()
    browser.visit(grant())
    device = browser.device_id
    [task] = browser.visit(identify("U1"), leave_behind()).notes

    task.run(lambda: client.track("U1", "Own"))
    task.run(lambda: client.track(device, "Own"))
    task.run(lambda: client.track("U2", "Other"))

    others = [Row("Other", None, "U2")] if consent else []
    assert world.rows() == [Row("Own", device, "U1"), Row("Own", device, "U1"), *others]
    assert world.stats().refused == ({} if consent else {"no_consent": 1})


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        pytest.param((), "no-choice", id="who-has-not-chosen"),
        pytest.param((deny(),), "denied-now", id="who-refused"),
    ],
)
def test_what_outlives_its_request_is_under_its_decision(world, end, reason):
    client = client_of(world, True)
    [task] = world.browser().visit(identify("U1"), *end, leave_behind()).notes

    task.run(lambda: client.track("U1", "Own"))
    task.run(lambda: client.people_set("U1", {"plan": "pro"}))
    task.run(lambda: client.track("U2", "Other"))

    assert world.rows() == [Row("Other", None, "U2")]
    assert world.standin.people == []
    assert world.stats().refused == {reason: 2}


@pytest.mark.parametrize("consent", [True, None], ids=["the-app-knows", "not-known"])
def test_groups_and_nobodys_messages_are_of_no_request_that_is_over(world, consent):
    client = client_of(world, consent)
    [task] = world.browser().visit(grant(), identify("U1"), leave_behind()).notes

    task.run(lambda: client.group_set("company", 7, {"size": 3}))
    task.run(lambda: client.track("", "Nobody's"))

    assert world.rows() == []
    assert [update["$group_id"] for update in world.standin.groups] == (["7"] if consent else [])
    expected = {"no_person": 1} | ({} if consent else {"no_consent": 1})
    assert world.stats().refused == expected


def test_a_request_that_is_over_is_nobodys(world, client):
    world.browser().visit(grant(), identify("U1"))

    client.track("U1", "Paid")

    assert world.stats().refused == {"no_consent": 1}


def test_an_import_is_an_event_of_its_time(world):
    client = client_of(world, True)

    client.import_data(None, "U1", "Paid", NOW - 86_400 * 30)
    client.import_data(None, "U1", "Paid in milliseconds", (NOW - 60) * 1000)
    client.import_data(None, "U1", "To come", NOW + 600)

    world.flush()
    times = [event["properties"]["time"] / 1000 for event in world.standin.events]
    assert times == [NOW - 86_400 * 30, NOW - 60, NOW]


def test_an_import_of_before_all_that_is_known_of_withdrawals_is_dropped(world):
    client_of(world, True).import_data(None, "U1", "Paid", NOW - 86_400 * 30 - 1)

    assert world.rows() == []
    assert world.stats().dropped == {"too_old": 1}


def test_what_happened_before_a_withdrawal_is_not_imported_after_it(world):
    browser = world.browser()
    browser.visit(grant())
    browser.visit(identify("U1"), deny())
    world.clock.advance(10)
    client = client_of(world, StoredConsent(True, NOW + 5))

    client.import_data(None, "U1", "Before", NOW - 60)
    client.import_data(None, "U1", "After", NOW + 6)

    assert world.rows() == [Row("After", None, "U1")]


@pytest.mark.parametrize("mode", ["original", "legacy"])
def test_where_a_device_has_no_prefix_its_denial_counts_for_its_bare_id(mode):
    with World("asgi", identity=mode) as world:
        client, browser = client_of(world, True), world.browser()
        browser.visit(grant())
        device = browser.device_id
        browser.visit(deny())
        world.clock.advance(10)

        client.track(device, "Seen")
        client.track("U1", "Paid")

        world.flush()
        assert [event["properties"]["distinct_id"] for event in world.standin.events] == ["U1"]


# --- aliases ---------------------------------------------------------------------------------------


def aliases(world: World) -> list[tuple[str, str]]:
    world.flush()
    assert [rejected.reason for rejected in world.standin.rejected] == []
    return [
        (event["properties"]["distinct_id"], event["properties"]["alias"])
        for event in world.standin.events
        if event["event"] == "$create_alias"
    ]


@pytest.fixture
def legacy():
    with World("asgi", identity="legacy") as world:
        yield world


def test_the_visitors_alias_is_their_sign_up(legacy):
    consumer, browser = Consumer(legacy.analytics), legacy.browser()
    browser.visit(grant())
    device = browser.device_id

    browser.visit(
        call(lambda tracker: consumer.create_alias("U1", tracker.distinct_id)),
        say(lambda: client_of(legacy).track("U1", "Signed Up")),
    )
    browser.visit(call(lambda tracker: consumer.create_alias("U1", device)))

    assert aliases(legacy) == [(device, "U1")]
    assert legacy.standin.events[-1]["properties"]["distinct_id"] == "U1"


@pytest.mark.parametrize(
    ("consent", "expected"),
    [
        pytest.param(True, [("A", "U1")], id="the-app-knows"),
        pytest.param(None, [], id="not-known"),
    ],
)
def test_elsewhere_an_alias_asks_for_the_person(legacy, consent, expected):
    consumer = Consumer(legacy.analytics, consent=consent)

    consumer.create_alias("U1", "A")
    legacy.browser().visit(call(lambda tracker: consumer.create_alias("U2", "B")))

    assert aliases(legacy) == [*expected, *([("B", "U2")] if expected else [])]
    assert legacy.stats().refused == ({} if expected else {"no_consent": 2})


def test_in_a_request_without_a_grant_the_visitor_has_no_alias(legacy):
    consumer = Consumer(legacy.analytics)

    legacy.browser().visit(call(lambda tracker: consumer.create_alias("U1", "A")))

    assert aliases(legacy) == []


@pytest.mark.parametrize("mode", ["simplified", "original"])
def test_other_modes_know_no_alias(mode):
    with World("asgi", identity=mode) as world:
        Consumer(world.analytics, consent=True).create_alias("U1", "A")

        assert aliases(world) == []
        assert world.stats().refused == {"identity_event": 1}


@pytest.mark.parametrize(
    ("alias_id", "original", "reason"),
    [
        pytest.param("undefined", "A", "forbidden_id", id="forbidden-user"),
        pytest.param("U1", "", "forbidden_id", id="no-original"),
        pytest.param("", "A", "forbidden_id", id="no-user"),
        pytest.param(True, "A", "forbidden_id", id="truth"),
    ],
)
def test_an_alias_needs_two_ids(legacy, alias_id, original, reason):
    Consumer(legacy.analytics, consent=True).create_alias(alias_id, original)

    assert aliases(legacy) == []
    assert legacy.stats().refused[reason] >= 1


def test_a_visitors_alias_is_of_their_own_device(legacy):
    consumer, browser = Consumer(legacy.analytics, consent=True), legacy.browser()
    browser.visit(grant())

    browser.visit(identify("U1"), call(lambda tracker: consumer.create_alias("U1", "B")))

    assert aliases(legacy) == []
    assert legacy.stats().refused == {"identity_event": 1}


def test_an_alias_and_a_sign_up_are_one(legacy):
    consumer, browser = Consumer(legacy.analytics), legacy.browser()
    browser.visit(grant())

    browser.visit(
        call(lambda tracker: tracker.identify("U1", new_user=True)),
        call(lambda tracker: consumer.create_alias("U1", tracker.device_id)),
    )

    assert aliases(legacy) == [(browser.device_id, "U1")]


def test_a_refusing_visitors_request_creates_no_alias(legacy):
    consumer = Consumer(legacy.analytics, consent=True)

    legacy.browser().visit(deny(), call(lambda tracker: consumer.create_alias("U1", "A")))

    assert aliases(legacy) == []


# --- what is refused ------------------------------------------------------------------------------


def test_another_projects_message_is_refused(world):
    client = client_of(world, True, token="0ther")

    client.track("U1", "Paid")
    client.people_set("U1", {"plan": "pro"})
    client.group_set("company", 7, {"size": 3})

    assert world.rows() == []
    assert world.stats().refused == {"other_project": 3}


@pytest.mark.parametrize(
    "do",
    [
        pytest.param(lambda client: client.merge(None, "U1", "U2"), id="merge"),
        pytest.param(lambda client: client.track("U1", "$identify"), id="identify"),
        pytest.param(
            lambda client: client.track("A", "$create_alias", {"alias": "U1"}), id="create-alias"
        ),
        pytest.param(lambda client: client.track("U1", " $Merge"), id="in-disguise"),
    ],
)
@pytest.mark.parametrize("mode", ["simplified", "original", "legacy"])
def test_identity_events_are_refused(do, mode):
    with World("asgi", identity=mode) as world:
        client = client_of(world, True)

        do(client)
        world.browser().visit(grant(), say(lambda: do(client)))

        assert world.rows() == []
        assert world.stats().refused == {"identity_event": 2}


GOOD = {"event": "Paid", "properties": {"token": "t0ken", "distinct_id": "U1"}}
BAD = [
    pytest.param("events", "{", "invalid_message", id="no-json"),
    pytest.param("events", None, "invalid_message", id="nothing"),
    pytest.param("events", "[" * 100_000, "invalid_message", id="too-deep"),
    pytest.param("events", "5", "invalid_message", id="number"),
    pytest.param("events", '{"event": "A"}', "invalid_message", id="no-properties"),
    pytest.param("elsewhere", "{}", "invalid_message", id="no-endpoint"),
    pytest.param("people", '{"$token": "t0ken"}', "invalid_update", id="no-operation"),
    pytest.param("groups", '{"$token": "t0ken", "$set": {}}', "invalid_update", id="no-group"),
    pytest.param("groups", '{"$token": "t0ken", "$add": {}}', "invalid_update", id="no-such"),
]


@pytest.mark.parametrize(("endpoint", "message", "reason"), BAD)
def test_what_cannot_be_read_is_refused_and_raises_only_under_strict(endpoint, message, reason):
    with World("asgi") as world:
        Consumer(world.analytics, consent=True).send(endpoint, message)
        assert world.stats().refused == {reason: 1}
    with World("asgi", strict=True) as world, pytest.raises(InvalidEvent):
        Consumer(world.analytics, consent=True).send(endpoint, message)


@pytest.mark.parametrize(
    ("properties", "reason"),
    [
        pytest.param({"time": "yesterday"}, "invalid_time", id="time-as-text"),
        pytest.param({"time": True}, "invalid_time", id="time-as-truth"),
        pytest.param({"time": float("nan")}, "invalid_time", id="time-is-no-number"),
        pytest.param({"distinct_id": True}, "forbidden_id", id="truth-as-id"),
        pytest.param({"distinct_id": "undefined"}, "forbidden_id", id="forbidden-id"),
        pytest.param({"$insert_id": []}, "forbidden_id", id="insert-id-as-list"),
        pytest.param(dict.fromkeys(map(str, range(300)), 1), "too_many_properties", id="too-many"),
    ],
)
def test_what_mixpanel_would_refuse_is_refused(world, properties, reason):
    client_of(world, True).track("U1", "Paid", properties)

    assert world.rows() == []
    assert world.stats().refused == {reason: 1}


def test_a_bad_message_stops_no_other(world):
    messages = [5, GOOD, {"event": "", "properties": GOOD["properties"]}, GOOD]

    Consumer(world.analytics, consent=True).send("events", json.dumps(messages))

    assert [row.name for row in world.rows()] == ["Paid", "Paid"]
    assert world.stats().refused == {"invalid_message": 1, "invalid_name": 1}


def test_an_insert_id_that_mixpanel_refuses_becomes_one_that_it_takes(world):
    client = client_of(world, True)
    given = {"$insert_id": "order:7", "time": NOW}

    client.track("U1", "Paid", given)
    client.track("U1", "Paid", given)
    client.track("U1", "Paid", {**given, "$insert_id": "order:8"})
    client.track("U1", "Paid", {**given, "$insert_id": None})

    world.flush()
    ids = [event["properties"]["$insert_id"] for event in world.standin.events]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 3
    assert {len(text) for text in ids} == {32}


@pytest.mark.parametrize("consent", ["granted", 1, StoredConsent("yes")])
def test_a_consent_that_cannot_be_read_stops_the_start(world, consent):
    with pytest.raises(InvalidEvent, match="no consent"):
        Consumer(world.analytics, consent=consent)


# --- the official client's contract ---------------------------------------------------------------


def test_the_official_client_never_replaces_it_by_its_own(world):
    consumer = Consumer(world.analytics)

    assert consumer
    assert not hasattr(consumer, "__len__")


def test_sending_does_not_wait_for_mixpanel():
    gate = threading.Event()
    transport = RecordingTransport(gate=gate)
    analytics = Analytics(make_settings(flush_interval=0.01), transport=lambda: transport)
    client = mixpanel.Mixpanel("t0ken", consumer=Consumer(analytics, consent=True))

    client.track("U1", "Paid")
    assert transport.is_sending.wait(TIMEOUT)
    client.track("U1", "Paid again")

    assert analytics.stats().accepted == 2
    gate.set()
    assert analytics.close(TIMEOUT)


def test_threads_lose_and_double_nothing(world):
    client = client_of(world, True)

    def work(number: int) -> None:
        for index in range(100):
            client.track(f"U{number}", "Paid", {"index": index})

    threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)

    assert len(world.rows()) == 800
    assert world.stats().delivered == 800


def test_two_requests_at_once_keep_their_visitors(world, client):
    """Each in a thread of its own, both within their request at the same time."""
    meeting = threading.Barrier(2, timeout=TIMEOUT)

    def live(user: str) -> None:
        world.browser().visit(
            grant(),
            identify(user),
            say(meeting.wait),
            say(lambda: client.track(user, "Paid")),
            say(meeting.wait),
        )

    threads = [threading.Thread(target=live, args=(user,)) for user in ("U1", "U2")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)

    assert sorted(row.user or "" for row in world.rows()) == ["U1", "U2"]
    assert world.stats().refused == {}


def test_a_flags_exposure_goes_through_it_too(world, client):
    browser = world.browser()
    browser.visit(
        grant(),
        identify("U1"),
        say(lambda: dispatch_exposure(client.track, None, "U1", {"Variant name": "b"})),
    )
    dispatch_exposure(client.track, None, "U1", {"Variant name": "b"})

    assert [row.name for row in world.rows()] == [EXPOSURE_EVENT]
    assert world.stats().refused == {"no_consent": 1}


def test_two_consumers_share_the_requests_of_their_analytics():
    analytics = Analytics(make_settings())

    first, second = Consumer(analytics), Consumer(analytics)

    assert first._requests is second._requests is analytics.requests


def test_a_datetime_is_what_the_client_makes_of_it(world):
    client_of(world, True).track("U1", "Paid", {"due": datetime(2027, 1, 2, tzinfo=UTC)})

    world.flush()
    assert world.standin.events[0]["properties"]["due"] == "2027-01-02T00:00:00"
