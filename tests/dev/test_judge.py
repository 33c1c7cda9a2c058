"""The table of reference/mixpanel.md section 7: which message is refused, with which text."""

from typing import Any

import pytest

from mp_asgi.dev.judge import Mode, judge_group, judge_import, judge_person, judge_track

NOW = 1_800_000_000.0
DAY = 86_400


def event(name: object = "A", **properties: Any) -> dict[str, Any]:
    return {"event": name, "properties": {"time": NOW, "distinct_id": "U", **properties}}


def without(name: str, **properties: Any) -> dict[str, Any]:
    message = event(**properties)
    del message["properties"][name]
    return message


def deep(levels: int) -> Any:
    return {"a": deep(levels - 1)} if levels else 1


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(event(), id="plain"),
        pytest.param(event(time=int(NOW)), id="whole seconds"),
        pytest.param(event(time=int(NOW * 1000)), id="milliseconds"),
        pytest.param(event(time=NOW + 3_500), id="the clock is less than an hour fast"),
        pytest.param(event(time=365 * DAY), id="1971"),
        pytest.param(event(distinct_id=""), id="nobody's event"),
        pytest.param(event(**{"$insert_id": "a" * 36}), id="the longest $insert_id"),
        pytest.param(event(**{f"p{n}": n for n in range(253)}), id="255 properties"),
        pytest.param(event(nested=deep(3)), id="nested three deep"),
        pytest.param(event(items=[{"a": 1}] * 255), id="255 elements"),
        pytest.param(event(text="☕😀"), id="any script"),
        pytest.param(event("$identify", distinct_id="U"), id="$identify"),
    ],
)
def test_import_takes_a_good_event(message: Any) -> None:
    assert judge_import(message, now=NOW, mode="simplified") is None


TIME = "'properties.time' is invalid: "
ID = "'properties.distinct_id' is invalid: "
INSERT_ID = "'$insert_id' is invalid: "
ALPHANUMERIC = INSERT_ID + "must only contain alphanumeric or hyphen '-' characters"


@pytest.mark.parametrize(
    ("message", "field", "text"),
    [
        (event(""), "event", "'event' must not be missing or blank"),
        (event("  "), "event", "'event' must not be missing or blank"),
        (event(7), "event", "'event' must not be missing or blank"),
        ("text", "event", "'event' must not be missing or blank"),
        (without("time"), "properties.time", TIME + "must not be missing"),
        (event(time=NOW + 3_700), "properties.time", TIME + "must not be in the future"),
        (event(time="now"), "properties.time", TIME + "must be specified as seconds since epoch"),
        (event(time=True), "properties.time", TIME + "must be specified as seconds since epoch"),
        (event(time=None), "properties.time", TIME + "must be specified as seconds since epoch"),
        (event(time=1), "properties.time", TIME + "must be specified as seconds since epoch"),
        (without("distinct_id"), "properties.distinct_id", ID + "must not be missing"),
        (event(**{"$insert_id": "a_b"}), "$insert_id", ALPHANUMERIC),
        (event(**{"$insert_id": ""}), "$insert_id", ALPHANUMERIC),
        (event(**{"$insert_id": 7}), "$insert_id", ALPHANUMERIC),
        (
            event(utm_source="a\ud800"),
            "properties.utm_source",
            "properties.utm_source is invalid: string should be valid utf8",
        ),
        (
            event(list=[{"k": "\udcff"}]),
            "properties.list.k",
            "properties.list.k is invalid: string should be valid utf8",
        ),
        (
            event(**{"\ud800": 1}),
            "properties",
            "properties is invalid: string should be valid utf8",
        ),
        (event("\ud800"), "event", "event is invalid: string should be valid utf8"),
    ],
)
def test_import_refuses_in_mixpanels_words(message: Any, field: str, text: str) -> None:
    problem = judge_import(message, now=NOW, mode="simplified")

    assert problem is not None
    assert (problem.field, problem.text, problem.is_silent) == (field, text, False)


# Mixpanel documents these rules; nobody recorded its words, so the words are ours.
@pytest.mark.parametrize(
    ("message", "field"),
    [
        pytest.param({"event": "A"}, "properties", id="no properties"),
        pytest.param(event(distinct_id="Undefined"), "properties.distinct_id", id="placeholder"),
        pytest.param(event(distinct_id=0), "properties.distinct_id", id="zero"),
        pytest.param(event(**{"$device_id": "null"}), "properties.$device_id", id="device"),
        pytest.param(event(**{"$user_id": "anonymous"}), "properties.$user_id", id="user"),
        pytest.param(event(**{"$insert_id": "a" * 37}), "$insert_id", id="long $insert_id"),
        pytest.param(event(**{"$insert_id": "none"}), "$insert_id", id="placeholder $insert_id"),
        pytest.param(event(**{f"p{n}": n for n in range(254)}), "properties", id="256 properties"),
        pytest.param(event(nested=deep(5)), "properties.nested", id="nested too deep"),
        pytest.param(event(items=[1] * 256), "properties.items", id="256 elements"),
        pytest.param(event(text="☕" * 400_000), "event", id="over 1 MB"),
    ],
)
def test_import_refuses_what_the_documentation_forbids(message: Any, field: str) -> None:
    problem = judge_import(message, now=NOW, mode="simplified")

    assert problem is not None
    assert problem.field == field


@pytest.mark.parametrize(
    ("mode", "properties", "is_taken"),
    [
        ("simplified", {"$device_id": "D"}, True),
        ("simplified", {"$user_id": "U"}, True),
        ("original", {"$device_id": "D"}, False),
        ("original", {"$user_id": "U"}, False),
        ("legacy", {"$device_id": "D"}, False),
        ("legacy", {"$user_id": "U"}, False),
    ],
)
def test_only_simplified_takes_an_event_without_distinct_id(
    mode: Mode, properties: dict[str, str], *, is_taken: bool
) -> None:
    problem = judge_import(without("distinct_id", **properties), now=NOW, mode=mode)

    assert (problem is None) is is_taken


def test_an_identify_that_names_both_ids_needs_no_distinct_id() -> None:
    message = without("distinct_id", **{"$identified_id": "U", "$anon_id": "D"})

    assert judge_import({**message, "event": "$identify"}, now=NOW, mode="original") is None


@pytest.mark.parametrize(
    ("mode", "ids", "is_taken"),
    [
        ("original", ["a", "b"], True),
        ("original", ["a"], False),
        ("original", None, False),
        ("simplified", None, True),  # ignored there
        ("legacy", None, True),  # and there
    ],
)
def test_a_merge_names_exactly_two_ids(mode: Mode, ids: Any, *, is_taken: bool) -> None:
    message = event("$merge", **{"$distinct_ids": ids})

    assert (judge_import(message, now=NOW, mode=mode) is None) is is_taken


@pytest.mark.parametrize("judged", [judge_import, judge_track], ids=["import", "track"])
def test_an_event_to_be_ignored_is_dropped_silently(judged: Any) -> None:
    mode = {"mode": "simplified"} if judged is judge_import else {}

    problem = judged(event(token="T", **{"$ignore": True}), now=NOW, **mode)

    assert problem is not None
    assert problem.is_silent


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (event(), "token, missing or empty"),
        (event(token=""), "token, missing or empty"),
        ({"event": "A"}, "token, missing or empty"),
        (event("", token="T"), "event, missing"),
        ([], "event, missing"),
        (event("$identify", token="T", distinct_id=""), "distinct_id, missing or empty"),
        (event("$create_alias", token="T", distinct_id=""), "distinct_id, missing or empty"),
        (event("$merge", token="T"), "event, $merge is not accepted here"),
    ],
)
def test_track_refuses_in_mixpanels_words(message: Any, text: str) -> None:
    problem = judge_track(message, now=NOW)

    assert problem is not None
    assert problem.text == text


@pytest.mark.parametrize(
    "properties",
    [{"token": "T", "distinct_id": ""}, {"token": "T"}, {"token": "any", "time": NOW - 4.9 * DAY}],
)
def test_track_takes_nearly_everything(properties: dict[str, Any]) -> None:
    assert judge_track({"event": "A", "properties": properties}, now=NOW) is None


def test_track_drops_an_event_older_than_five_days_silently() -> None:
    problem = judge_track(event(token="T", time=(NOW - 5.1 * DAY) * 1000), now=NOW)

    assert problem is not None
    assert problem.is_silent


PERSON = {"$token": "T", "$distinct_id": "U", "$set": {"a": 1}}
GROUP = {"$token": "T", "$group_key": "k", "$group_id": "g", "$set": {"a": 1}}


@pytest.mark.parametrize("verb", ["$set", "$set_once", "$add", "$append", "$union", "$remove"])
def test_every_profile_verb_is_taken(verb: str) -> None:
    update = {"$token": "T", "$distinct_id": "U", verb: {"a": 1}}

    assert judge_person(update, now=NOW) is None


def test_a_group_update_is_taken() -> None:
    assert judge_group(GROUP, now=NOW) is None


@pytest.mark.parametrize(
    ("judged", "update", "text"),
    [
        (judge_person, {**PERSON, "$token": ""}, "$token, missing or empty"),
        (judge_person, None, "$token, missing or empty"),
        (
            judge_person,
            {**PERSON, "$distinct_id": ""},
            "Engage API error: $distinct_id, missing or empty",
        ),
        (
            judge_group,
            {**GROUP, "$group_id": ""},
            "Engage API error: $group_id, missing or empty",
        ),
        (
            judge_group,
            {**GROUP, "$group_key": ""},
            "Engage API error: $group_key, missing or empty",
        ),
        (
            judge_person,
            {**PERSON, "$unset": ["a"]},
            "Engage API error: one operation expected, found 2",
        ),
        (
            judge_person,
            {**PERSON, "$set": {"a": "\ud800"}},
            "Engage API error: $set.a: string should be valid utf8",
        ),
    ],
)
def test_a_bad_profile_update_is_refused(judged: Any, update: Any, text: str) -> None:
    problem = judged(update, now=NOW)

    assert problem is not None
    assert problem.text == text
