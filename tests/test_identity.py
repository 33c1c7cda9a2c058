import hashlib
import os
from base64 import urlsafe_b64encode
from decimal import Decimal
from enum import StrEnum
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mp_asgi.errors import InvalidEvent
from mp_asgi.identity import (
    FORBIDDEN_IDS,
    MAX_ID_BYTES,
    IdentityMode,
    Origin,
    Visitor,
    make_owner_mark,
    mint,
    read_user_id,
)
from tests.support import NOW

A = "aaaaaaaa-aaaa-4aaa-aaaa-aaaaaaaaaaaa"
B = "bbbbbbbb-bbbb-4bbb-bbbb-bbbbbbbbbbbb"
ISSUED = int(NOW)


class Plan(StrEnum):
    FREE = "free-user"


class Name(str):
    __slots__ = ()


def told(visitor):
    return (
        visitor.device_id,
        visitor.issued,
        visitor.owner_mark,
        visitor.user_id,
        visitor.login_at,
    )


# --- user IDs -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param("U1", "U1", id="text"),
        pytest.param(" U1 ", " U1 ", id="text-is-sent-as-given"),
        pytest.param("anonymous1", "anonymous1", id="only-whole-words-are-forbidden"),
        pytest.param("x$device:1", "x$device:1", id="the-prefix-elsewhere"),
        pytest.param("😀", "😀", id="any-language"),
        pytest.param("u" * MAX_ID_BYTES, "u" * MAX_ID_BYTES, id="255-bytes"),
        pytest.param(42, "42", id="integer"),
        pytest.param(10**20, "100000000000000000000", id="large-integer"),
        pytest.param(4.5, "4.5", id="float"),
        pytest.param(UUID(A), A, id="uuid"),
        pytest.param(Name("U1"), "U1", id="str-subclass"),
        pytest.param(Plan.FREE, "free-user", id="str-enum"),
    ],
)
def test_a_user_id_becomes_plain_text(value, expected):
    user_id = read_user_id(value)

    assert user_id == expected
    assert type(user_id) is str


@pytest.mark.parametrize(
    "value",
    [
        *[pytest.param(word, id=f"word-{word or 'empty'}") for word in sorted(FORBIDDEN_IDS)],
        *[pytest.param(word, id=f"case-{word}") for word in ("NULL", "Anonymous", "NaN", "None")],
        pytest.param("  ", id="blank"),
        pytest.param("\tundefined\n", id="word-in-white-space"),
        pytest.param("$device:" + A, id="device-prefix"),
        pytest.param("u" * (MAX_ID_BYTES + 1), id="256-bytes"),
        pytest.param("é" * 128, id="128-characters-of-256-bytes"),
        pytest.param("u\ud800", id="lone-surrogate"),
        pytest.param(0, id="zero"),
        pytest.param(-1, id="minus-one"),
        pytest.param(float("nan"), id="not-a-number"),
        pytest.param(float("inf"), id="infinity"),
        pytest.param(UUID(int=0), id="the-nil-uuid"),
        pytest.param(True, id="true"),
        pytest.param(False, id="false"),
        pytest.param(None, id="none"),
        pytest.param(b"U1", id="bytes"),
        pytest.param(["U1"], id="list"),
        pytest.param(object(), id="object"),
        pytest.param(Decimal(1), id="decimal"),
        pytest.param(10**5_000, id="an-integer-that-python-does-not-print"),
    ],
)
def test_an_id_that_names_nobody_or_everybody_is_refused(value):
    with pytest.raises(InvalidEvent) as caught:
        read_user_id(value)

    assert caught.value.reason == "forbidden_id"


@pytest.mark.parametrize(
    "word",
    [
        "00000000-0000-0000-0000-000000000000",
        "anon",
        "anonymous",
        "nil",
        "none",
        "null",
        "n/a",
        "na",
        "undefined",
        "unknown",
        "<nil>",
        "0",
        "-1",
        "true",
        "false",
        "[]",
        "{}",
    ],
)
def test_what_mixpanel_lists_as_invalid_is_forbidden(word):
    assert word in FORBIDDEN_IDS


@pytest.mark.parametrize("value", ["u" * 300, "u\ud800", "guest"], ids=["long", "broken", "word"])
def test_no_refusal_quotes_the_id(value):
    with pytest.raises(InvalidEvent) as caught:
        read_user_id(value)

    assert value not in str(caught.value)


# --- minting --------------------------------------------------------------------------------------


def test_a_minted_id_is_a_uuid_v4_issued_now():
    visitor = mint(os.urandom, NOW + 0.9)

    assert UUID(visitor.device_id).version == 4
    assert str(UUID(visitor.device_id)) == visitor.device_id
    assert told(visitor)[1:] == (ISSUED, b"", None, 0)


@given(st.binary(min_size=16, max_size=16))
def test_whatever_the_randomness_the_id_is_the_uuid_v4_of_it(random):
    device_id = mint(lambda _: random, NOW).device_id

    assert device_id == str(UUID(bytes=random, version=4))


# --- the owner mark -------------------------------------------------------------------------------


def test_the_mark_is_eight_bytes_of_a_hash_of_both():
    assert make_owner_mark(A, "U1") == hashlib.sha256(f"{A}\0U1".encode()).digest()[:8]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param((A, "U1"), (A, "U2"), id="users"),
        pytest.param((A, "U1"), (B, "U1"), id="devices"),
        pytest.param(("ab", "c"), ("a", "bc"), id="where-one-ends"),
    ],
)
def test_marks_tell_apart(first, second):
    assert make_owner_mark(*first) != make_owner_mark(*second)


@pytest.mark.parametrize(
    ("visitor", "user_id", "expected"),
    [
        pytest.param(Visitor(A, ISSUED), "U1", True, id="unmarked"),
        pytest.param(Visitor(A, ISSUED).with_user("U1", 1), "U1", True, id="its-owner"),
        pytest.param(Visitor(A, ISSUED).with_user("U1", 1), "U2", False, id="another"),
        pytest.param(
            Visitor(A, ISSUED).with_user("U1", 1).without_user(), "U2", False, id="after-logout"
        ),
    ],
)
def test_a_device_speaks_for_its_first_user_only(visitor, user_id, expected):
    assert visitor.is_owned_by(user_id) is expected


def test_a_login_adds_user_mark_and_time():
    visitor = Visitor(A, ISSUED).with_user("U1", 7)

    assert told(visitor) == (A, ISSUED, make_owner_mark(A, "U1"), "U1", 7)


def test_a_logout_keeps_device_issue_and_mark():
    visitor = Visitor(A, ISSUED).with_user("U1", 7).without_user()

    assert told(visitor) == (A, ISSUED, make_owner_mark(A, "U1"), None, 0)


@pytest.mark.parametrize(
    ("mode", "user_id", "expected"),
    [
        pytest.param(IdentityMode.SIMPLIFIED, None, "$device:" + A, id="simplified-anonymous"),
        pytest.param(IdentityMode.SIMPLIFIED, "U1", "U1", id="simplified-known"),
        pytest.param(IdentityMode.ORIGINAL, None, A, id="original-anonymous"),
        pytest.param(IdentityMode.ORIGINAL, "U1", "U1", id="original-known"),
        pytest.param(IdentityMode.LEGACY, None, A, id="legacy-anonymous"),
        pytest.param(IdentityMode.LEGACY, "U1", "U1", id="legacy-known"),
    ],
)
def test_the_distinct_id_follows_the_id_merge(mode, user_id, expected):
    assert Visitor(A, ISSUED, user_id=user_id).distinct_id(mode) == expected


@pytest.mark.parametrize(
    ("mode", "origin", "expected"),
    [
        pytest.param(IdentityMode.SIMPLIFIED, Origin.MINTED, "$device:X", id="simplified-minted"),
        pytest.param(IdentityMode.SIMPLIFIED, Origin.LITERAL, "$device:X", id="simplified-literal"),
        pytest.param(IdentityMode.ORIGINAL, Origin.MINTED, "X", id="original-minted"),
        pytest.param(IdentityMode.ORIGINAL, Origin.BROWSER, "$device:X", id="original-browsers"),
        pytest.param(IdentityMode.ORIGINAL, Origin.LITERAL, "X", id="original-literal"),
        pytest.param(IdentityMode.ORIGINAL, Origin.PERSISTED, "X", id="original-persisted"),
        pytest.param(IdentityMode.ORIGINAL, Origin.SUCCESSOR, "X", id="original-successor"),
        pytest.param(IdentityMode.LEGACY, Origin.BROWSER, "$device:X", id="legacy-browsers"),
    ],
)
@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda visitor: visitor, id="from-the-start"),
        pytest.param(lambda visitor: visitor.with_user("U1", 1), id="with-a-user"),
        pytest.param(lambda visitor: visitor.with_user("U1", 1).without_user(), id="after-logout"),
        pytest.param(lambda visitor: visitor.with_first_touch("{}"), id="knowing-its-first-touch"),
        pytest.param(
            lambda visitor: Visitor.parse(visitor.render(keeps_user=True)), id="from-its-cookie"
        ),
    ],
)
def test_an_adopted_device_keeps_the_name_that_mixpanel_knows_it_by(mode, origin, expected, change):
    assert change(Visitor("X", ISSUED, origin=origin)).anonymous_id(mode) == expected


# --- how a device was found -----------------------------------------------------------------------

TOUCH = '{"$initial_referrer":"https://a.example/é"}'


def test_a_device_remembers_how_it_was_found_until_it_meets_a_user():
    visitor = Visitor(A, ISSUED).with_first_touch(TOUCH)

    assert (visitor.first_touch, visitor.without_user().first_touch) == (TOUCH, TOUCH)
    assert visitor.with_user("U1", 7).first_touch == ""
    assert told(visitor) == told(Visitor(A, ISSUED))


# --- the cookie's value ---------------------------------------------------------------------------

MARK = make_owner_mark(A, "U1").hex()


@pytest.mark.parametrize(
    ("visitor", "keeps_user", "expected"),
    [
        pytest.param(Visitor(A, 5), True, f"1.{A}.5.m..0.", id="anonymous"),
        pytest.param(
            Visitor(A, 5).with_user("U1", 7), True, f"1.{A}.5.m.{MARK}.7.VTE", id="with-its-user"
        ),
        pytest.param(
            Visitor(A, 5).with_user("U1", 7), False, f"1.{A}.5.m.{MARK}.0.", id="mark-alone"
        ),
        pytest.param(
            Visitor(A, 5).with_first_touch("{}"), True, f"1.{A}.5.m..0..e30", id="first-touch"
        ),
        pytest.param(
            Visitor("é.x", 5, origin=Origin.BROWSER), True, "1.w6kueA.5.d..0.", id="of-the-browser"
        ),
        pytest.param(
            Visitor(A, 5, origin=Origin.SUCCESSOR), True, f"1.{A}.5.s..0.", id="successor"
        ),
        pytest.param(Visitor("x", 5, origin=Origin.LITERAL), True, "1.eA.5.l..0.", id="literal"),
        pytest.param(
            Visitor("x", 5, origin=Origin.PERSISTED), True, "1.eA.5.h..0.", id="persisted"
        ),
    ],
)
def test_a_visitor_is_rendered_for_the_cookie(visitor, keeps_user, expected):
    assert visitor.render(keeps_user=keeps_user) == expected.encode()


USERS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=255)


@given(
    random=st.binary(min_size=16, max_size=16),
    issued=st.integers(0, 2**40),
    origin=st.sampled_from([Origin.MINTED, Origin.SUCCESSOR]),
    user=USERS | st.none(),
    login_at=st.integers(0, 2**40),
)
def test_what_is_rendered_is_read_back(random, issued, origin, user, login_at):
    visitor = mint(lambda _: random, issued, origin)
    if user is not None:
        visitor = visitor.with_user(user, login_at)

    value = visitor.render(keeps_user=True)

    parsed = Visitor.parse(value)
    assert parsed is not None
    assert (told(parsed), parsed.origin) == (told(visitor), origin)
    assert not set(value) & set(b'; ,"\\\r\n')


@given(
    device=st.text(st.characters(codec="utf-8"), min_size=1, max_size=255),
    origin=st.sampled_from([Origin.BROWSER, Origin.LITERAL, Origin.PERSISTED]),
    touch=st.text(st.characters(codec="utf-8"), max_size=1_000),
)
def test_what_was_adopted_and_how_it_was_found_is_read_back(device, origin, touch):
    visitor = Visitor(device, ISSUED, origin=origin, first_touch=touch)

    value = visitor.render(keeps_user=True)

    parsed = Visitor.parse(value)
    assert parsed is not None
    assert (told(parsed), parsed.origin, parsed.first_touch) == (told(visitor), origin, touch)
    assert not set(value) & set(b'; ,"\\\r\n')


@given(user=USERS)
def test_a_cookie_that_keeps_no_user_tells_none(user):
    visitor = Visitor(A, ISSUED).with_user(user, 7)

    parsed = Visitor.parse(visitor.render(keeps_user=False))

    assert parsed is not None
    assert told(parsed) == (A, ISSUED, visitor.owner_mark, None, 0)


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"1", id="too-few-fields"),
        pytest.param(b"1.d.5.m..0....", id="too-many-fields"),
        pytest.param(b"2.d.5.m..0.", id="another-form"),
        pytest.param(b"1.d.5.x..0.", id="another-origin"),
        pytest.param(b"1.\xff.5.m..0.", id="device-not-ascii"),
        pytest.param(b"1.d.x.m..0.", id="issue-no-number"),
        pytest.param(b"1.d..m..0.", id="no-issue"),
        pytest.param(b"1.d." + b"9" * 5_000 + b".m..0.", id="issue-beyond-python"),
        pytest.param(b"1.d.5.m.zz.0.", id="mark-not-hex"),
        pytest.param(b"1.d.5.m.\xff.0.", id="mark-not-ascii"),
        pytest.param(b"1.d.5.m..x.", id="login-no-number"),
        pytest.param(b"1.d.5.m..0.A", id="user-not-base64"),
        pytest.param(b"1.A.5.d..0.", id="device-not-base64"),
        pytest.param(b"1._w.5.d..0.", id="device-not-utf8"),
        pytest.param(b"1.d.5.\xff..0.", id="origin-not-ascii"),
        pytest.param(b"1.d.5.m..0..A", id="first-touch-not-base64"),
        pytest.param(b"1.d.5.m..0." + urlsafe_b64encode(b"\xff"), id="user-not-utf8"),
    ],
)
def test_what_we_did_not_write_is_nobody(value):
    assert Visitor.parse(value) is None


@given(st.binary(max_size=100))
def test_reading_garbage_never_raises(value):
    assert Visitor.parse(b"1." + value) is None or value.count(b".") in {5, 6}
