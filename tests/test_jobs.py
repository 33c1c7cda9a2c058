"""Jobs track for people whom no request brings."""

from collections.abc import Iterator

import pytest

from mp_asgi import tracker_from_token
from mp_asgi.errors import InvalidEvent
from mp_asgi.events import Link
from tests.desk import Desk, open_for, take_token
from tests.doors import Row, World, grant, identify
from tests.support import NOW


@pytest.fixture(params=["asgi", "wsgi-validated"])
def world(request) -> Iterator[World]:
    with World(request.param) as world:
        yield world


# --- whom the app names ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ids", "row"),
    [
        pytest.param({"user_id": "U1"}, Row("Paid", None, "U1"), id="user"),
        pytest.param({"user_id": 17}, Row("Paid", None, "17"), id="number"),
        pytest.param({"device_id": "A"}, Row("Paid", "A", None), id="device"),
        pytest.param({"device_id": "$device:A"}, Row("Paid", "A", None), id="prefixed-device"),
        pytest.param({"user_id": "U1", "device_id": "A"}, Row("Paid", "A", "U1"), id="both"),
    ],
)
def test_a_job_tracks_for_whom_it_names(world, ids, row):
    insert_id = open_for(world, **ids).track("Paid", {"amount": 3})

    assert world.rows() == [row]
    [event] = world.standin.events
    assert event["properties"]["$insert_id"] == insert_id
    assert event["properties"]["amount"] == 3
    assert event["properties"]["ip"] == 0
    assert event["properties"]["$mp_asgi_consent"] == "explicit"


@pytest.mark.parametrize(
    ("device_id", "expected"),
    [
        pytest.param("A", "A", id="as-given"),
        pytest.param("$device:A", "$device:A", id="as-mixpanel-browser-has-it"),
    ],
)
def test_in_original_mode_a_device_keeps_the_form_of_its_distinct_id(device_id, expected):
    with World("asgi", identity="original") as world:
        open_for(world, device_id=device_id).track("Paid")
        world.flush()

    assert [event["properties"]["distinct_id"] for event in world.standin.events] == [expected]


@pytest.mark.parametrize(
    "ids",
    [
        pytest.param({}, id="nobody"),
        pytest.param({"user_id": ""}, id="empty-user"),
        pytest.param({"user_id": "undefined"}, id="forbidden-user"),
        pytest.param({"user_id": "$device:A"}, id="a-device-as-user"),
        pytest.param({"user_id": True}, id="truth-as-user"),
        pytest.param({"device_id": ""}, id="empty-device"),
        pytest.param({"device_id": "$device:"}, id="only-the-prefix"),
        pytest.param({"device_id": ["A"]}, id="list-as-device"),
        pytest.param({"user_id": "U1", "device_id": "null"}, id="forbidden-device"),
    ],
)
def test_ids_are_refused_as_identify_refuses_them(world, ids):
    job = world.analytics.visitor(**ids, consent=True)

    assert job.track("Paid") is None
    assert (job.device_id, job.user_id, job.distinct_id) == (None, None, None)
    assert world.rows() == []
    assert world.stats().refused == {"forbidden_id": 1}


def test_under_strict_a_bad_id_raises():
    with World("asgi", strict=True) as world, pytest.raises(InvalidEvent, match="user ID"):
        world.analytics.visitor(user_id="undefined", consent=True)


@pytest.mark.parametrize(
    ("mode", "ids", "distinct_id"),
    [
        pytest.param("simplified", {"user_id": "U1", "device_id": "A"}, "U1", id="user"),
        pytest.param("simplified", {"device_id": "A"}, "$device:A", id="device"),
        pytest.param("original", {"device_id": "A"}, "A", id="device-in-original"),
    ],
)
def test_it_tells_whom_it_tracks_for(mode, ids, distinct_id):
    with World("asgi", identity=mode) as world:
        job = open_for(world, **ids)

    assert (job.user_id, job.device_id) == (ids.get("user_id"), ids.get("device_id"))
    assert job.distinct_id == distinct_id


# --- what it can do -------------------------------------------------------------------------------


def test_what_is_registered_is_on_every_later_event_and_an_events_own_wins(world):
    job = open_for(world)

    job.track("Before")
    job.register({"queue": "slow"})
    job.register({"batch": 7})
    job.track("After")
    job.track("Own", {"queue": "fast"})

    world.flush()
    queues = [event["properties"].get("queue") for event in world.standin.events]
    assert queues == [None, "slow", "fast"]
    assert world.standin.events[1]["properties"]["batch"] == 7


def test_profiles_and_groups_are_updated(world):
    job = open_for(world)

    job.people.set({"plan": "pro"})
    job.people.increment({"orders": 2})
    job.group("company", 7).set({"size": 3})
    job.set_group("team", ["a", "b"])
    job.track("Paid")

    world.flush()
    assert [
        (update["$distinct_id"], update.get("$set"), update.get("$add"))
        for update in world.standin.people
    ] == [
        ("U1", {"plan": "pro"}, None),
        ("U1", None, {"orders": 2}),
        ("U1", {"team": ["a", "b"]}, None),
    ]
    [group] = world.standin.groups
    assert (group["$group_key"], group["$group_id"], group["$set"]) == ("company", "7", {"size": 3})
    assert world.standin.events[0]["properties"]["team"] == ["a", "b"]


def test_nobody_has_the_profile_of_a_device(world):
    open_for(world, device_id="A").people.set({"plan": "pro"})

    world.flush()
    assert world.stats().refused == {"anonymous_profile": 1}


@pytest.mark.parametrize(
    ("do", "reason"),
    [
        pytest.param(lambda job: job.track(""), "invalid_name", id="no-name"),
        pytest.param(lambda job: job.track("$identify"), "reserved_name", id="identity-event"),
        pytest.param(lambda job: job.track("A", {"a": object()}), "unserialisable", id="object"),
        pytest.param(
            lambda job: job.track("A", dict.fromkeys(map(str, range(300)))),
            "too_many_properties",
            id="too-many",
        ),
        pytest.param(lambda job: job.track("A", 5), "failed_call", id="no-mapping"),
        pytest.param(lambda job: job.register({"a": object()}), "unserialisable", id="register"),
        pytest.param(lambda job: job.set_group("", "a"), "invalid_update", id="no-group-key"),
        pytest.param(lambda job: job.people.set(5), "invalid_update", id="people"),
        pytest.param(lambda job: job.people.set({"a": object()}), "unserialisable", id="value"),
        pytest.param(lambda job: job.group("k", None).set({}), "forbidden_id", id="no-group"),
        pytest.param(
            lambda job: job.group("k", "g").set({"a": object()}), "unserialisable", id="group-value"
        ),
    ],
)
def test_what_cannot_be_sent_is_counted_and_raises_only_under_strict(do, reason):
    with World("asgi") as world:
        do(open_for(world))

    assert world.stats().refused == {reason: 1}
    with World("asgi", strict=True) as world, pytest.raises((InvalidEvent, TypeError)):
        do(open_for(world))


def test_each_call_is_handed_over_at_once():
    desk = Desk()
    job = desk.visitor(user_id="U1", consent=True)

    job.track("One")
    job.people.set({"a": 1})

    assert [len(handover.items) for handover in desk.sink.accepted] == [1, 1]
    assert [handover.context for handover in desk.sink.accepted] == [None, None]


def test_what_is_handed_over_was_promised_when_the_job_began():
    desk = Desk()
    job = desk.visitor(user_id="U1", consent=True)
    desk.clock.advance(60)

    job.track("Paid")

    assert [handover.promised_at for handover in desk.sink.accepted] == [NOW]


def test_a_switched_off_assembly_sends_nothing():
    with World("asgi", enabled=False) as world:
        assert open_for(world).track("Paid") is None
        assert world.rows() == []
    assert world.stats().refused == {"disabled": 1}


def test_the_ledger_learns_once_which_device_a_user_was_on():
    desk = Desk(has_ledger=True)
    keys = desk.core.keys

    for _ in range(2):
        desk.visitor(user_id="U1", device_id="A", consent=True).track("Paid")
    desk.visitor(user_id="U1", consent=True).track("Paid")
    desk.visitor(device_id="A", consent=True).track("Paid")

    user_key, device_key = keys.user_key("U1"), keys.device_key("A")
    assert desk.sink.records == [Link("U1", "A", user_key, device_key, NOW, "l")]


# --- a token, an alias ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spoil", "refused"),
    [
        pytest.param(lambda token: token, {}, id="good"),
        pytest.param(lambda token: "x" + token, {"token_invalid": 1}, id="forged"),
        pytest.param(lambda token: "", {"no_consent": 1}, id="of-nobody-who-agreed"),
    ],
)
def test_a_token_names_whom_to_track_for(world, spoil, refused):
    [token] = world.browser().visit(grant(), identify("U1"), take_token()).notes

    job = tracker_from_token(spoil(token), world.analytics)

    assert bool(job.track("Mailed")) == (not refused)
    assert (job.user_id, job.distinct_id) == ((None, None) if refused else ("U1", "U1"))
    assert world.stats().refused == refused


def test_an_alias_joins_a_device_and_a_user_of_a_legacy_project():
    with World("asgi", identity="legacy") as world:
        open_for(world, user_id="U1", device_id="A").open().create_alias()
        open_for(world, user_id="U1", device_id="A").track("Signed Up")
        world.flush()

    assert [event["event"] for event in world.standin.events] == ["$create_alias", "Signed Up"]
    assert world.standin.events[0]["properties"]["alias"] == "U1"


@pytest.mark.parametrize("ids", [{"user_id": "U1"}, {"device_id": "A"}])
def test_an_alias_needs_both(world, ids):
    with pytest.raises(InvalidEvent, match="joins"):
        open_for(world, **ids).open().create_alias()
