"""Hostile inputs, as exact bytes, through both doors (fixtures/attacks.jsonl).

In the file `mp_aid` stands for the ID cookie's name, `MP_CONSENT` for `MP_ASGI_CONSENT`, and
`GOOD` below for a value that we signed.
"""

import base64
import json
import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from mp_asgi import Settings, SettingsError
from tests.doors import Browser, Request, World, call, deny, grant, identify, look, track

FIXTURE = Path(__file__).with_name("fixtures") / "attacks.jsonl"
ROWS = [json.loads(line) for line in FIXTURE.read_bytes().splitlines()]
GOOD = b"3f2b8c1e-6a1d-4a52-9f6e-0d6d1f6f2a11.awH1eQ.AAAAAAAAAAAAAAAAAAAAAAAAAAA"
ID_COOKIE = "mp_aid"
SEEN, SIGHT = track("Seen"), look()
ENVIRONMENT = {"MIXPANEL_TOKEN": "t0ken", "MP_ASGI_SECRET_KEYS": "k" * 32}


def bytes_of(row: Mapping[str, Any]) -> bytes:
    return base64.b64decode(row["b64"])


def text_of(row: Mapping[str, Any]) -> str:
    return bytes_of(row).decode("utf-8", "surrogatepass")


def rows(where: str, **wanted: Any) -> Any:
    found = [
        row
        for row in ROWS
        if row["where"] == where and all(part in row[key] for key, part in wanted.items())
    ]
    assert found
    return pytest.mark.parametrize("row", found, ids=[f"{r['id']} {r['why']}" for r in found])


@pytest.fixture(params=["asgi", "wsgi"])
def world(request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture) -> Iterator[World]:
    with caplog.at_level(logging.DEBUG), World(request.param, id_cookie=ID_COOKIE) as world:
        yield world
    check_log(caplog)


def check_log(caplog: pytest.LogCaptureFixture) -> None:
    """No exception is logged, and no line can be broken or coloured from outside."""
    for record in caplog.records:
        assert record.exc_info is None
        assert record.levelno < logging.ERROR
        assert not {"\r", "\n", "\x1b"} & set(record.getMessage())


def headers_of(row: Mapping[str, Any], world: World) -> list[tuple[str, str | bytes]]:
    """Answer the headers that carry an attack, with signed values where it stands for them."""
    value = bytes_of(row)
    if row["where"] == "cookie-value":
        return [("cookie", b"__Host-mp_aid=" + value + b"; mp_aid=" + value)]
    if row["where"] == "cookie-header":
        return [("cookie", value.replace(b"mp_aid=", b"__Host-mp_aid="))]
    if row["name"] == "x-mp-consent[2]":
        return [("x-mp-consent", b"granted"), ("x-mp-consent", value)]
    return [(row["name"], value)]


def consenting(world: World) -> Browser:
    browser = world.browser()
    browser.visit(grant())
    return browser


def attack_everybody(world: World, row: Mapping[str, Any]) -> None:
    """Attack as a stranger and as a consenting visitor, and hold what always holds."""
    headers = headers_of(row, world)
    stranger = world.browser().visit(SEEN, SIGHT, headers=headers)

    assert (stranger.error, stranger.status, stranger.body) == (None, 200, b"part")
    assert stranger.notes == [(None, None, None)]
    assert not any("mp_aid=" in c and "Max-Age=0" not in c for c in stranger.cookies)
    world.flush()
    assert world.standin.requests == []

    consent = {k: v for k, v in consenting(world).jar.items() if "consent" in k}
    visitor = world.browser().visit(SEEN, SIGHT, headers=headers, jar=consent)

    assert (visitor.error, visitor.status, visitor.body) == (None, 200, b"part")
    assert all(len(row.device or "") == 36 for row in world.rows())
    check_bytes(row, [*stranger.cookies, *visitor.cookies], world)


def check_bytes(row: Mapping[str, Any], cookies: list[str], world: World) -> None:
    """None of the attacker's bytes come back, and what goes out is UTF-8."""
    value = bytes_of(row)
    if len(value) > 4 and value != ID_COOKIE.encode():
        assert not any(value in cookie.encode("latin-1") for cookie in cookies)
    for request in world.standin.requests:
        assert request.body.decode("utf-8").isprintable()
        if row["where"].startswith("cookie") and len(value) > 4:
            assert value not in request.body


# --- what a request carries ---------------------------------------------------------------------


@rows("cookie-value")
def test_a_hostile_cookie_is_no_cookie(world, row):
    attack_everybody(world, row)

    assert all(row.device not in ("", None) for row in world.rows())


@rows("cookie-header")
def test_a_hostile_cookie_header_is_survived(world, row):
    attack_everybody(world, row)


@rows("header")
def test_a_hostile_header_is_survived(world, row):
    attack_everybody(world, row)


@rows("query")
def test_a_hostile_query_is_survived(world, row):
    query = f"{row['name']}={bytes_of(row).decode('latin-1')}"
    cookie = ("cookie", consenting(world).cookie_header())

    answer = world.serve(Request(headers=[cookie], query=query), [SEEN])

    assert (answer.error, answer.status) == (None, 200)
    assert len(world.rows()) == 1
    check_bytes(row, answer.cookies, world)


@pytest.mark.parametrize("id_", ["A057", "A069", "A071", "A073", "A077"])
def test_a_signed_cookie_is_found_among_hostile_ones(world, id_):
    [row] = [row for row in ROWS if row["id"] == id_]
    browser = consenting(world)
    good = browser.jar["__Host-mp_aid"].value.encode()
    consent = b"__Host-mp_consent=" + browser.jar["__Host-mp_consent"].value.encode()
    [(_, header)] = headers_of(row, world)

    browser.visit(SEEN, jar={}, headers=[("cookie", header.replace(GOOD, good) + b"; " + consent)])

    [seen] = world.rows()
    may_be_ignored = id_ == "A069"
    assert seen.device == browser.device_id or may_be_ignored


@pytest.mark.parametrize("is_denial_first", [True, False])
def test_of_two_signed_consent_cookies_the_denial_wins(world, is_denial_first):
    refuser = world.browser()
    refuser.visit(deny())
    tokens = [b.jar["__Host-mp_consent"].value for b in (refuser, consenting(world))]
    pairs = [f"__Host-mp_consent={token}" for token in tokens]
    header = "; ".join(pairs if is_denial_first else reversed(pairs))

    world.browser().visit(SEEN, headers=[("cookie", header)])

    assert world.rows() == []


@rows("header", name="x-mp-consent")
def test_a_header_that_is_not_exactly_a_grant_is_none(world, row):
    answer = world.browser().visit(SEEN, SIGHT, headers=headers_of(row, world))

    assert (answer.notes, answer.cookies) == ([(None, None, None)], [])
    assert world.rows() == []


@pytest.mark.parametrize(
    ("name", "value", "count"),
    [("dnt", b"1", 1), ("sec-gpc", b" 1", 0), ("sec-gpc", b"true", 1), ("sec-gpc", b"1", 0)],
)
def test_a_browser_signal_follows_the_documented_policy(world, name, value, count):
    consenting(world).visit(SEEN, headers=[(name, value)])

    assert len(world.rows()) == count


@pytest.mark.parametrize("host", [bytes_of(r) for r in ROWS if r["name"] == "host"])
def test_a_host_header_never_becomes_a_domain(world, host):
    answer = world.browser().visit(grant(), headers=[("host", host)])

    assert answer.cookies
    assert not any("domain" in cookie.lower() for cookie in answer.cookies)


# --- what an app passes on ----------------------------------------------------------------------


@rows("id", why="placeholder")
def test_a_placeholder_is_nobody(world, row):
    consenting(world).visit(identify(text_of(row)), SEEN)

    [seen] = world.rows()
    assert seen.user is None
    assert world.stats().refused == {"forbidden_id": 1}


@rows("id")
def test_a_strange_user_id_is_refused_or_sent_as_given(world, row):
    consenting(world).visit(identify(text_of(row)), SEEN)

    [seen] = world.rows()
    assert seen.user in (None, text_of(row))
    assert (seen.user is None) == (world.stats().refused == {"forbidden_id": 1})


def parse(row: Mapping[str, Any]) -> dict[str, Any]:
    properties: dict[str, Any] = json.loads(text_of(row))
    return properties


@rows("json")
def test_hostile_json_spoils_no_event_and_overrides_nothing(world, row):
    browser = consenting(world)

    answer = browser.visit(track("Hostile", **parse(row)), SEEN)

    assert (answer.error, answer.status) == (None, 200)
    rows = world.rows()  # which checks the IDs of each
    assert ("Seen", browser.device_id, None) in rows
    hostile = [e["properties"] for e in world.standin.events if e["event"] == "Hostile"]
    assert bool(hostile) != bool(world.stats().refused)
    for properties in hostile:
        assert (properties["token"], properties["ip"]) == ("t0ken", 0)
        assert properties["$insert_id"] != "x"
        assert properties["$device_id"] == browser.device_id
        assert "$user_id" not in properties
    check_bytes(row, answer.cookies, world)


class LateObject:
    """An ORM object whose session is closed: every look at it raises."""

    def __getattribute__(self, name: str) -> Any:
        if name == "__class__":
            return type(self)
        raise LookupError("the session is closed")


def make_cycle() -> dict[str, Any]:
    cycle: dict[str, Any] = {}
    cycle["d"] = cycle
    return cycle


MADE: dict[str, Callable[[], Any]] = {
    "inf": lambda: float("inf"),
    "function": lambda: lambda: 1,
    "set": lambda: {1, 2},
    "Decimal": lambda: Decimal("1.1"),
    "huge int": lambda: 10**400,
    "cycle": make_cycle,
    "numpy": lambda: Fraction(1, 2),  # like np.float32 a Real that is no float
    "generator": lambda: (n for n in range(3)),
    "int keys": lambda: {1: "one"},
    "late access": LateObject,
}


@rows("prop", name="value")
def test_a_hostile_value_is_sent_repaired_or_refused_and_counted(world, row):
    browser = consenting(world)
    refused = {"unserialisable": 1}

    answer = browser.visit(track("Hostile", value=MADE[row["why"]]()), SEEN)

    assert (answer.error, answer.status) == (None, 200)
    names = [row.name for row in world.rows()]
    assert names == (["Seen"] if world.stats().refused == refused else ["Hostile", "Seen"])


@pytest.mark.parametrize(
    ("why", "expected"),
    [
        ("inf", None),
        ("set", [1, 2]),
        ("Decimal", 1.1),
        ("numpy", 0.5),
        ("int keys", {"1": "one"}),
    ],
)
def test_a_value_with_a_json_form_is_sent_in_it(world, why, expected):
    consenting(world).visit(track("Hostile", value=MADE[why]()))
    world.flush()

    [event] = world.standin.events
    assert event["properties"]["value"] == expected


def test_a_value_is_copied_when_it_is_tracked(world):
    basket = {"items": ["book"]}

    def change(_: object) -> None:
        basket["items"].append("pen")

    consenting(world).visit(track("Bought", basket=basket), call(change))
    world.flush()

    [event] = world.standin.events
    assert event["properties"]["basket"] == {"items": ["book"]}


@rows("prop", name="event")
def test_a_hostile_event_name_is_refused_and_counted(world, row):
    answer = consenting(world).visit(track(text_of(row)), SEEN)

    assert (answer.error, answer.status) == (None, 200)
    assert [row.name for row in world.rows()] == ["Seen"]
    assert sum(world.stats().refused.values()) == 1


# --- the environment ----------------------------------------------------------------------------


@rows("env")
def test_a_hostile_environment_stops_the_start_or_is_normalised(monkeypatch, row):
    name = {"MP_CONSENT": "MP_ASGI_CONSENT"}.get(row["name"], row["name"])
    value = text_of(row)
    for variable, text in (ENVIRONMENT | {name: value}).items():
        monkeypatch.setenv(variable, text)

    if name == "MIXPANEL_TOKEN":
        assert Settings.from_env().token == value.strip()
    elif name == "MP_FLUSH_TIMEOUT":
        assert Settings.from_env()  # not a name of ours
    else:
        with pytest.raises(SettingsError) as caught:
            Settings.from_env()
        [problem] = caught.value.problems
        assert name in problem
        assert "\n" not in problem
        assert "SECRET" not in name or value not in str(caught.value)


# --- work ---------------------------------------------------------------------------------------


def count_calls(world: World, header: bytes) -> int:
    """Count what a request with this Cookie header calls, C functions included."""
    browser = world.browser()
    browser.visit(grant())
    count = 0

    def note(_frame: object, event: str, _: object) -> None:
        nonlocal count
        count += event in {"call", "c_call"}

    def visit() -> None:
        sys.setprofile(note)
        try:
            browser.visit(SEEN, headers=[("cookie", header)], jar={})
        finally:
            sys.setprofile(None)

    visit()
    return count


@pytest.mark.parametrize(
    "part",
    [
        b"__Host-mp_aid=x.y.z; ",
        b"__Host-mp_aid=" + GOOD + b"; ",
        b"__Host-mp_consent=" + GOOD + b"; ",
        b"a=b; ",
        b";",
        b"=",
        b'"\\',
        b"__Host-mp_aid=" + b"a" * 5_000 + b"; ",
    ],
    ids=[
        "three parts",
        "forged",
        "forged consent",
        "others",
        "semicolons",
        "equals",
        "quotes",
        "long",
    ],
)
def test_work_is_linear_in_a_cookie_header(world, part):
    small = count_calls(world, part * (4_000 // len(part) + 1))
    large = count_calls(world, part * (64_000 // len(part) + 1))

    # 16 times the input, and a constant that is nearly all of the small request.
    assert large <= 16 * small


@pytest.mark.parametrize("name", ["__Host-mp_aid", "__Host-mp_consent", "mp_aid", "mp_consent"])
def test_a_flood_of_one_name_is_verified_four_times_at_most(world, name, monkeypatch):
    from mp_asgi.signing import CookieSigner

    unsign, tokens = CookieSigner.unsign, []

    def unsign_and_note(self: CookieSigner, token: bytes) -> Any:
        tokens.append(token)
        return unsign(self, token)

    monkeypatch.setattr(CookieSigner, "unsign", unsign_and_note)

    world.browser().visit(SEEN, headers=[("cookie", f"{name}=a.b.{'c' * 43}; " * 1_000)])

    assert len(tokens) <= 4


def test_no_row_is_forgotten():
    kinds = {row["where"] for row in ROWS}

    assert len(ROWS) == 200
    assert kinds == {
        "cookie-value",
        "cookie-header",
        "header",
        "query",
        "id",
        "json",
        "prop",
        "env",
    }
