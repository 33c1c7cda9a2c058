import math

import pytest

from mp_asgi import CookieEquals, StoredConsent
from mp_asgi.consent.choice import Choice
from mp_asgi.endpoints.intake import (
    MAX_BEHIND_SECONDS,
    MAX_LATENCY_SECONDS,
    MAX_UNDATED_SECONDS,
)
from mp_asgi.identity import FORBIDDEN_IDS
from mp_asgi.wire import RESERVED, What
from tests.endpoints.pages import GRANTED, Page, event, update
from tests.support import NOW

USER = {"identify_from": lambda connection: "U1"}


def refusals(page):
    return {reason: number for (name, reason), number in page.sink.counts.items()}


def take(granted_at, sent_at, *times):
    """Answer what is taken of events of these times, and what is refused.

    Args:
        granted_at: When the visitor agreed; None if nobody can tell.
        sent_at: When the page sent them, by its own clock; None if it does not say.
        times: Of the events, by the page's clock.
    """
    page = Page(*[GRANTED] * (granted_at is None))
    if granted_at is not None:
        page.grant(granted_at)
    query = b"" if sent_at is None else b"_=%d" % (sent_at * 1000)
    body = [event(f"at {time}", time=time) for time in times]
    page.post("track", *body, query=query)
    return [(item[1], item[3]) for item in page.items], refusals(page)


# --- events -----------------------------------------------------------------------------------


def test_an_event_is_taken_as_the_page_sent_it():
    page = Page(GRANTED)

    reply = page.post("track", event("Seen", time=NOW - 3.25, color="red", **{"$insert_id": "abc"}))

    assert reply == {"error": None, "status": 1}
    [(what, name, insert_id, at, visitor, properties, *_)] = page.items
    assert (what, name, insert_id, at) == (What.BROWSER_EVENT, "Seen", "abc", NOW - 3.25)
    assert visitor.device_id == page.tracker.device_id
    assert properties["color"] == "red"


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        pytest.param(7, "invalid_message", id="number"),
        pytest.param(None, "invalid_message", id="null"),
        pytest.param([event()], "invalid_message", id="list"),
        pytest.param({"event": "A", "properties": []}, "invalid_message", id="properties-as-list"),
        pytest.param({"event": "A", "properties": None}, "invalid_message", id="no-properties"),
        pytest.param({}, "invalid_name", id="empty"),
        pytest.param(event(None), "invalid_name", id="no-name"),
        pytest.param(event(5), "invalid_name", id="name-as-number"),
        pytest.param(event(["A"]), "invalid_name", id="name-as-list"),
        pytest.param(event(""), "invalid_name", id="empty-name"),
        pytest.param(event("A\r\nB"), "invalid_name", id="name-of-two-lines"),
        pytest.param(event("$create_alias", alias="U1"), "reserved_name", id="alias"),
        pytest.param(event("$merge"), "reserved_name", id="merge"),
        pytest.param(event(" $Identify "), "reserved_name", id="identify-in-disguise"),
        pytest.param(event(token="f" * 32), "other_project", id="another-project"),
        pytest.param(event(token=7), "other_project", id="token-as-number"),
        pytest.param(
            event(**dict.fromkeys(map(str, range(300)), 1)), "too_many_properties", id="too-many"
        ),
        pytest.param(event(deep=[[[[[[[[[1]]]]]]]]]), "unserialisable", id="deep"),
        pytest.param(event(time="now"), "invalid_time", id="time-as-text"),
        pytest.param(event(time=True), "invalid_time", id="time-as-truth"),
        pytest.param(event(time=None), "invalid_time", id="no-time"),
        pytest.param(event(time=[NOW]), "invalid_time", id="time-as-list"),
        pytest.param(event(time=math.nan), "invalid_time", id="time-is-no-number"),
        pytest.param(event(time=math.inf), "invalid_time", id="endless-time"),
        pytest.param(event(time=10**900), "invalid_time", id="time-beyond-any-float"),
        pytest.param(event(time=-(10**900)), "invalid_time", id="time-below-any-float"),
        pytest.param(event(time=-math.inf), "invalid_time", id="time-before-all"),
        pytest.param(event(time=0), "invalid_time", id="1970"),
        pytest.param(event(time=-NOW), "invalid_time", id="negative-time"),
    ],
)
def test_a_bad_event_is_counted_and_spoils_nothing_beside_it(message, reason):
    page = Page(GRANTED)

    reply = page.post("track", event("Before"), message, event("After"))

    assert reply == {"error": None, "status": 1}
    assert page.names == ["Before", "After"]
    assert refusals(page) == {reason: 1}


def test_why_the_only_event_was_not_taken_is_told():
    reply = Page(GRANTED).post("track", event("$merge"))

    assert reply == {"error": "reserved_name", "status": 0}


def test_an_event_without_properties_is_one():
    page = Page(GRANTED)

    page.post("track", {"event": "Seen"})

    assert page.names == ["Seen"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        pytest.param("é" * 255, "é" * 127, id="too-many-bytes"),
        pytest.param("a\ud83d", "a?", id="half-an-emoji"),
    ],
)
def test_a_name_that_the_page_has_cut_is_cut_further(name, expected):
    page = Page(GRANTED)

    page.post("track", event(name))

    assert page.names == [expected]


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        pytest.param("v0jqxegc6k41l2h9", "v0jqxegc6k41l2h9", id="of-the-sdk"),
        pytest.param("A-1" * 12, "A-1" * 12, id="of-36"),
        pytest.param("a" * 37, None, id="of-37"),
        pytest.param("a_b", None, id="other-character"),
        pytest.param("é", None, id="other-alphabet"),
        pytest.param("abc\n", None, id="line"),
        pytest.param("", None, id="empty"),
        pytest.param("Undefined", None, id="forbidden"),
        pytest.param(42, None, id="number"),
        pytest.param(None, None, id="null"),
    ],
)
def test_an_insert_id_is_kept_where_mixpanel_would_take_it(given, kept):
    page = Page(GRANTED)

    page.post("track", event(**{"$insert_id": given}))

    [item] = page.items
    assert item[2] == kept or (kept is None and len(item[2]) == 32)


def test_no_forbidden_insert_id_is_kept():
    page = Page(GRANTED)

    page.post("track", *(event(**{"$insert_id": text}) for text in FORBIDDEN_IDS))

    assert FORBIDDEN_IDS.isdisjoint(item[2] for item in page.items)


# --- times ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("time", "at"),
    [
        pytest.param(NOW - 10.5, NOW - 10.5, id="seconds"),
        pytest.param((NOW - 10.5) * 1000, NOW - 10.5, id="milliseconds"),
        pytest.param(int(NOW) - 10, NOW - 10, id="whole-seconds"),
        pytest.param(NOW, NOW, id="now"),
        pytest.param(NOW + 60, NOW, id="in-a-minute"),
        pytest.param(10**20, NOW, id="in-ages"),
    ],
)
def test_a_time_is_the_pages_unless_it_is_in_the_future(time, at):
    assert take(None, NOW, time) == ([(f"at {time}", at)], {})


def test_an_event_may_be_old_where_the_grant_is_older():
    long_ago = NOW - 100 * 86_400

    assert take(long_ago - 1, NOW, long_ago) == ([(f"at {long_ago}", long_ago)], {})


@pytest.mark.parametrize(
    ("time", "is_taken"),
    [
        pytest.param(NOW - MAX_UNDATED_SECONDS, True, id="an-hour-ago"),
        pytest.param(NOW - MAX_UNDATED_SECONDS - 1, False, id="longer-ago"),
    ],
)
@pytest.mark.parametrize(
    "page",
    [
        pytest.param(lambda: Page(GRANTED), id="header"),
        pytest.param(lambda: Page(consent="opt-out"), id="default"),
        pytest.param(lambda: Page(consent_from=lambda connection: True), id="the-app"),
    ],
)
def test_where_nobody_knows_when_the_visitor_agreed_only_what_is_new_is_taken(page, time, is_taken):
    page = page()

    page.post("track", event(time=time))

    assert page.names == ["Seen"] * is_taken
    assert refusals(page) == ({} if is_taken else {"before_grant": 1})


@pytest.mark.parametrize(
    ("time", "is_taken"),
    [
        pytest.param(NOW - 60, False, id="before-the-denial"),
        pytest.param(NOW - 59.5, False, id="in-the-second-of-the-denial"),
        pytest.param(NOW - 59, True, id="after-it"),
    ],
)
def test_what_a_page_kept_from_before_a_denial_is_refused_under_a_grant_without_a_time(
    time, is_taken
):
    page = Page(consent_readers=(CookieEquals("choice", granted={"yes"}, denied={"no"}),))
    denial = Choice(False, "", int(NOW) - 60, 1, "mirror:cookie-choice")
    token = page.core.consent_signer.sign(denial.render())
    page.headers.append((b"cookie", b"choice=yes; __Host-mp_consent=" + token))
    page.open()

    page.post("track", event(time=time))

    assert page.names == ["Seen"] * is_taken
    assert refusals(page) == ({} if is_taken else {"before_grant": 1})


@pytest.mark.parametrize(
    ("time", "is_taken"), [(NOW - 7_201, False), (NOW - 7_200, True), (NOW - 7_199, True)]
)
def test_what_happened_before_the_apps_own_answer_is_refused(time, is_taken):
    page = Page(consent_from=lambda connection: StoredConsent(granted=True, at=NOW - 7_200))

    page.post("track", event(time=time))

    assert page.names == ["Seen"] * is_taken


def test_an_event_without_a_time_happened_now():
    page = Page(GRANTED)

    page.post("track", {"event": "Seen", "properties": {}})

    assert page.items[0][3] == NOW


def test_a_clock_that_is_ahead_is_put_back():
    ahead = 3_600

    taken, _ = take(None, NOW + ahead, NOW + ahead - 8, NOW + ahead + 5)

    assert [at for _, at in taken] == [NOW - 8, NOW]


def test_a_clock_that_is_behind_keeps_its_times():
    taken, _ = take(None, NOW - 3_600, NOW - 3_608)

    assert [at for _, at in taken] == [NOW - 3_608]


@pytest.mark.parametrize(
    "ahead",
    [
        pytest.param(0, id="right-clock"),
        pytest.param(86_400, id="ahead"),
        pytest.param(-86_400, id="behind"),
    ],
)
def test_what_happened_before_the_grant_is_refused_and_counted(ahead):
    before, at, after = (NOW + ahead + seconds for seconds in (-61, -60, -59))

    taken, refused = take(NOW - 60, NOW + ahead, before, at, after)

    assert [name for name, _ in taken] == [f"at {at}", f"at {after}"]
    assert refused == {"before_grant": 1}


@pytest.mark.parametrize(
    ("latency", "is_taken"),
    [
        pytest.param(MAX_LATENCY_SECONDS, False, id="slow-network"),
        pytest.param(MAX_LATENCY_SECONDS + 1, True, id="wrong-clock"),
    ],
)
def test_a_slow_network_makes_nothing_later(latency, is_taken):
    taken, _ = take(NOW - 60, NOW - latency, NOW - 61)

    assert bool(taken) is is_taken


@pytest.mark.parametrize(
    ("ahead", "expected"),
    [
        pytest.param(MAX_BEHIND_SECONDS, [NOW - 50], id="a-day-ahead"),
        pytest.param(MAX_BEHIND_SECONDS + 1, [NOW], id="more-than-a-day-ahead"),
        pytest.param(-MAX_BEHIND_SECONDS, [NOW - MAX_BEHIND_SECONDS - 50], id="a-day-behind"),
        pytest.param(-MAX_BEHIND_SECONDS - 1, [], id="more-than-a-day-behind"),
    ],
)
def test_what_is_more_than_a_day_off_is_no_clock(ahead, expected):
    taken, _ = take(NOW - 60, NOW + ahead, NOW + ahead - 50)

    assert [at for _, at in taken] == expected


def test_without_a_time_of_sending_the_clock_is_believed():
    assert take(NOW - 60, None, NOW - 61) == ([], {"before_grant": 1})


# --- pages ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "is_taken"),
    [
        pytest.param("https://shop.test/admin/users?a=b#c", False, id="excluded"),
        pytest.param("https://shop.test/%61dmin/users", False, id="in-disguise"),
        pytest.param("https://shop.test:8443/admin/", False, id="with-a-port"),
        pytest.param("https://shop.test/gr%C3%B6%C3%9Fe", False, id="in-another-alphabet"),
        pytest.param("https://shop.test", False, id="the-first-page"),
        pytest.param("https://shop.test?a=/admin/x", False, id="the-first-page-with-a-query"),
        pytest.param("https://shop.test/cart#/admin/x", True, id="not-the-fragment"),
        pytest.param("https://shop.test/cart?next=/admin/x", True, id="not-the-query"),
        pytest.param("https://admin/x", True, id="not-the-host"),
        pytest.param("about:blank", True, id="no-path"),
        pytest.param("https://[", False, id="broken"),
        pytest.param(7, True, id="number"),
        pytest.param(None, True, id="null"),
    ],
)
def test_on_an_excluded_page_nothing_is_tracked_either(url, is_taken):
    page = Page(GRANTED, exclude=["/admin/*", "/größe", "/"])

    page.post("track", event(**{"$current_url": url}), event("Elsewhere"))

    assert page.names == ["Seen"] * is_taken + ["Elsewhere"]
    assert refusals(page) == ({} if is_taken else {"excluded": 1})


# --- identity events --------------------------------------------------------------------------


def identified(page, anonymous, user, *, spelling=("$anon_distinct_id", "distinct_id")):
    return event("$identify", **dict(zip(spelling, (anonymous, user), strict=True)))


@pytest.mark.parametrize(
    "spelling", [("$anon_distinct_id", "distinct_id"), ("$anon_id", "$identified_id")]
)
@pytest.mark.parametrize(("server", "browser"), [("U1", "U1"), ("12345", 12345)])
@pytest.mark.parametrize("prefix", ["", "$device:"])
def test_what_the_server_says_itself_a_page_may_say_too(spelling, server, browser, prefix):
    page = Page(GRANTED, identity="original")
    page.tracker.identify(server)
    anonymous = prefix + page.tracker.device_id

    reply = page.post("track", identified(page, anonymous, browser, spelling=spelling))

    assert reply["status"] == 1
    assert page.names == ["$identify", "$identify"]


@pytest.mark.parametrize("mode", ["simplified", "original", "legacy"])
@pytest.mark.parametrize(
    ("anonymous", "user"),
    [
        pytest.param("{device}", "U2", id="another-user"),
        pytest.param("$device:0ee4420c-8699-457a-940f-fec4205e64f4", "U1", id="another-device"),
        pytest.param("U2", "U1", id="two-users"),
        pytest.param("U1", "{device}", id="the-wrong-way-round"),
        pytest.param("{device}", "undefined", id="nobody"),
    ],
)
def test_a_page_joins_nobody_else(mode, anonymous, user):
    page = Page(GRANTED, identity=mode)
    page.tracker.identify("U1")
    device = page.tracker.device_id

    reply = page.post(
        "track", identified(page, anonymous.format(device=device), user.format(device=device))
    )

    assert reply == {"error": "identity_event", "status": 0}
    assert refusals(page) == {"identity_event": 1}
    assert [item[0] for item in page.items] == [What.IDENTIFY] * (mode == "original")


def test_a_page_logs_nobody_in():
    page = Page(GRANTED, identity="original")

    page.post("track", identified(page, page.tracker.device_id, "U1"), event("After"))

    assert page.names == ["After"]
    assert page.items[0][4].user_id is None


@pytest.mark.parametrize(
    "properties",
    [
        pytest.param({}, id="nobody"),
        pytest.param({"$anon_distinct_id": None, "distinct_id": "U1"}, id="null"),
        pytest.param({"$anon_distinct_id": ["A"], "distinct_id": "U1"}, id="list"),
        pytest.param({"$anon_distinct_id": "A", "distinct_id": True}, id="truth"),
    ],
)
def test_an_identity_event_that_names_nobody_is_counted(properties):
    page = Page(GRANTED, identity="original")

    page.post("track", event("$identify", **properties))

    assert refusals(page) == {"forbidden_id": 1}


# --- profiles ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operation", "values", "expected"),
    [
        pytest.param("set", {"a": 1}, {"a": 1}, id="set"),
        pytest.param("set_once", {"a": 1}, {"a": 1}, id="set_once"),
        pytest.param("add", {"a": -1.5}, {"a": -1.5}, id="add"),
        pytest.param("append", {"a": "b"}, {"a": "b"}, id="append"),
        pytest.param("union", {"a": ["b"]}, {"a": ["b"]}, id="union"),
        pytest.param("remove", {"a": "b"}, {"a": "b"}, id="remove"),
        pytest.param("unset", ["a"], ["a"], id="unset"),
        pytest.param("delete", "somebody else", "", id="delete"),
    ],
)
def test_an_update_is_the_visitors_own(operation, values, expected):
    page = Page(GRANTED, **USER)

    reply = page.post("engage", update(distinct_id="U2", **{operation: values}))

    assert reply == {"error": None, "status": 1}
    [(what, name, _, at, visitor, found, *_)] = page.items
    assert (what, name, at, found) == (What.PEOPLE, f"${operation}", NOW, expected)
    assert visitor.user_id == "U1"


def test_nobodys_profile_is_not_updated_and_the_page_is_told_so():
    page = Page(GRANTED)

    reply = page.post("engage", update(set={"a": 1}), update(set={"b": 1}))

    assert reply == {"error": "anonymous_profile", "status": 0}
    assert page.items == []
    assert refusals(page) == {"anonymous_profile": 2}


def test_who_is_only_counted_has_no_profile():
    page = Page(policy=lambda head: "cookieless", cookieless="daily")

    reply = page.post("engage", update(set={"a": 1}))

    assert (page.items, reply["status"]) == ([], 0)
    assert refusals(page) == {"cookieless": 1}


@pytest.mark.parametrize("name", sorted(RESERVED))
@pytest.mark.parametrize("operation", ["set", "set_once", "add", "append", "union", "remove"])
def test_a_profile_keeps_nothing_that_only_we_write(name, operation):
    page = Page(GRANTED, **USER)
    value = ["U2"] if operation == "union" else 7

    page.post("engage", update(**{operation: {name: value, "a": value}}))

    assert page.items[0][5] == {"a": value}


def test_a_profile_loses_nothing_that_only_we_write():
    page = Page(GRANTED, **USER)

    page.post("engage", update(unset=["$distinct_id", "a"]))

    assert page.items[0][5] == ["a"]


def test_an_object_may_hold_several_operations():
    page = Page(GRANTED, **USER)

    page.post("engage", update(set={"a": 1}, add={"b": "no number"}, unset=["c"]))

    assert page.names == ["$set", "$unset"]
    assert refusals(page) == {"invalid_update": 1}


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        pytest.param(7, "invalid_message", id="number"),
        pytest.param({}, "invalid_update", id="empty"),
        pytest.param(update(merge={"a": 1}), "invalid_update", id="unknown-operation"),
        pytest.param(update(set=[1]), "invalid_update", id="set-a-list"),
        pytest.param(update(set="a"), "invalid_update", id="set-text"),
        pytest.param(update(add={"a": "1"}), "invalid_update", id="add-text"),
        pytest.param(update(add={"a": math.inf}), "invalid_update", id="add-endlessly"),
        pytest.param(update(union={"a": "b"}), "invalid_update", id="union-with-text"),
        pytest.param(update(unset="a"), "invalid_update", id="unset-text"),
        pytest.param(update(unset=[1]), "invalid_update", id="unset-a-number"),
        pytest.param(update(set={"a": [[[[[[[[[1]]]]]]]]]}), "unserialisable", id="deep"),
        pytest.param({**update(set={}), "$token": "f" * 32}, "other_project", id="another-project"),
    ],
)
def test_a_bad_update_is_counted_and_spoils_nothing_beside_it(message, reason):
    page = Page(GRANTED, **USER)

    page.post("engage", update(set={"a": 1}), message, update(unset=["b"]))

    assert page.names == ["$set", "$unset"]
    assert refusals(page) == {reason: 1}


# --- groups -----------------------------------------------------------------------------------


def group_update(key="company", group_id="G1", **operations):
    return {**update(**operations), "$group_key": key, "$group_id": group_id}


def test_groups_are_refused_where_the_site_has_not_asked_for_them():
    page = Page(GRANTED)

    reply = page.post("groups", group_update(set={"a": 1}), group_update(set={"a": 2}))

    assert reply == {"error": "group_update", "status": 0}
    assert page.items == []
    assert refusals(page) == {"group_update": 2}


@pytest.mark.parametrize(("group_id", "expected"), [("G1", "G1"), (7, "7")])
def test_groups_are_updated_where_the_site_has_asked_for_it(group_id, expected):
    page = Page(GRANTED, first_party_groups=True)

    reply = page.post("groups", group_update(group_id=group_id, set={"a": 1}))

    assert reply["status"] == 1
    [(what, name, *_, values, group, _)] = page.items
    assert (what, name, values, group) == (What.GROUP, "$set", {"a": 1}, ("company", expected))


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        pytest.param(7, "invalid_message", id="number"),
        pytest.param(update(set={"a": 1}), "invalid_update", id="no-group"),
        pytest.param(group_update(key=5, set={"a": 1}), "invalid_update", id="key-as-number"),
        pytest.param(group_update(group_id=None, set={"a": 1}), "forbidden_id", id="no-id"),
        pytest.param(group_update(group_id="null", set={"a": 1}), "forbidden_id", id="no-group-id"),
        pytest.param(group_update(add={"a": 1}), "invalid_update", id="add"),
        pytest.param(group_update(append={"a": 1}), "invalid_update", id="append"),
        pytest.param(
            {**group_update(set={"a": 1}), "$token": "f" * 32}, "other_project", id="other-project"
        ),
    ],
)
def test_a_bad_group_update_is_counted_and_spoils_nothing_beside_it(message, reason):
    page = Page(GRANTED, first_party_groups=True)

    page.post("groups", group_update(set={"a": 1}), message, group_update(unset=["b"]))

    assert page.names == ["$set", "$unset"]
    assert refusals(page) == {reason: 1}
