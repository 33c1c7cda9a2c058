"""Who is who in each ID merge: reference/mixpanel.md section 3, row by row."""

from typing import Any

import pytest

from mp_asgi.dev.clusters import Register
from mp_asgi.dev.judge import Mode

A = "aaaaaaaa-1111-4111-8111-aaaaaaaaaaaa"
B = "bbbbbbbb-2222-4222-9222-bbbbbbbbbbbb"
MODES = pytest.mark.parametrize("mode", ["simplified", "original", "legacy"])

Event = dict[str, Any]


def event(name: str, **properties: Any) -> Event:
    return {"event": name, "properties": properties}


def track(name: str, device_id: str = "", user_id: str = "") -> Event:
    ids = {"$device_id": device_id, "$user_id": user_id}
    return event(name, **{key: value for key, value in ids.items() if value})


def say(name: str, distinct_id: object) -> Event:
    return event(name, distinct_id=distinct_id)


def identify(user_id: str, anonymous_id: str) -> Event:
    ids = {"$identified_id": user_id, "$anon_id": anonymous_id}
    return event("$identify", distinct_id=user_id, **ids)


def merge(*ids: object) -> Event:
    return event("$merge", **{"$distinct_ids": list(ids)})


def alias(distinct_id: str, new_id: str) -> Event:
    return event("$create_alias", distinct_id=distinct_id, alias=new_id)


def people(mode: Mode, *events: Event) -> list[tuple[tuple[str, ...], list[str]]]:
    """Answer for each person the IDs and the names of the events."""
    clusters = Register(events, mode).clusters()
    return [(one.distinct_ids, [event["event"] for event in one.events]) for one in clusters]


def failures(mode: Mode, *events: Event) -> list[tuple[str, str, str]]:
    """Answer event, property and value of what was not joined."""
    found = Register(events, mode).failures()
    return [(failure.event["event"], failure.field, failure.reason) for failure in found]


# Every mode


@MODES
def test_nothing_makes_nobody(mode: Mode) -> None:
    assert people(mode) == []


@MODES
def test_strangers_are_different_people(mode: Mode) -> None:
    assert people(mode, say("Seen", "U1"), say("Bought", "U2")) == [
        (("U1",), ["Seen"]),
        (("U2",), ["Bought"]),
    ]


@MODES
def test_a_number_is_an_id_like_its_text(mode: Mode) -> None:
    assert people(mode, say("Seen", 42), say("Bought", "42")) == [(("42",), ["Seen", "Bought"])]


@MODES
@pytest.mark.parametrize("distinct_id", ["", None, ["U"]], ids=["empty", "null", "list"])
def test_an_event_of_nobody_makes_no_person(mode: Mode, distinct_id: object) -> None:
    assert people(mode, say("Seen", distinct_id)) == []


@MODES
def test_nobodys_event_is_not_asked_for_as_if_it_were_somebodys(mode: Mode) -> None:
    register = Register([say("Seen", "")], mode)

    with pytest.raises(LookupError, match="nobody's"):
        register.who_is(say("Seen", ""))


@MODES
def test_what_did_not_arrive_is_nobody(mode: Mode) -> None:
    register = Register([say("Seen", "U1")], mode)

    with pytest.raises(LookupError, match="did not arrive"):
        register.who_is(say("Bought", "U1"))
    with pytest.raises(LookupError, match="'U2'"):
        register.who_is("U2")


# Simplified


def test_simplified_links_a_device_to_its_user_backwards() -> None:
    seen, login, later = track("Seen", A), track("Login", A, "U1"), track("Seen Again", A)

    register = Register([seen, login, later], "simplified")

    [person] = register.clusters()
    assert (person.canonical_id, person.distinct_ids) == ("U1", (f"$device:{A}", "U1"))
    assert person.events == (seen, login, later)
    assert {register.who_is(who) for who in (seen, login, later, f"$device:{A}", "U1")} == {"U1"}
    assert register.failures() == []


@pytest.mark.parametrize(
    ("properties", "canonical_id"),
    [
        pytest.param({"$device_id": "d"}, "$device:d", id="device"),
        pytest.param({"$user_id": "U1"}, "U1", id="user"),
        pytest.param({"$device_id": "d", "distinct_id": "U9"}, "$device:d", id="ids-beat-distinct"),
        pytest.param({"distinct_id": "$device:d"}, "$device:d", id="prefixed-distinct-id"),
        pytest.param({"distinct_id": "U1"}, "U1", id="bare-distinct-id"),
    ],
)
def test_simplified_derives_whose_an_event_is(
    properties: dict[str, str], canonical_id: str
) -> None:
    seen = event("Seen", **properties)

    assert Register([seen], "simplified").who_is(seen) == canonical_id


def test_simplified_joins_any_number_of_devices() -> None:
    devices = [f"d{number}" for number in range(600)]

    [(ids, _)] = people("simplified", *(track("Seen", device, "U1") for device in devices))

    assert len(ids) == 601


def test_simplified_leaves_a_device_to_its_first_user() -> None:
    events = [track("Seen", A), track("One", A, "U1"), track("Two", A, "U2"), track("Again", A)]

    assert people("simplified", *events) == [
        ((f"$device:{A}", "U1"), ["Seen", "One", "Again"]),
        (("U2",), ["Two"]),
    ]
    assert failures("simplified", *events) == [
        ("Two", "$identity_failure_reason", "errAnonDistinctIdAssignedAlready")
    ]


def test_a_failure_belongs_to_the_person_whose_event_it_is() -> None:
    first, second = Register(
        [track("One", A, "U1"), track("Two", A, "U2")], "simplified"
    ).clusters()

    assert first.failures == ()
    assert [failure.event["event"] for failure in second.failures] == ["Two"]


@pytest.mark.parametrize(
    "special",
    [identify("U1", f"$device:{A}"), alias(f"$device:{A}", "U1"), merge(f"$device:{A}", "U1")],
    ids=["identify", "create_alias", "merge"],
)
def test_simplified_ignores_the_special_events(special: Event) -> None:
    special["properties"] |= {"$device_id": A, "$user_id": "U1"}

    assert people("simplified", track("Seen", A), special, track("Bought", user_id="U1")) == [
        ((f"$device:{A}",), ["Seen"]),
        (("U1",), ["Bought"]),
    ]


# Original

BROWSER = {"distinct_id": "U1", "$device_id": A, "$user_id": "U1"}


@pytest.mark.parametrize(
    ("anonymous_id", "special"),
    [
        pytest.param(A, identify("U1", A), id="server"),
        pytest.param(
            A,
            event("$identify", **{"$identified_id": "U1", "$anon_id": A}),
            id="server-without-distinct-id",
        ),
        pytest.param(
            f"$device:{A}",
            event("$identify", **BROWSER, **{"$anon_distinct_id": f"$device:{A}"}),
            id="browser",
        ),
    ],
)
def test_original_joins_by_identify_backwards(anonymous_id: str, special: Event) -> None:
    seen, bought = say("Seen", anonymous_id), say("Bought", "U1")

    register = Register([seen, bought, special], "original")

    [person] = register.clusters()
    assert (person.distinct_ids, person.events) == ((anonymous_id, "U1"), (seen, bought))
    assert register.who_is(seen) == register.who_is(bought) == register.who_is(special)
    assert register.failures() == []


def test_original_reads_the_distinct_id_alone() -> None:
    both = event("Seen", distinct_id=A, **{"$device_id": A, "$user_id": "U1"})

    assert people("original", both, say("Bought", "U1")) == [
        ((A,), ["Seen"]),
        (("U1",), ["Bought"]),
    ]


@pytest.mark.parametrize(
    "anonymous_id",
    [
        pytest.param(A.upper(), id="v4-in-capitals"),
        pytest.param(f"$device:{A}", id="v4-with-the-prefix"),
        pytest.param(
            "1a1ff961a58330-05248a50cccdf3-11543b4c-e1000-1a1ff961a59818",
            id="mixpanel-browser-2.29",
        ),
    ],
)
def test_original_takes_these_anonymous_ids(anonymous_id: str) -> None:
    assert failures("original", identify("U1", anonymous_id)) == []


GUID_FORM = "errAnonDistinctIdNonGUIDForm"
ASSIGNED = "errAnonDistinctIdAssignedAlready"


@pytest.mark.parametrize(
    ("events", "reason"),
    [
        pytest.param([identify(A, A)], "errSameIDs", id="itself"),
        pytest.param([identify("U1", "device-7")], GUID_FORM, id="any-text"),
        pytest.param([identify("U1", A.replace("-4", "-1", 1))], GUID_FORM, id="uuid-v1"),
        pytest.param([identify("U1", f"x{A}")], GUID_FORM, id="another-prefix"),
        pytest.param([identify("U1", f"{A}x")], GUID_FORM, id="more-behind-it"),
        pytest.param([identify("U1", A), identify("U2", A)], ASSIGNED, id="second-user"),
        pytest.param([identify(B, A), identify("U2", B)], ASSIGNED, id="a-user-as-a-device"),
    ],
)
def test_original_refuses_an_identify(events: list[Event], reason: str) -> None:
    assert failures("original", *events) == [("$identify", "$failure_reason", reason)]


def test_a_refused_identify_joins_nothing() -> None:
    events = [say("Seen", A), identify("U1", A), identify("U2", A), say("Bought", "U2")]

    assert people("original", *events) == [((A, "U1"), ["Seen"]), (("U2",), ["Bought"])]


def test_a_refused_device_is_no_person() -> None:
    assert people("original", identify("U1", "device-7")) == [(("U1",), [])]


def test_a_repeated_identify_is_no_failure_and_fills_no_cluster() -> None:
    assert failures("original", *[identify("U1", A)] * 501) == []


@pytest.mark.parametrize(
    ("properties", "ids"),
    [
        pytest.param({"distinct_id": "U1"}, [("U1",)], id="no-device"),
        pytest.param({"$anon_id": A, "distinct_id": ""}, [(A,)], id="no-user"),
    ],
)
def test_an_identify_of_one_id_joins_nothing(
    properties: dict[str, str], ids: list[tuple[str]]
) -> None:
    special = event("$identify", **properties)

    assert [names for names, _ in people("original", special)] == ids
    assert failures("original", special) == []


def test_original_puts_several_devices_to_a_user() -> None:
    [(ids, _)] = people("original", identify("U1", A), identify("U1", B))

    assert ids == ("U1", A, B)


def test_original_merges_any_two_ids() -> None:
    events = [identify("U1", A), identify("U2", B), say("Seen", A), merge("U1", "U2")]

    assert people("original", *events) == [(("U1", A, "U2", B), ["Seen"])]


def test_two_devices_that_were_merged_may_still_meet_their_user() -> None:
    assert failures("original", merge(A, B), identify("U1", A), identify("U1", B)) == []


def test_a_merge_of_what_is_no_id_makes_nobody() -> None:
    assert people("original", merge(None, {})) == []


def test_original_joins_by_alias_backwards() -> None:
    assert people("original", say("Seen", "U1"), alias("anything", "U1")) == [
        (("U1", "anything"), ["Seen"])
    ]


@pytest.mark.parametrize("mode", ["original", "legacy"])
def test_an_alias_is_given_once(mode: Mode) -> None:
    assert failures(mode, alias(A, "U1"), alias(A, "U1"), alias(B, "U1")) == [
        ("$create_alias", "$failure_reason", "errAliasAlreadyExists")
    ]


def crowd(size: int) -> list[Event]:
    """Answer what makes a cluster of so many IDs."""
    return [merge("U1", f"id-{number}") for number in range(1, size)]


@pytest.mark.parametrize(
    "special",
    [identify("U1", A), merge("U1", A), alias(A, "U1")],
    ids=["identify", "merge", "create_alias"],
)
def test_original_keeps_500_ids_of_one_person(special: Event) -> None:
    full = [*crowd(499), special]

    assert failures("original", *full) == []
    assert failures("original", *full, merge("U1", "one more")) == [
        ("$merge", "$failure_reason", "errManyIDs")
    ]
    assert failures("original", *crowd(500), special) == [
        (special["event"], "$failure_reason", "errManyIDs")
    ]


def test_a_full_cluster_may_be_told_again_what_it_is() -> None:
    assert failures("original", *crowd(500), merge("U1", "id-7")) == []


# Legacy


def test_legacy_aliases_from_now_on() -> None:
    seen, early = say("Seen", A), say("Early", "U1")
    late = say("Late", "U1")

    register = Register([seen, early, alias(A, "U1"), late], "legacy")

    device, user = register.clusters()
    assert (device.canonical_id, device.distinct_ids) == (A, (A, "U1"))
    assert device.events == (seen, late)
    assert (user.canonical_id, user.distinct_ids, user.events) == ("U1", ("U1",), (early,))
    assert register.who_is("U1") == register.who_is(late) == register.who_is(seen) == A
    assert register.who_is(early) == "U1"


def test_legacy_aliases_can_be_chained() -> None:
    events = [alias(A, "U1"), alias("U1", "U2"), say("Seen", "U2")]

    assert people("legacy", *events) == [((A, "U1", "U2"), ["Seen"])]


def test_an_alias_of_an_alias_leaves_earlier_events_where_they_were() -> None:
    events = [alias(A, "U1"), say("Early", "U1"), alias(B, A), say("Late", "U1")]

    assert people("legacy", *events) == [((A, "U1"), ["Early"]), ((B, A, "U1"), ["Late"])]


@pytest.mark.parametrize(
    "events",
    [[alias(A, A)], [alias(A, "U1"), alias("U1", A)]],
    ids=["itself", "back"],
)
def test_a_ring_of_aliases_ends(events: list[Event]) -> None:
    assert Register(events, "legacy").who_is(A) == A
    assert failures("legacy", *events) == []


@pytest.mark.parametrize("special", [identify("U1", A), merge("U1", A)], ids=["identify", "merge"])
def test_legacy_knows_only_aliases(special: Event) -> None:
    assert people("legacy", special) == []
    assert people("legacy", say("Seen", A), special, say("Bought", "U1")) == [
        ((A,), ["Seen"]),
        (("U1",), ["Bought"]),
    ]
