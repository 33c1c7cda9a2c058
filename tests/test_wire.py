import contextlib
import json
import sys
from asyncio import CancelledError
from datetime import UTC

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mp_asgi import __version__
from mp_asgi.errors import InvalidEvent
from mp_asgi.events import MAX_MESSAGE_BYTES, Endpoint
from mp_asgi.identity import IdentityMode, Origin, Visitor
from mp_asgi.properties import freeze
from mp_asgi.wire import (
    ENTRY_BYTES,
    ENTRY_MESSAGES,
    MAX_KNOWN_NAMES,
    MAX_PROPERTIES,
    NOTHING_AROUND,
    PAGE_VIEW,
    RESERVED,
    KeyMaker,
    Renderer,
    What,
    check_name,
    freeze_event,
)
from tests.support import NOW

D = "aaaaaaaa-aaaa-4aaa-aaaa-aaaaaaaaaaaa"
ANONYMOUS = Visitor(D, int(NOW))
U1 = ANONYMOUS.with_user("U1", int(NOW))
SIMPLIFIED, ORIGINAL = IdentityMode.SIMPLIFIED, IdentityMode.ORIGINAL
LEGACY = IdentityMode.LEGACY
KEYS = KeyMaker("t0ken")


class Dropped(list):
    """Remembers what could not be sent."""

    def __init__(self):
        super().__init__()
        self.texts = []

    def __call__(self, error, name):
        self.append((error.reason, name))
        self.texts.append(str(error))


def render(*items, mode=SIMPLIFIED, dropped=None, before_send=None, **around):
    sink = Dropped() if dropped is None else dropped
    renderer = Renderer(
        token="t0ken", mode=mode, keys=KEYS, before_send=before_send, on_dropped=sink
    )
    return renderer.render(items, NOTHING_AROUND._replace(**around))


def event(name="Seen", visitor=ANONYMOUS, at=NOW, **properties):
    return (What.EVENT, name, "i" * 32, at, visitor, properties, None, 0)


def browser_event(name="Seen", visitor=ANONYMOUS, at=NOW, **properties):
    return (What.BROWSER_EVENT, *event(name, visitor, at, **properties)[1:])


def alias(visitor=U1, at=NOW):
    return (What.ALIAS, "$create_alias", "i" * 32, at, visitor, "", None, 0)


def first_touch(text, visitor=U1, at=NOW):
    return (What.FIRST_TOUCH, "$set_once", "", at, visitor, text, None, 0)


def identify(visitor=U1, at=NOW):
    return (What.IDENTIFY, "$identify", "i" * 32, at, visitor, None, None, 0)


def people(operation, values, visitor=U1, at=NOW):
    return (What.PEOPLE, operation, "", at, visitor, values, None, 0)


def group(operation, values, key="company", group_id="acme", at=NOW):
    return (What.GROUP, operation, "", at, U1, values, (key, group_id), 0)


def bodies(entries):
    return [json.loads(message.body) for entry in entries for message in entry.messages]


def names(entries):
    return [[message.name for message in entry.messages] for entry in entries]


COMMON = {
    "token": "t0ken",
    "time": 1_800_000_000_250,
    "$insert_id": "i" * 32,
    "ip": 0,
    "mp_lib": "mp-asgi",
    "$lib_version": __version__,
}


# --- exact messages (reference/mixpanel.md sections 2.3, 2.5 and 3) -------------------------------


@pytest.mark.parametrize(
    ("mode", "visitor", "identity"),
    [
        pytest.param(
            SIMPLIFIED,
            ANONYMOUS,
            {"$device_id": D, "distinct_id": f"$device:{D}"},
            id="simplified-anonymous",
        ),
        pytest.param(
            SIMPLIFIED,
            U1,
            {"$device_id": D, "$user_id": "U1", "distinct_id": "U1"},
            id="simplified-known",
        ),
        pytest.param(
            ORIGINAL, ANONYMOUS, {"$device_id": D, "distinct_id": D}, id="original-anonymous"
        ),
        pytest.param(
            ORIGINAL,
            U1,
            {"$device_id": D, "$user_id": "U1", "distinct_id": "U1"},
            id="original-known",
        ),
        pytest.param(LEGACY, ANONYMOUS, {"$device_id": D, "distinct_id": D}, id="legacy-anonymous"),
        pytest.param(
            LEGACY,
            U1,
            {"$device_id": D, "$user_id": "U1", "distinct_id": "U1"},
            id="legacy-known",
        ),
        pytest.param(
            SIMPLIFIED,
            Visitor("", 0).with_user("U1", 0),
            {"$user_id": "U1", "distinct_id": "U1"},
            id="of-a-job-that-knows-no-device",
        ),
        pytest.param(
            ORIGINAL,
            Visitor("X", 0, origin=Origin.BROWSER),
            {"$device_id": "X", "distinct_id": "$device:X"},
            id="original-as-the-page-began",
        ),
        pytest.param(
            ORIGINAL,
            Visitor("X", 0, origin=Origin.LITERAL),
            {"$device_id": "X", "distinct_id": "X"},
            id="original-adopted-as-it-was",
        ),
        pytest.param(
            SIMPLIFIED,
            Visitor("X", 0, origin=Origin.LITERAL),
            {"$device_id": "X", "distinct_id": "$device:X"},
            id="simplified-has-one-form",
        ),
        pytest.param(
            ORIGINAL,
            Visitor("X", 0, origin=Origin.PERSISTED),
            {"$device_id": "X", "distinct_id": "X", "$had_persisted_distinct_id": True},
            id="as-the-page-persisted-it",
        ),
        pytest.param(
            ORIGINAL,
            Visitor("X", 0, origin=Origin.PERSISTED).with_user("U1", 0),
            {
                "$device_id": "X",
                "$user_id": "U1",
                "distinct_id": "U1",
                "$had_persisted_distinct_id": True,
            },
            id="as-the-page-persisted-it-with-its-user",
        ),
    ],
)
def test_an_event_says_who_in_the_projects_id_merge(mode, visitor, identity):
    [entry] = render(event(visitor=visitor, at=NOW + 0.25, plan="free"), mode=mode)

    assert entry.endpoint is Endpoint.EVENTS
    assert bodies([entry]) == [
        {"event": "Seen", "properties": {"plan": "free", **COMMON, **identity}}
    ]


def test_identify_joins_the_device_to_the_user():
    [entry] = render(identify(at=NOW + 0.25), mode=ORIGINAL)

    assert entry.endpoint is Endpoint.EVENTS
    assert entry.is_identity
    assert bodies([entry]) == [
        {
            "event": "$identify",
            "properties": {
                **COMMON,
                "$identified_id": "U1",
                "$anon_id": D,
                "distinct_id": "U1",
            },
        }
    ]


@pytest.mark.parametrize(
    ("origin", "anonymous_id"),
    [(Origin.BROWSER, f"$device:{D}"), (Origin.LITERAL, D), (Origin.PERSISTED, D)],
    ids=["as-the-page-began", "as-it-was", "as-the-page-persisted-it"],
)
def test_identify_names_the_device_as_mixpanel_knows_it(origin, anonymous_id):
    visitor = Visitor(D, 0, origin=origin).with_user("U1", 0)

    [body] = bodies(render(identify(visitor), mode=ORIGINAL))

    assert body["properties"]["$anon_id"] == anonymous_id


def test_an_alias_tells_no_time_and_goes_its_own_way():
    [entry] = render(alias(at=NOW + 0.25), mode=LEGACY)

    assert (entry.endpoint, entry.is_identity, entry.tracked_at) == (
        Endpoint.ALIASES,
        True,
        NOW + 0.25,
    )
    common = {name: value for name, value in COMMON.items() if name != "time"}
    assert bodies([entry]) == [
        {"event": "$create_alias", "properties": {**common, "distinct_id": D, "alias": "U1"}}
    ]


def test_what_follows_an_alias_is_apart_so_that_it_can_wait():
    entries = render(
        event("a", visitor=U1),
        people("$set", {}),
        alias(),
        event("b", visitor=U1),
        people("$set", {}),
        mode=LEGACY,
    )

    assert names(entries) == [["a"], ["$set"], ["$create_alias"], ["b"], ["$set"]]


def test_the_first_touch_goes_on_the_profile_once():
    [entry] = render(first_touch('{"$initial_referrer":"$direct","n":1}'))

    assert (entry.endpoint, entry.is_repeatable) == (Endpoint.PEOPLE, True)
    assert bodies([entry]) == [
        {
            "$token": "t0ken",
            "$distinct_id": "U1",
            "$ip": "0",
            "$time": 1_800_000_000,
            "$set_once": {"$initial_referrer": "$direct", "n": 1},
        }
    ]


@pytest.mark.parametrize(
    ("operation", "values"),
    [
        pytest.param("$set", {"plan": "free"}, id="set"),
        pytest.param("$set_once", {"plan": "free"}, id="set-once"),
        pytest.param("$add", {"visits": 1}, id="add"),
        pytest.param("$append", {"tags": "a"}, id="append"),
        pytest.param("$union", {"tags": ["a"]}, id="union"),
        pytest.param("$remove", {"tags": "a"}, id="remove"),
        pytest.param("$unset", ["plan"], id="unset"),
        pytest.param("$delete", "", id="delete"),
    ],
)
def test_a_profile_update_leaves_the_visitors_place_alone(operation, values):
    [entry] = render(people(operation, values))

    assert entry.endpoint is Endpoint.PEOPLE
    assert bodies([entry]) == [
        {
            "$token": "t0ken",
            "$distinct_id": "U1",
            "$ip": "0",
            "$time": 1_800_000_000,
            operation: values,
        }
    ]


def test_an_anonymous_profile_is_the_devices():
    entries = render(people("$set", {"a": 1}, visitor=ANONYMOUS))

    assert bodies(entries)[0]["$distinct_id"] == f"$device:{D}"


def test_a_group_update_names_key_and_id():
    [entry] = render(group("$set", {"plan": "free"}))

    assert entry.endpoint is Endpoint.GROUPS
    assert bodies([entry]) == [
        {
            "$token": "t0ken",
            "$group_key": "company",
            "$group_id": "acme",
            "$time": 1_800_000_000,
            "$set": {"plan": "free"},
        }
    ]


def test_a_groups_names_are_fitted():
    [body] = bodies(render(group("$set", {"a": 1}, key="k" * 300, group_id="\ud800")))

    assert (body["$group_key"], body["$group_id"]) == ("k" * 255, "?")


def test_the_values_of_updates_are_fitted():
    [body] = bodies(render(people("$set", {"a": float("nan"), "": 1})))

    assert body["$set"] == {"a": None}


def test_events_carry_the_stamp_and_identity_events_and_updates_do_not():
    stamp = {"$mp_asgi_consent": "explicit"}

    entries = render(event(), identify(), people("$set", {}), group("$set", {}), stamp=stamp)

    assert ["$mp_asgi_consent" in json.dumps(body) for body in bodies(entries)] == [
        True,
        False,
        False,
        False,
    ]


def test_a_message_keeps_its_insert_id_and_updates_have_none():
    entries = render(event(), people("$set", {}))

    assert [message.insert_id for entry in entries for message in entry.messages] == ["i" * 32, ""]


# --- what the request says ------------------------------------------------------------------------


def told(entries):
    """Answer what the one event says beside who and when."""
    [body] = bodies(entries)
    kept = {"mp_lib", "$lib_version"}
    return {k: v for k, v in body["properties"].items() if k not in RESERVED or k in kept}


AROUND = {"properties": {"$browser": "Chrome", "$os": "iOS"}, "page_properties": {"path": "/"}}
LIBRARY = {"mp_lib": "mp-asgi", "$lib_version": __version__}


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        pytest.param(event(), {"$browser": "Chrome", "$os": "iOS"}, id="every-event"),
        pytest.param(
            event(PAGE_VIEW), {"$browser": "Chrome", "$os": "iOS", "path": "/"}, id="a-page-view"
        ),
        pytest.param(
            event(PAGE_VIEW, **{"$os": "mine", "path": None}),
            {"$browser": "Chrome", "$os": "mine", "path": None},
            id="what-the-app-says-wins",
        ),
    ],
)
def test_an_event_says_where_it_happened(item, expected):
    assert told(render(item, **AROUND)) == {**expected, **LIBRARY}


@pytest.mark.parametrize("name", ["Seen", PAGE_VIEW])
def test_what_a_page_tracked_brings_its_own_context_and_library(name):
    item = browser_event(name, mp_lib="web", **{"$lib_version": "2.83.0", "$os": "Linux"})

    assert told(render(item, **AROUND)) == {
        "mp_lib": "web",
        "$lib_version": "2.83.0",
        "$os": "Linux",
    }


def test_what_a_page_tracked_without_a_library_is_ours():
    assert told(render(browser_event(), **AROUND)) == LIBRARY


@pytest.mark.parametrize("name", sorted(RESERVED - {"mp_lib", "$lib_version"}))
def test_whose_a_pages_event_is_is_not_for_the_page_to_say(name):
    forged, honest = bodies(render(browser_event(**{name: "evil"}), browser_event()))

    assert forged == honest


def test_a_pages_event_is_its_visitors_with_its_own_time_and_insert_id():
    [body] = bodies(render(browser_event(visitor=U1, at=NOW + 0.25), stamp={"stamped": True}))

    assert body == {
        "event": "Seen",
        "properties": {
            **COMMON,
            "stamped": True,
            "distinct_id": "U1",
            "$device_id": D,
            "$user_id": "U1",
        },
    }


def test_the_request_gets_what_room_the_app_leaves():
    own = {f"own{number}": 1 for number in range(MAX_PROPERTIES - 1)}
    around = {"own0": 2, "first": 2, "second": 2}

    properties = told(render(event(**own), properties=around))

    assert properties == {**own, "first": 2, **LIBRARY}


def test_an_event_that_is_full_gets_no_context():
    own = {f"own{number}": 1 for number in range(MAX_PROPERTIES)}

    properties = told(render(event(**own), properties={"first": 2}))

    assert properties == {**own, **LIBRARY}


@pytest.mark.parametrize(
    ("address", "ip", "profile_ip"),
    [
        pytest.param("", 0, "0", id="off"),
        pytest.param("203.0.113.0", "203.0.113.0", "203.0.113.0", id="told"),
    ],
)
def test_mixpanel_places_the_visitor_by_what_it_is_given(address, ip, profile_ip):
    items = (event(), browser_event(), identify(), people("$set", {}), first_touch('{"a":1}'))

    found = bodies(render(*items, address=address))

    events = [body["properties"]["ip"] for body in found if "event" in body]
    assert events == [ip] * 3
    assert [body["$ip"] for body in found if "$ip" in body] == [profile_ip] * 2


def test_a_group_has_no_place():
    [body] = bodies(render(group("$set", {}), address="203.0.113.0"))

    assert "$ip" not in body


@pytest.mark.parametrize(
    ("promised_at", "tracked_at"),
    [
        pytest.param(None, NOW, id="in-a-request"),
        pytest.param(NOW - 5, NOW - 5, id="a-job-is-as-old-as-its-grant"),
        pytest.param(NOW + 5, NOW, id="never-younger-than-it-is"),
    ],
)
def test_a_stop_ends_what_was_promised_before_it(promised_at, tracked_at):
    [entry] = render(event(), promised_at=promised_at)

    assert entry.tracked_at == tracked_at
    assert bodies([entry])[0]["properties"]["time"] == int(NOW * 1_000)


# --- before_send ----------------------------------------------------------------------------------


def test_the_app_sees_an_event_as_it_would_be_sent():
    seen = []

    def look(body):
        seen.append(json.dumps(body))
        return body

    entries = render(event(plan="free"), before_send=look, stamp={"stamped": 1}, **AROUND)

    assert [json.loads(text) for text in seen] == bodies(entries)
    assert entries == render(event(plan="free"), stamp={"stamped": 1}, **AROUND)


def add(body):
    return {"event": "Seen", "properties": {**body["properties"], "plan": "pro"}}


def remove(body):
    del body["properties"]["plan"]
    return body


def say_less(body):
    return {"properties": {}}


def say_what_cannot_be_sent(body):
    return {"properties": {"plan": float("nan"), "": 1, "x" * 300: "y" * 300}}


@pytest.mark.parametrize(
    ("before_send", "expected"),
    [
        pytest.param(add, {"plan": "pro", **LIBRARY}, id="changed"),
        pytest.param(remove, LIBRARY, id="removed-in-place"),
        pytest.param(say_less, LIBRARY, id="all-removed"),
        pytest.param(
            say_what_cannot_be_sent, {"plan": None, "x" * 255: "y" * 255, **LIBRARY}, id="repaired"
        ),
    ],
)
@pytest.mark.parametrize("make", [event, browser_event], ids=["ours", "a-pages"])
def test_the_app_may_change_what_an_event_says(make, before_send, expected):
    assert told(render(make(plan="free"), before_send=before_send)) == expected


@pytest.mark.parametrize("name", sorted(RESERVED))
@pytest.mark.parametrize("make", [event, browser_event], ids=["ours", "a-pages"])
def test_the_app_cannot_change_whose_an_event_is(make, name):
    def forge(body):
        body["event"] = "$identify"
        body["properties"][name] = "evil"
        return body

    def rob(body):
        body["properties"].pop(name, None)
        return body

    item = make(visitor=U1, mp_lib="web")
    stamp = {"$mp_asgi_consent": "explicit"}

    forged, robbed = (render(item, before_send=hook, stamp=stamp) for hook in (forge, rob))

    honest = bodies(render(item, stamp=stamp))
    assert (bodies(forged), bodies(robbed)) == (honest, honest)
    assert names(forged) == [["Seen"]]


def test_what_the_app_drops_is_counted_and_spoils_nothing():
    dropped = Dropped()
    items = (event("First"), event("Bad"), event("Last"))

    entries = render(
        *items,
        before_send=lambda body: None if body["event"] == "Bad" else body,
        dropped=dropped,
    )

    assert names(entries) == [["First", "Last"]]
    assert dropped == [("before_send", "Bad")]


def explode(body):
    body["properties"].clear()
    raise RuntimeError("secret")


def leave(body):
    sys.exit("secret")


def fall(body):
    raise CancelledError("secret")


async def look_later(body):
    return body


NEVER_AWAITED = pytest.mark.filterwarnings("ignore:coroutine .* never awaited:RuntimeWarning")


class Future:
    def __init__(self, body):
        pass

    def __await__(self):
        return iter(())


class Riddle(dict):
    def __getitem__(self, name):
        raise RuntimeError("secret")


def too_many(body):
    return {"properties": {str(number): 1 for number in range(MAX_PROPERTIES + 1)}}


MISSING = object()


@pytest.mark.parametrize(
    "before_send",
    [
        pytest.param(explode, id="raises"),
        pytest.param(lambda body: "nothing", id="text"),
        pytest.param(lambda body: True, id="true"),
        pytest.param(lambda body: {}, id="no-properties"),
        pytest.param(lambda body: {"properties": None}, id="none-for-properties"),
        pytest.param(lambda body: {"properties": [1]}, id="a-list-for-properties"),
        pytest.param(lambda body: {"properties": {"a": object()}}, id="not-to-be-sent"),
        pytest.param(too_many, id="too-many-properties"),
        pytest.param(look_later, id="later", marks=NEVER_AWAITED),
        pytest.param(Future, id="another-awaitable"),
        pytest.param(leave, id="ends-the-process"),
        pytest.param(fall, id="ends-its-task"),
    ],
)
def test_an_event_whose_look_fails_is_dropped_and_counted(before_send):
    dropped = Dropped()

    assert render(event(), before_send=before_send, dropped=dropped) == []
    assert dropped == [("before_send_failed", "Seen")]


@pytest.mark.parametrize(
    ("before_send", "text"),
    [
        pytest.param(explode, "before_send raised RuntimeError.", id="raises"),
        pytest.param(leave, "before_send raised SystemExit.", id="ends-the-process"),
        pytest.param(
            lambda body: "secret",
            "before_send answered a str that is no event (",
            id="another-answer",
        ),
        pytest.param(
            look_later,
            "before_send answered a coroutine that is no event (",
            id="later",
            marks=NEVER_AWAITED,
        ),
        pytest.param(
            Riddle, "before_send answered a Riddle that is no event (RuntimeError)", id="a-riddle"
        ),
        pytest.param(too_many, "before_send answered 244 properties, of at most 243", id="many"),
        pytest.param(
            lambda body: {"properties": {"a": object()}},
            "before_send answered a dict that is no event (A value of type object",
            id="not-to-be-sent",
        ),
    ],
)
def test_a_look_that_fails_is_told_without_a_value(before_send, text):
    dropped = Dropped()

    render(event(plan="secret"), before_send=before_send, dropped=dropped)

    assert dropped.texts[0].startswith(text)
    assert "secret" not in dropped.texts[0]


@pytest.mark.parametrize("make", [event, browser_event], ids=["ours", "a-pages"])
def test_an_event_may_have_as_many_properties_after_the_look_as_before(make):
    own = {f"own{number}": 1 for number in range(MAX_PROPERTIES)}

    [entry] = render(make(visitor=U1, **own), before_send=lambda body: body, **AROUND)

    assert own.keys() <= bodies([entry])[0]["properties"].keys()


@pytest.mark.parametrize(
    ("address", "left", "sent"),
    [
        pytest.param("203.0.113.9", "203.0.113.9", "203.0.113.9", id="as-it-was"),
        pytest.param("203.0.113.9", "203.0.0.0", "203.0.0.0", id="coarser"),
        pytest.param("203.0.113.9", 0, 0, id="zero"),
        pytest.param("203.0.113.9", "", 0, id="empty"),
        pytest.param("203.0.113.9", None, 0, id="none"),
        pytest.param("203.0.113.9", MISSING, 0, id="removed"),
        pytest.param("203.0.113.9", ["203.0.113.9"], 0, id="no-text"),
        pytest.param("", "203.0.113.9", 0, id="put-in-where-none-may-leave"),
    ],
)
@pytest.mark.parametrize("make", [event, browser_event], ids=["ours", "a-pages"])
def test_the_app_may_take_the_address_out(make, address, left, sent):
    def look(body):
        body["properties"].pop("ip")
        if left is not MISSING:
            body["properties"]["ip"] = left
        return body

    [body] = bodies(render(make(), before_send=look, address=address))

    assert body["properties"]["ip"] == sent


def test_what_the_app_makes_too_large_is_dropped():
    dropped = Dropped()
    fill = {"fill": ["x" * 255] * (MAX_MESSAGE_BYTES // 258 + 1)}

    assert render(event(), before_send=lambda _: {"properties": fill}, dropped=dropped) == []
    assert dropped == [("too_large", "Seen")]


def test_only_events_are_shown_to_the_app():
    items = (identify(), people("$set", {}), group("$set", {}), first_touch('{"a":1}'), alias())

    entries = render(*items, before_send=explode, mode=LEGACY)

    assert sum(len(entry.messages) for entry in entries) == len(items)


# --- what an app cannot say -----------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_a_reserved_name_is_never_the_apps(name):
    properties = {name: "evil", "fine": 1}

    forged, honest = bodies(render(event(**properties), event(fine=1)))

    assert forged == honest


def test_the_stamp_cannot_be_forged_where_there_is_none():
    [body] = bodies(render(event(**{"$mp_asgi_consent": "explicit"})))

    assert "$mp_asgi_consent" not in body["properties"]


def test_a_reserved_name_cannot_come_in_by_being_cut_or_repaired():
    item = (*event()[:5], {"x": 1, "$user_id": "evil", "ip": 1}, None, 0)

    [body] = bodies(render(item))

    assert "$user_id" not in body["properties"]
    assert body["properties"]["ip"] == 0


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Seen", "é" * 127, "$set", "my $identify"])
def test_a_good_name_is_remembered(name):
    known = set()

    check_name(name, known)

    assert known == {name}


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        pytest.param("", "invalid_name", id="empty"),
        pytest.param(5, "invalid_name", id="no-text"),
        pytest.param("a\nb", "invalid_name", id="control-character"),
        pytest.param("a\ud800", "invalid_name", id="half-a-character"),
        pytest.param("é" * 128, "invalid_name", id="256-bytes"),
        pytest.param("$identify", "reserved_name", id="identity"),
        pytest.param(" $Create_Alias ", "reserved_name", id="identity-in-disguise"),
        pytest.param("$merge", "reserved_name", id="merge"),
    ],
)
def test_a_bad_name_is_refused_and_not_remembered(name, reason):
    known = set()

    with pytest.raises(InvalidEvent) as caught:
        check_name(name, known)

    assert (caught.value.reason, known) == (reason, set())


def test_only_so_many_names_are_remembered():
    known = {str(number) for number in range(MAX_KNOWN_NAMES)}

    check_name("Seen", known)

    assert "Seen" not in known


# --- properties -----------------------------------------------------------------------------------


def test_an_event_has_so_many_properties_and_no_more():
    properties = dict.fromkeys(map(str, range(MAX_PROPERTIES)), 1)

    assert freeze_event(properties) == properties
    with pytest.raises(InvalidEvent) as refused:
        freeze_event(properties | {"more": 1})
    assert refused.value.reason == "too_many_properties"


# --- items that cannot be sent --------------------------------------------------------------------


def test_an_item_that_is_too_large_is_dropped_alone():
    dropped = Dropped()
    huge = event("Huge", values=["x" * 255] * (MAX_MESSAGE_BYTES // 258 + 1))

    entries = render(event("First"), huge, event("Last"), dropped=dropped)

    assert names(entries) == [["First", "Last"]]
    assert dropped == [("too_large", "Huge")]


def test_a_message_just_below_the_limit_is_sent():
    dropped = Dropped()
    [bare] = render(event(fill=[]))
    room = MAX_MESSAGE_BYTES - 1 - len(bare.messages[0].body)
    texts, rest = divmod(room - 2, 258)
    fill = ["x" * 255] * texts + ["x" * rest]

    [entry] = render(event(fill=fill), dropped=dropped)

    assert len(entry.messages[0].body) == MAX_MESSAGE_BYTES - 1
    [over] = [render(event(fill=[*fill[:-1], "x" * (rest + 1)]), dropped=dropped)]
    assert over == []


class Loud:
    def __str__(self):
        raise RuntimeError("code of the app")


@pytest.mark.parametrize(
    "key",
    [
        pytest.param(Loud(), id="whose-code-fails"),
        pytest.param(10**5_000, id="that-python-does-not-print"),
    ],
)
def test_a_name_that_is_no_text_never_spoils_the_others(key):
    # As it goes in the app: what freezes is rendered, what does not is refused on the spot.
    items = [event("First")]
    with contextlib.suppress(InvalidEvent):
        items.append((*event("Bad")[:5], freeze({"a": {key: 1}}), None, 0))
    items.append(event("Last"))

    rendered = [name for entry in names(render(*items)) for name in entry]

    assert [rendered[0], rendered[-1]] == ["First", "Last"]


def test_nothing_renders_to_nothing():
    assert render() == []


# --- entries --------------------------------------------------------------------------------------


def test_the_events_of_one_visitor_are_one_entry():
    entries = render(event("a"), people("$set", {}, visitor=ANONYMOUS), event("b"))

    assert names(entries) == [["a", "b"], ["$set"]]


def test_each_visitor_has_entries_of_their_own_and_order_is_kept():
    entries = render(event("a"), event("b", visitor=U1), event("c"))

    assert names(entries) == [["a"], ["b"], ["c"]]
    assert [entry.user_key for entry in entries] == [b"", KEYS.user_key("U1"), b""]
    assert {entry.device_key for entry in entries} == {KEYS.device_key(D)}


@pytest.mark.parametrize("operation", ["$add", "$append"])
def test_what_counts_twice_when_sent_twice_is_apart_and_marked(operation):
    entries = render(people("$set", {}), people(operation, {"a": 1}), people("$set", {}))

    assert names(entries) == [["$set"], [operation], ["$set"]]
    assert [entry.is_repeatable for entry in entries] == [True, False, True]


def test_an_event_may_be_named_like_an_operation():
    [entry] = render(event("$set"))

    assert entry.is_repeatable


def test_an_entry_with_an_identity_event_is_one_that_is_never_dropped():
    entries = render(event("a", visitor=U1), identify(), event("b", visitor=U1), mode=ORIGINAL)

    assert names(entries) == [["a", "$identify", "b"]]
    assert entries[0].is_identity
    assert not render(event())[0].is_identity


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        pytest.param(ENTRY_MESSAGES, [ENTRY_MESSAGES], id="full"),
        pytest.param(ENTRY_MESSAGES + 1, [ENTRY_MESSAGES, 1], id="one-more"),
    ],
)
def test_a_large_hand_over_is_cut_by_messages(count, expected):
    entries = render(*[event()] * count)

    assert [len(entry.messages) for entry in entries] == expected


def test_a_large_hand_over_is_cut_by_bytes():
    item = event(fill=["x" * 255] * 400)
    size = len(render(item)[0].messages[0].body)
    full = -(-ENTRY_BYTES // size)

    entries = render(*[item] * (full + 1))

    assert [len(entry.messages) for entry in entries] == [full, 1]


def test_an_entry_is_as_old_as_its_earliest_message():
    [entry] = render(event(at=NOW + 5), event(at=NOW + 1), event(at=NOW + 9))

    assert entry.tracked_at == NOW + 1


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        pytest.param([0, 60, 30], [["0", "60", "30"]], id="a-minute"),
        pytest.param([0, 60.5, 61], [["0"], ["60.5", "61"]], id="more-than-a-minute"),
        pytest.param([0, 40, 80], [["0", "40"], ["80"]], id="little-by-little"),
        pytest.param([80, 40, 0], [["80", "40"], ["0"]], id="the-newest-first"),
        pytest.param([-400_000, 0], [["-400000"], ["0"]], id="kept-offline-for-days"),
    ],
)
def test_what_was_tracked_far_apart_can_be_stopped_apart(seconds, expected):
    entries = render(*[event(str(after), at=NOW + after) for after in seconds])

    assert names(entries) == expected
    assert [entry.tracked_at for entry in entries] == [
        NOW + min(float(name) for name in together) for together in expected
    ]


def test_what_was_promised_at_once_is_together_however_far_apart():
    [entry] = render(event(at=NOW + 900), event(at=NOW + 1), promised_at=NOW)

    assert (len(entry.messages), entry.tracked_at) == (2, NOW)


# --- keys -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(KEYS.user_key("U1"), id="a-user-of-the-same-name"),
        pytest.param(KEYS.device_key("U2"), id="another-device"),
        pytest.param(KeyMaker("other").device_key("U1"), id="another-project"),
    ],
)
def test_keys_tell_apart(other):
    assert KEYS.device_key("U1") != other


def test_a_key_is_the_same_in_every_process():
    assert KeyMaker("t0ken").user_key("U1") == KEYS.user_key("U1")
    assert len(KEYS.user_key("U1")) == 16


def test_nobody_has_no_key():
    assert KEYS.user_key(None) == b""


# --- always valid ---------------------------------------------------------------------------------

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=300)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**400), 10**400)
    | st.floats()
    | ANY_TEXT
    | st.datetimes(timezones=st.just(UTC))
    | st.uuids(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(ANY_TEXT | st.integers(), inner, max_size=4)
        | st.sets(st.integers() | st.text(), max_size=4)
    ),
    max_leaves=10,
)


def refuse(_):
    raise AssertionError("NaN and Infinity are no JSON")


@given(properties=st.dictionaries(ANY_TEXT | st.sampled_from(sorted(RESERVED)), VALUES, max_size=6))
def test_an_event_is_always_valid_json_of_its_visitor(properties):
    try:
        frozen = freeze(properties)
    except InvalidEvent:
        return
    item = (What.EVENT, "Seen", "i" * 32, NOW, U1, frozen, None, 0)

    [entry] = render(item)

    body = json.loads(entry.messages[0].body.decode("utf-8"), parse_constant=refuse)
    told = body["properties"]
    assert (told["token"], told["distinct_id"], told["$device_id"]) == ("t0ken", "U1", D)
    assert (told["$insert_id"], told["ip"]) == ("i" * 32, 0)
