import contextlib
import json
from datetime import UTC

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mp_asgi import __version__
from mp_asgi.errors import InvalidEvent
from mp_asgi.events import MAX_MESSAGE_BYTES, Endpoint
from mp_asgi.identity import IdentityMode, Visitor
from mp_asgi.properties import freeze
from mp_asgi.wire import ENTRY_BYTES, ENTRY_MESSAGES, RESERVED, KeyMaker, Renderer, What
from tests.support import NOW

D = "aaaaaaaa-aaaa-4aaa-aaaa-aaaaaaaaaaaa"
ANONYMOUS = Visitor(D, int(NOW))
U1 = ANONYMOUS.with_user("U1", int(NOW))
SIMPLIFIED, ORIGINAL = IdentityMode.SIMPLIFIED, IdentityMode.ORIGINAL
KEYS = KeyMaker("t0ken")


class Dropped(list):
    """Remembers what could not be sent."""

    def __call__(self, reason, name):
        self.append((reason, name))


def render(*items, mode=SIMPLIFIED, stamp=None, dropped=None):
    sink = Dropped() if dropped is None else dropped
    renderer = Renderer(token="t0ken", mode=mode, keys=KEYS, on_dropped=sink)
    return renderer.render(items, stamp or {})


def event(name="Seen", visitor=ANONYMOUS, at=NOW, **properties):
    return (What.EVENT, name, "i" * 32, at, visitor, properties, None, 0)


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
