import json
from typing import Any

import pytest

from mp_asgi.backfill import (
    MAX_EVENT_PROPERTIES,
    NEVER,
    PORTION_BYTES,
    PORTION_LINES,
    BadLine,
    LineReader,
    read_portions,
)
from mp_asgi.events import MAX_MESSAGE_BYTES, Endpoint
from mp_asgi.wire import KeyMaker
from tests.support import NOW

TOKEN = "t0ken"
KEYS = KeyMaker(TOKEN)


def make_line(event: Any = "Old", **properties: Any) -> bytes:
    given = {"time": NOW - 60, "distinct_id": "U1"} | properties
    return json.dumps({"event": event, "properties": given}).encode()


def read(line: bytes):
    return LineReader(TOKEN, NOW).read(line)


def read_body(line: bytes) -> dict[str, Any]:
    (message,) = read(line).messages
    body: dict[str, Any] = json.loads(message.body)
    return body


def test_an_event_stays_what_it_was_in_this_project():
    body = read_body(make_line(token="other", ip="203.0.113.9", plan="pro", **{"$insert_id": "i1"}))

    assert body == {
        "event": "Old",
        "properties": {
            "time": NOW - 60,
            "distinct_id": "U1",
            "token": TOKEN,
            "ip": 0,
            "plan": "pro",
            "$insert_id": "i1",
        },
    }


def test_an_event_is_an_entry_of_its_own():
    entry = read(make_line(**{"$insert_id": "i1"}))

    assert entry.endpoint is Endpoint.EVENTS
    assert [(message.name, message.insert_id) for message in entry.messages] == [("Old", "i1")]
    assert entry.tracked_at == NOW - 60
    assert entry.is_repeatable
    assert not entry.is_identity


@pytest.mark.parametrize(
    "given",
    [
        pytest.param({}, id="missing"),
        pytest.param({"$insert_id": 7}, id="number"),
        pytest.param({"$insert_id": "has_underscore"}, id="letters"),
        pytest.param({"$insert_id": "Anonymous"}, id="forbidden"),
    ],
)
def test_without_a_usable_insert_id_it_is_the_lines_own(given):
    line = make_line(**given)

    first, second = read_body(line), read_body(line)
    other = read_body(make_line("Other", **given))

    insert_id = first["properties"]["$insert_id"]
    assert len(insert_id) == 32
    assert second == first
    assert other["properties"]["$insert_id"] != insert_id


def test_milliseconds_are_a_time_too():
    entry = read(make_line(time=(NOW - 60) * 1000))

    assert entry.tracked_at == NOW - 60


@pytest.mark.parametrize("name", ["$ignore", "bucket", "$bucket"])
def test_what_makes_mixpanel_drop_an_event_in_silence_is_left_out(name):
    assert name not in read_body(make_line(**{name: True}))["properties"]


@pytest.mark.parametrize(
    ("properties", "device_id", "user_id"),
    [
        pytest.param({"distinct_id": "U1"}, "U1", "U1", id="either"),
        pytest.param({"distinct_id": "$device:D1"}, "D1", None, id="device"),
        pytest.param({"distinct_id": "U1", "$device_id": "D1"}, "D1", "U1", id="both"),
        pytest.param({"distinct_id": "D1", "$user_id": "U1"}, "D1", "U1", id="merged"),
        pytest.param({"distinct_id": "", "$user_id": "U1"}, "", "U1", id="user"),
        pytest.param({"distinct_id": None, "$device_id": "$device:D1"}, "D1", None, id="prefix"),
        pytest.param({"distinct_id": 17}, "17", "17", id="number"),
    ],
)
def test_a_stop_of_the_person_finds_the_event(properties, device_id, user_id):
    entry = read(make_line(**properties))

    assert entry.device_key == KEYS.device_key(device_id)
    assert entry.user_key == KEYS.user_key(user_id)


def test_an_alias_goes_where_mixpanel_takes_aliases_and_has_no_time():
    line = make_line("$create_alias", alias="U1", distinct_id="D1")

    entry = read(line)

    assert entry.endpoint is Endpoint.ALIASES
    assert entry.tracked_at == NEVER
    assert entry.is_identity
    assert "time" not in read_body(line)["properties"]


def test_an_identity_event_is_never_dropped_when_the_outbox_is_full():
    assert read(make_line("$identify")).is_identity


@pytest.mark.parametrize("event", [None, 7, "", "x" * 256])
def test_an_event_has_a_name(event):
    with pytest.raises(BadLine, match="'event' is no text of 1 to 255 bytes"):
        read(make_line(event))


@pytest.mark.parametrize(
    "time",
    [
        pytest.param(None, id="none"),
        pytest.param("2026-01-01", id="text"),
        pytest.param(True, id="truth"),
        pytest.param(0, id="1970"),
        pytest.param(NOW + 1, id="future"),
        pytest.param(10**400, id="huge"),
    ],
)
def test_an_event_has_a_time(time):
    with pytest.raises(BadLine, match="'time' is no time from 1971 to now"):
        read(make_line(time=time))


@pytest.mark.parametrize(
    ("properties", "problem"),
    [
        pytest.param({"distinct_id": None}, "names nobody", id="nobody"),
        pytest.param({"distinct_id": ["U1"]}, "'distinct_id' is no text", id="list"),
        pytest.param({"distinct_id": "Undefined"}, "Mixpanel refuses", id="forbidden"),
        pytest.param({"distinct_id": "x" * 256}, "Mixpanel refuses", id="long"),
        pytest.param({"distinct_id": "\ud800"}, "half a character", id="half-an-id"),
        pytest.param({"plan": "\ud800"}, "half a character", id="half-a-value"),
        pytest.param(
            {str(number): 1 for number in range(MAX_EVENT_PROPERTIES)}, "over 254", id="many"
        ),
        pytest.param({"plan": "x" * MAX_MESSAGE_BYTES}, "over 1000000 bytes", id="large"),
    ],
)
def test_what_mixpanel_would_refuse_is_a_bad_line(properties, problem):
    with pytest.raises(BadLine, match=problem):
        read(make_line(**properties))


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        pytest.param(b"{", "no JSON", id="cut"),
        pytest.param(b'{"event": NaN}', "no JSON", id="nan"),
        pytest.param(b"\xff", "no JSON", id="bytes"),
        pytest.param(make_line(plan="X").replace(b'"X"', b"1e999"), "no JSON form", id="infinity"),
        pytest.param(b"[" * 100_000, "no JSON", id="deep"),
        pytest.param(b"[]", "no JSON object", id="list"),
        pytest.param(b'{"event": "Old"}', "'properties' is no object", id="bare"),
        pytest.param(b"{}", "neither an event nor a profile update", id="empty"),
        pytest.param(b'{"$set": {}, "$unset": []}', "with one operation", id="two"),
        pytest.param(b'{"$set": {}}', "names nobody", id="nobody"),
    ],
)
def test_what_is_no_message_is_a_bad_line(line, problem):
    with pytest.raises(BadLine, match=problem):
        read(line)


def test_a_problem_quotes_no_property():
    with pytest.raises(BadLine) as caught:
        read(make_line(time="secret", distinct_id="U1-secret"))

    assert "secret" not in str(caught.value)


def test_a_byte_order_mark_is_no_part_of_a_line():
    assert read(b"\xef\xbb\xbf" + make_line()).messages[0].name == "Old"


def test_a_profile_update_is_sent_again_without_what_was_said_of_it():
    update = {"$token": "other", "$distinct_id": "U1", "$time": int(NOW) - 5, "$set": {"a": 1}}
    line = json.dumps(update | {"mp_asgi": {"reason": "rejected"}}).encode()

    entry = read(line)

    assert entry.endpoint is Endpoint.PEOPLE
    assert (entry.tracked_at, entry.is_repeatable) == (NOW - 5, True)
    assert entry.user_key == KEYS.user_key("U1")
    assert read_body(line) == update | {"$token": TOKEN, "$ip": "0"}


@pytest.mark.parametrize("operation", ["$add", "$append"])
def test_an_update_that_would_count_twice_is_not_repeated(operation):
    entry = read(json.dumps({"$distinct_id": "U1", operation: {"a": 1}}).encode())

    assert not entry.is_repeatable
    assert entry.tracked_at == NEVER


def test_a_group_is_nobody_in_person():
    line = json.dumps({"$group_key": "firm", "$group_id": "F1", "$set": {"a": 1}}).encode()

    entry = read(line)

    assert entry.endpoint is Endpoint.GROUPS
    assert (entry.device_key, entry.user_key) == (b"", b"")
    assert "$ip" not in read_body(line)


def cut(lines):
    return list(read_portions(lines, LineReader(TOKEN, NOW).read))


def test_portions_end_at_the_same_lines_whatever_is_bad_in_them():
    good = [make_line()] * (PORTION_LINES + 1)
    bad = [b"bad", b"\n", *good[2:]]

    portions, others = cut(good), cut(bad)

    ends = [PORTION_LINES, PORTION_LINES + 1]
    assert [portion.last_line for portion in portions] == ends
    assert [portion.last_line for portion in others] == ends
    assert [len(portion.entries) for portion in portions] == [PORTION_LINES, 1]
    assert [len(portion.entries) for portion in others] == [PORTION_LINES - 2, 1]
    assert others[0].problems == {1: "it is no JSON"}
    assert not portions[0].problems


def test_a_portion_ends_where_it_is_large():
    large = make_line(plan="x" * (PORTION_BYTES // 2))

    portions = cut([large] * 5)

    assert [portion.last_line for portion in portions] == [2, 4, 5]
    assert portions[0].size_bytes == sum(entry.size_bytes for entry in portions[0].entries)


def test_of_nothing_there_is_no_portion():
    assert cut([]) == []
