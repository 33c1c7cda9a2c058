"""Cookies of the real mixpanel-browser, 2.83.0, 2.29.0 and 2.11.0 (fixtures), and hostile ones."""

import json
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mp_asgi.adoption import (
    MAX_COOKIE_BYTES,
    Adopted,
    read_app_cookie,
    read_browser_cookie,
    read_browser_ids,
    read_device_id,
)
from mp_asgi.cookies import Scanner
from mp_asgi.identity import FORBIDDEN_IDS, Origin

FIXTURE = Path(__file__).with_name("fixtures") / "mixpanel_browser.jsonl"
ROWS = [json.loads(line) for line in FIXTURE.read_text().splitlines()]

A = "aaaaaaaa-aaaa-4aaa-aaaa-aaaaaaaaaaaa"
OLD = "1a1ff96079abc4-0d5780ca3e1d108-11543b4c-e1000-1a1ff96079bae2"
LONG = "x" * 247  # with `$device:` before it, the 255 that an ID may have


def rows():
    return [pytest.param(row, id=f"{row['sdk_version']}-{row['scenario']}") for row in ROWS]


def read_row(row):
    """Answer what the row's cookie says; None without one."""
    scanner = Scanner([f"mp_{row['token']}_mixpanel"])
    found = scanner.scan((row["cookie_header"] or "").encode("latin-1"))
    return read_browser_cookie(found[0][1]) if found else None


def cookie_of(fields):
    return quote(json.dumps(fields)).encode()


def anonymous(device_id):
    return {"distinct_id": "$device:" + device_id, "$device_id": device_id}


# --- what the page says, believed or not ----------------------------------------------------------


@pytest.mark.parametrize("row", rows())
def test_a_real_page_tells_its_device_id_also_where_nobody_goes_on_with_it(row):
    scanner = Scanner([f"mp_{row['token']}_mixpanel"])
    found = scanner.scan((row["cookie_header"] or "").encode("latin-1"))

    told = [read_device_id(value) for _, value in found]

    assert told == [row["server_visible"]["$device_id"] or ""] * len(found)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param(cookie_of(anonymous(A)), A, id="sound"),
        pytest.param(cookie_of({"$device_id": "null"}), "null", id="refused-by-mixpanel"),
        pytest.param(cookie_of({"$device_id": A, "$user_id": A}), A, id="a-users"),
        pytest.param(cookie_of({"$device_id": LONG + "x"}), LONG + "x", id="too-long"),
        pytest.param(cookie_of({"distinct_id": A}), "", id="none"),
        pytest.param(cookie_of({"$device_id": 7}), "", id="a-number"),
        pytest.param(cookie_of({"$device_id": ["x"]}), "", id="a-list"),
        pytest.param(cookie_of([A]), "", id="no-fields"),
        pytest.param(b"garbage", "", id="unreadable"),
        pytest.param(b"%ff", "", id="no-text"),
        pytest.param(b"x" * (MAX_COOKIE_BYTES + 1), "", id="too-much-to-read"),
        pytest.param(b"", "", id="empty"),
    ],
)
def test_what_the_page_takes_for_its_device_id_is_told_as_it_is(value, expected):
    assert read_device_id(value) == expected


def pair(adopted):
    """The ID and its origin."""
    return None if adopted is None else (adopted.device_id, adopted.origin)


# --- real cookies ---------------------------------------------------------------------------------


@pytest.mark.parametrize("row", rows())
def test_a_real_cookie_gives_its_device_id_and_the_origin_of_its_version(row):
    visible = row["server_visible"]
    distinct_id, device_id = visible["distinct_id"], visible["$device_id"]
    if row["sdk_version"] == "2.11.0":
        is_user = row["scenario"] in {"identify_email_unicode", "people_set"}
        expected = None if is_user or distinct_id is None else (distinct_id, Origin.LITERAL)
    else:
        origin = Origin.LITERAL if distinct_id == device_id else Origin.BROWSER
        expected = None if device_id is None else (device_id, origin)

    assert pair(read_row(row)) == expected


@pytest.mark.parametrize("row", [item for item in rows() if read_row(item.values[0])])
def test_the_library_itself_knows_the_visitor_by_the_adopted_id(row):
    told = row["expected"]

    assert read_row(row).device_id in {told["$device_id"], told["distinct_id"]}
    assert read_row(row).device_id != told["$user_id"]


def test_the_real_cookies_are_of_three_generations():
    adopted = [(row["sdk_version"], found.origin) for row in ROWS if (found := read_row(row))]

    assert len(ROWS) == 58
    assert set(adopted) == {
        ("2.83.0", Origin.BROWSER),
        ("2.29.0", Origin.LITERAL),
        ("2.29.0", Origin.BROWSER),
        ("2.11.0", Origin.LITERAL),
    }


# --- what the fields mean -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        pytest.param(anonymous(A), (A, Origin.BROWSER), id="prefixed"),
        pytest.param(anonymous("srv-1"), ("srv-1", Origin.BROWSER), id="prefixed-of-any-shape"),
        pytest.param(anonymous("zoë 1"), ("zoë 1", Origin.BROWSER), id="prefixed-not-ascii"),
        pytest.param(anonymous(LONG), (LONG, Origin.BROWSER), id="247-bytes"),
        pytest.param(
            {"distinct_id": OLD, "$device_id": OLD}, (OLD, Origin.LITERAL), id="generated-of-old"
        ),
        pytest.param({"distinct_id": A, "$device_id": A}, None, id="a-uuid-may-be-a-users"),
        pytest.param(
            {"distinct_id": A, "$device_id": A, "$user_id": "U1"},
            None,
            id="a-uuid-may-be-a-users-also-beside-another",
        ),
        pytest.param(
            {"distinct_id": "U1", "$device_id": OLD, "$user_id": "U1"},
            (OLD, Origin.BROWSER),
            id="identified",
        ),
        pytest.param(
            {"distinct_id": 12345, "$device_id": A, "$user_id": 12345},
            (A, Origin.BROWSER),
            id="identified-by-a-number",
        ),
        pytest.param({"$device_id": A}, (A, Origin.BROWSER), id="no-distinct-id"),
        pytest.param(
            {"distinct_id": "$device:other", "$device_id": A},
            (A, Origin.BROWSER),
            id="only-the-device-id-registered",
        ),
        pytest.param(
            {"distinct_id": "U1", "$device_id": OLD, "$had_persisted_distinct_id": True},
            (OLD, Origin.PERSISTED),
            id="persisted",
        ),
        pytest.param(
            {"distinct_id": "U1", "$device_id": A, "$had_persisted_distinct_id": 1},
            (A, Origin.BROWSER),
            id="persisted-is-true-and-nothing-else",
        ),
        pytest.param({"distinct_id": OLD}, (OLD, Origin.LITERAL), id="alone"),
        pytest.param(
            {"distinct_id": OLD, "$device_id": None}, (OLD, Origin.LITERAL), id="alone-beside-null"
        ),
        pytest.param(
            {"distinct_id": OLD, "__alias": "U1"}, (OLD, Origin.LITERAL), id="alone-with-an-alias"
        ),
        pytest.param(
            {"distinct_id": "$device:srv-1"}, ("srv-1", Origin.BROWSER), id="alone-prefixed"
        ),
    ],
)
def test_an_id_is_adopted_with_its_origin(fields, expected):
    assert pair(read_browser_cookie(cookie_of(fields))) == expected
    assert pair(read_browser_ids(fields)) == expected


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        pytest.param("U1", "U1", id="text"),
        pytest.param(12345, "12345", id="a-number"),
        pytest.param(None, "", id="nobody"),
        pytest.param(["U1"], "", id="no-id"),
    ],
)
def test_whom_the_page_says_the_device_has_met_comes_with_it(user, expected):
    fields = {"distinct_id": "U1", "$device_id": A, "$user_id": user}

    assert read_browser_ids(fields).user_id == expected


@pytest.mark.parametrize(
    "device_id",
    [
        pytest.param(OLD, id="of-2.29"),
        pytest.param("1a1ff96574d5a6-077e54d7a204378-11543b4c-e1000-1a1ff96574e4d4", id="of-2.11"),
        pytest.param("1a1ff9607900-0-0-0-1a1ff9607900", id="shortest"),
        pytest.param("1a1ff96079abc4-0d57--7f-e1000-1a1ff96079bae2", id="hash-below-0"),
    ],
)
def test_an_id_as_old_versions_generate_it_is_adopted_without_a_prefix(device_id):
    expected = Adopted(device_id, Origin.LITERAL)

    assert read_browser_ids({"distinct_id": device_id}) == expected
    assert read_browser_ids({"distinct_id": device_id, "$device_id": device_id}) == expected


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("user-42", id="name"),
        pytest.param("12345", id="number"),
        pytest.param("zoe@example.com", id="address"),
        pytest.param(A.upper(), id="uuid-in-capitals"),
        pytest.param(A.replace("-4", "-1"), id="uuid-of-another-version"),
        pytest.param(
            A.replace("aaaa-aaaaaaaaaaaa", "caaa-aaaaaaaaaaaa"), id="uuid-of-another-variant"
        ),
        pytest.param(A + "a", id="longer-than-a-uuid"),
        pytest.param("1a1ff960-0d57-11543b4c-e1000-1a1ff96079bae2", id="time-too-short"),
        pytest.param("1a1ff96079abc4-0d57-11543b4c-e1000-1a1ff960", id="second-time-too-short"),
        pytest.param(OLD.replace("-0d", "-1d"), id="random-number-from-1-on"),
        pytest.param(OLD.upper(), id="generated-in-capitals"),
        pytest.param(OLD + "-1", id="longer-than-generated"),
        pytest.param("x" + OLD, id="more-before-it"),
    ],
)
def test_what_may_be_a_users_id_is_never_adopted_without_a_prefix(text):
    assert read_browser_ids({"distinct_id": text}) is None
    assert read_browser_ids({"distinct_id": text, "$device_id": text}) is None
    assert read_browser_ids({"$device_id": text, "$had_persisted_distinct_id": True}) is None


def test_a_uuid_alone_is_a_users_because_versions_that_keep_it_alone_generate_none():
    assert read_browser_ids({"distinct_id": A}) is None
    assert read_browser_ids({"$device_id": A, "$had_persisted_distinct_id": True}) is None


@pytest.mark.parametrize("name", ["$user_id", "__alias"])
@pytest.mark.parametrize(
    ("fields", "user"),
    [
        pytest.param(anonymous("U1"), "U1", id="prefixed"),
        pytest.param(anonymous("42"), 42, id="number"),
        pytest.param({"distinct_id": OLD, "$device_id": OLD}, OLD, id="literal"),
        pytest.param({"distinct_id": OLD}, OLD, id="alone"),
        pytest.param({"$device_id": OLD, "$had_persisted_distinct_id": True}, OLD, id="persisted"),
    ],
)
def test_a_device_id_that_the_cookie_calls_a_user_is_refused(name, fields, user):
    assert read_browser_ids(fields) is not None
    assert read_browser_ids({**fields, name: user}) is None


# --- attacks --------------------------------------------------------------------------------------

NO_IDS = [
    pytest.param("", id="empty"),
    pytest.param(" ", id="blank"),
    *(pytest.param(text, id=f"forbidden-{text}") for text in sorted(FORBIDDEN_IDS - {""})),
    pytest.param(" UnDefined ", id="forbidden-in-any-case"),
    pytest.param("$device:x", id="prefix-twice"),
    pytest.param("a\r\nSet-Cookie: b", id="line-break"),
    pytest.param("a\0", id="nul"),
    pytest.param("a\x1b[31m", id="escape"),
    pytest.param("a\x7f", id="delete"),
    pytest.param("x" * 248, id="248-bytes"),
]
NOT_TEXT = [
    pytest.param(12345, id="number"),
    pytest.param(1.5, id="fraction"),
    pytest.param(True, id="truth"),
    pytest.param([A], id="list"),
    pytest.param({"a": A}, id="object"),
]


@pytest.mark.parametrize(
    "text",
    [
        *NO_IDS,
        pytest.param("a\ud800", id="lone-surrogate"),
        pytest.param("ë" * 124, id="248-bytes-in-124-letters"),
        pytest.param("a\u202eb", id="direction-override"),
        pytest.param("a\u2028b", id="line-separator"),
    ],
)
def test_what_is_no_id_is_not_adopted(text):
    assert read_browser_cookie(cookie_of(anonymous(text))) is None
    assert read_browser_cookie(cookie_of({"distinct_id": "$device:" + text})) is None


@pytest.mark.parametrize("value", NOT_TEXT)
def test_what_is_no_text_is_not_adopted(value):
    assert read_browser_ids({"distinct_id": value, "$device_id": value}) is None
    assert read_browser_ids({"distinct_id": OLD, "$device_id": value}) is None
    assert read_browser_ids({"distinct_id": value}) is None


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"%7Bnot json", id="no-json"),
        pytest.param(b"null", id="null"),
        pytest.param(b"[%22distinct_id%22]", id="list"),
        pytest.param(b"%22distinct_id%22", id="text"),
        pytest.param(b"%FF%FE", id="not-utf-8"),
        pytest.param(b"%", id="half-a-percent-sign"),
        pytest.param(b"[" * MAX_COOKIE_BYTES, id="too-deep"),
        pytest.param(b'{"a":' * 1_600, id="too-deep-with-names"),
        pytest.param(b'{"a":' + b"9" * 8_000 + b"}", id="number-beyond-reading"),
        pytest.param(b"%7B%7D", id="no-fields"),
    ],
)
def test_an_unreadable_cookie_says_nothing(value):
    assert read_browser_cookie(value) is None


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        pytest.param(MAX_COOKIE_BYTES, (A, Origin.BROWSER), id="8-kb"),
        pytest.param(MAX_COOKIE_BYTES + 1, None, id="a-byte-more"),
    ],
)
def test_at_most_8_kb_are_parsed(size, expected):
    cookie = cookie_of(anonymous(A))

    assert pair(read_browser_cookie(cookie + b" " * (size - len(cookie)))) == expected


@given(st.binary(max_size=200))
def test_any_bytes_are_read_without_an_error(value):
    assert is_none_or_sound(read_browser_cookie(value))
    assert is_none_or_sound(read_app_cookie(value))


@given(
    st.dictionaries(
        st.sampled_from(
            ["distinct_id", "$device_id", "$user_id", "__alias", "$had_persisted_distinct_id"]
        ),
        st.sampled_from([A, OLD, "U1", "$device:" + A, "$device:$device:", 1, True, None, "0", []])
        | st.text(),
    )
)
def test_an_adopted_id_is_sound_and_generated_where_it_has_no_prefix(fields):
    adopted = read_browser_ids(fields)

    assert is_none_or_sound(adopted)
    assert adopted is None or adopted.device_id not in (
        fields.get("$user_id"),
        fields.get("__alias"),
    )
    assert adopted is None or adopted.origin is Origin.BROWSER or adopted.device_id in {A, OLD}


def is_none_or_sound(adopted):
    return adopted is None or (
        adopted.device_id.isprintable()
        and 0 < len(adopted.device_id.encode()) <= 247
        and adopted.device_id.lower() not in FORBIDDEN_IDS
        and not adopted.device_id.startswith("$device:")
    )


# --- the app's own cookie -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param(b"v-123", ("v-123", Origin.LITERAL), id="text"),
        pytest.param(A.encode(), (A, Origin.LITERAL), id="uuid"),
        pytest.param(b"a%20b%3D", ("a b=", Origin.LITERAL), id="percent-encoded"),
        pytest.param(b'"v-123"', ("v-123", Origin.LITERAL), id="quoted"),
        pytest.param(b'""v""', ('"v"', Origin.LITERAL), id="one-pair-of-quotes-only"),
        pytest.param(b'"v', ('"v', Origin.LITERAL), id="half-a-pair"),
        pytest.param(b'"', ('"', Origin.LITERAL), id="one-quote"),
        pytest.param(b"%22v%22", ('"v"', Origin.LITERAL), id="encoded-quotes"),
        pytest.param(b"$device:v-1", ("v-1", Origin.BROWSER), id="prefixed"),
        pytest.param(b"%24device%3Av-1", ("v-1", Origin.BROWSER), id="prefix-encoded"),
        pytest.param(LONG.encode(), (LONG, Origin.LITERAL), id="247-bytes"),
        pytest.param(b"%78" * 247, (LONG, Origin.LITERAL), id="247-bytes-encoded"),
    ],
)
def test_an_apps_cookie_is_adopted(value, expected):
    assert read_app_cookie(value) == (*expected, "")


@pytest.mark.parametrize("text", NO_IDS)
def test_an_apps_cookie_that_is_no_id_is_not_adopted(text):
    assert read_app_cookie(b'"' + quote("$device:" + text, safe="").encode() + b'"') is None


@pytest.mark.parametrize(
    "value",
    [
        pytest.param("zoë".encode(), id="not-ascii"),
        pytest.param(b"zo%C3%AB", id="not-ascii-encoded"),
        pytest.param(b"None", id="forbidden"),
        pytest.param(b'""', id="nothing-between-quotes"),
        pytest.param(b"%78" * 248, id="248-bytes"),
    ],
)
def test_an_apps_cookie_that_is_no_printable_ascii_id_is_not_adopted(value):
    assert read_app_cookie(value) is None
