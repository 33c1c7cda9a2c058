"""Consent managers' cookies, their mirror and the region, through both doors.

Each line of the fixtures is a Cookie header that a real consent manager wrote, or that its
documentation shows.
"""

import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from mp_asgi import StoredConsent
from mp_asgi.consent.policy import Default
from mp_asgi.readers import READERS
from tests.doors import (
    GPC,
    NAVIGATION,
    START,
    Answer,
    Browser,
    Headers,
    Request,
    Row,
    World,
    WorldClock,
    advance,
    deny,
    grant,
    look,
    read_consent,
    read_session_consent,
    track,
)
from tests.support import NOW

TESTS = Path(__file__).resolve().parent
MEASURED = TESTS / "fixtures" / "cmp_cookies.jsonl"
DOCUMENTED = TESTS.parent.parent / "shared" / "fixtures" / "cmp_cookies_documented.jsonl"

DAY = 86_400.0
SEEN = track("Seen")
GRANTED_BY_APP = (("x-mp-consent", "granted"),)
ARRIVAL = (*NAVIGATION, ("sec-fetch-site", "cross-site"))


@pytest.fixture(params=["asgi", "wsgi"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


# --- every line of the fixtures -------------------------------------------------------------------

_NAMES = {"vanilla-cookieconsent-v2": "vanilla-cookieconsent", "onetrust-gpp": "iab-gpp"}
_TOKENS = {
    "mixpanel-browser": re.compile("(?:^| )(?:mp_|__mp_opt_in_out_)([a-z0-9]+)"),
    "posthog-js": re.compile("(?:^| )ph_(phc_[A-Z]+)_posthog="),
}


def readers_of(row: Mapping[str, Any]) -> list[str]:
    """Answer the readers of a site that has the manager of this row."""
    manager = _NAMES.get(row["cmp"], row["cmp"])
    if manager == "osano":  # encrypted: nobody can read it, whoever is configured
        return [name for name in READERS if name != "react-cookie-consent"]
    options = []
    if (pattern := _TOKENS.get(manager)) and (token := pattern.search(row["cookie_header"])):
        options.append(f"token={token[1]}")
    if cookie := row.get("config", {}).get("cookie_name"):
        options.append(f"cookie={cookie}")
    if "map them" in row.get("note", ""):
        options.append("purpose=purpose_analytics")
    return ["?".join(filter(None, (manager, "&".join(options))))]


def read_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def read_strings(name: str, key: str, cookie: str, manager: str) -> Iterator[dict[str, Any]]:
    """Answer the strings of the IAB's own libraries as rows."""
    for string in json.loads((TESTS / "fixtures" / name).read_text())["strings"]:
        yield {
            "cmp": manager,
            "scenario": string["name"],
            "cookie_header": f"{cookie}={string[key]}",
            "expected_analytics": string["exp"],
        }


def find_cases() -> Iterator[Any]:
    rows = read_rows(MEASURED)
    rows += read_strings("tc_strings.json", "tc", "euconsent-v2", "iab-tcf")
    rows += read_strings("gpp_strings.json", "gpp", "__gpp", "iab-gpp")
    if DOCUMENTED.exists():
        rows += read_rows(DOCUMENTED)
    for row in rows:
        words = (row["cmp"], row.get("version", "string"), row["scenario"])
        yield pytest.param(row, id="-".join(words).replace(" ", "-"))
    if not DOCUMENTED.exists():
        missing = pytest.mark.skip(reason="the documented headers are not on this machine")
        yield pytest.param({}, id="documented", marks=missing)


EVERY_ROW = pytest.mark.parametrize("row", list(find_cases()))


def headers_of(row: Mapping[str, Any]) -> Headers:
    given = [(name.lower(), value) for name, value in row.get("headers", {}).items()]
    return [*given, ("cookie", row["cookie_header"])] if row["cookie_header"] else given


@EVERY_ROW
def test_what_a_managers_cookie_says_decides_what_leaves(kind, row):
    with World(kind, consent_readers=readers_of(row)) as world:
        browser = world.browser()

        answer = browser.visit(read_consent(), SEEN, headers=headers_of(row))

        state, expected = answer.notes[0][0], row["expected_analytics"]
        assert state == expected
        if expected == "granted":
            assert answer.cookie_names == ["__Host-mp_id"]
            assert world.rows() == [Row("Seen", browser.device_id, None)]
        else:
            assert answer.cookies == []
            assert world.rows() == []
            assert world.standin.requests == []


@EVERY_ROW
def test_an_id_from_before_is_used_only_under_a_grant(kind, row):
    with World(kind, consent_readers=readers_of(row)) as world:
        browser = world.browser()
        browser.visit(look(), headers=GRANTED_BY_APP)
        before = browser.device_id

        answer = browser.visit(look(), SEEN, headers=headers_of(row))

        is_granted = row["expected_analytics"] == "granted"
        assert answer.notes[0][0] == (before if is_granted else None)
        assert world.rows() == [Row("Seen", before, None)] * is_granted
        if row["expected_analytics"] == "denied":
            assert browser.device_id is None


# --- managers whose cookies the tests write ---------------------------------------------------------


def cookieyes(answer: str) -> tuple[str, str]:
    """Be CookieYes, which is SameSite=Strict and tells no time; `answer` is yes, no or empty."""
    action = "yes" if answer else ""
    return ("cookie", f"cookieyes-consent=consentid:x,action:{action},analytics:{answer or 'no'}")


def klaro(*, is_granted: bool) -> tuple[str, str]:
    """Be Klaro, which tells no time."""
    return ("cookie", f"klaro=%7B%22mixpanel%22%3A{'true' if is_granted else 'false'}%7D")


def onetrust(*, is_granted: bool, at: float, awaits: bool = False) -> tuple[str, str]:
    """Be OneTrust, which tells the time to the millisecond."""
    closed = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
    groups = f"groups=C0001%3A1%2CC0002%3A{int(is_granted)}&AwaitingReconsent={str(awaits).lower()}"
    return ("cookie", f"OptanonAlertBoxClosed={closed}; OptanonConsent={groups}")


YES, NO, ASKING = cookieyes("yes"), cookieyes("no"), cookieyes("")
STRICT = {"consent_readers": ["cookieyes"]}


@pytest.fixture
def world(kind: str) -> Iterator[World]:
    with World(kind, **STRICT) as world:
        yield world


def open_page(browser: Browser, *cookies: tuple[str, str]) -> Answer:
    """Open a page, from the site itself."""
    return browser.visit(read_consent(), SEEN, headers=(*NAVIGATION, *cookies))


def arrive(browser: Browser) -> Answer:
    """Follow a link of another site: SameSite=Strict cookies stay at home."""
    return browser.visit(read_consent(), SEEN, headers=ARRIVAL)


def said(answer: Answer) -> tuple[str, str]:
    """Answer state and reason."""
    state, reason, _ = answer.notes[0]
    return state, reason


def is_mirrored(browser: Browser) -> bool:
    return "__Host-mp_consent" in browser.jar


# --- RULES, journeys 15 and 16 ----------------------------------------------------------------------


def test_journey_15_the_mirror_decides_on_an_arrival_and_the_id_stays(world):
    browser = world.browser()
    open_page(browser, YES)
    a = browser.device_id

    answer = arrive(browser)

    assert said(answer) == ("granted", "cookie-granted")
    assert world.rows() == [Row("Seen", a, None)] * 2
    assert browser.device_id == a is not None


def test_journey_15_a_refusal_found_later_wins(world):
    browser = world.browser()
    open_page(browser, YES)
    a = browser.device_id
    world.flush()
    arrive(browser)  # its event waits when the refusal is found

    found = open_page(browser, NO)
    later = arrive(browser)

    assert said(found) == ("denied", "manager-denied")
    assert said(later) == ("denied", "cookie-denied")
    assert browser.device_id is None
    assert world.rows() == [Row("Seen", a, None)]


def test_journey_15_under_opt_out_a_refusal_holds_on_arrivals(kind):
    with World(kind, consent="opt-out", **STRICT) as world:
        browser = world.browser()
        open_page(browser, NO)

        answer = arrive(browser)

        assert said(answer) == ("denied", "cookie-denied")
        assert (browser.device_id, world.rows()) == (None, [])


def test_journey_15_without_a_mirror_an_arrival_sends_nothing_and_keeps_the_id(world):
    browser = world.browser()
    browser.visit(look(), headers=[YES])
    a = browser.device_id

    answer = arrive(browser)

    assert said(answer) == ("unknown", "no-choice")
    assert (answer.cookies, world.rows()) == ([], [])
    assert browser.device_id == a is not None


def test_journey_16_refusing_and_then_accepting_without_times_is_a_grant(kind):
    with World(kind, consent_readers=["klaro"]) as world:
        browser = world.browser()
        refused = open_page(browser, klaro(is_granted=False))

        accepted = open_page(browser, klaro(is_granted=True))
        later = arrive(browser)

        assert said(refused) == ("denied", "manager-denied")
        assert said(accepted) == ("granted", "manager-granted")
        assert said(later) == ("granted", "cookie-granted")
        assert world.rows() == [Row("Seen", browser.device_id, None)] * 2


# --- the mirror -------------------------------------------------------------------------------------


@pytest.mark.parametrize("cookie", [YES, NO], ids=["grant", "denial"])
@pytest.mark.parametrize(
    ("headers", "seconds", "is_written"),
    [
        pytest.param(NAVIGATION, 2, True, id="quick-navigation"),
        pytest.param(NAVIGATION, 2.001, False, id="slow-navigation"),
        pytest.param(
            (("sec-fetch-mode", "cors"), ("sec-fetch-dest", "empty")), 0, False, id="scripts-fetch"
        ),
        pytest.param(
            (("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe")), 0, False, id="frame"
        ),
        pytest.param((), 0, False, id="says-nothing"),
    ],
)
def test_a_mirror_is_written_on_a_quick_navigation_only(
    world, cookie, headers, seconds, is_written
):
    browser = world.browser()

    browser.visit(SEEN, advance(seconds), headers=(*headers, cookie))

    assert is_mirrored(browser) is is_written


def test_a_mirror_that_is_right_is_left_alone(world):
    browser = world.browser()
    open_page(browser, YES)

    answer = open_page(browser, YES)

    assert answer.cookies == []


@pytest.mark.parametrize(
    ("before", "after", "state"),
    [pytest.param(YES, NO, "denied", id="grant"), pytest.param(NO, YES, "granted", id="denial")],
)
def test_the_manager_that_is_there_rewrites_the_mirror(world, before, after, state):
    browser = world.browser()
    open_page(browser, before)

    open_page(browser, after)

    assert said(arrive(browser))[0] == state


@pytest.mark.parametrize("cookie", [YES, NO], ids=["grant", "denial"])
def test_a_manager_that_asks_anew_takes_the_mirror_away(world, cookie):
    browser = world.browser()
    open_page(browser, cookie)
    assert is_mirrored(browser)

    answer = open_page(browser, ASKING)

    assert said(answer) == ("unknown", "no-choice")
    assert not is_mirrored(browser)


def test_a_manager_that_waits_for_a_new_answer_takes_its_grant_from_the_mirror(kind):
    with World(kind, consent_readers=["onetrust"]) as world:
        browser = world.browser()
        open_page(browser, onetrust(is_granted=True, at=NOW - DAY))

        again = open_page(browser, onetrust(is_granted=True, at=NOW - DAY, awaits=True))
        later = arrive(browser)

        assert said(again) == ("unknown", "grant-expired")
        assert said(later) == ("unknown", "no-choice")
        assert len(world.rows()) == 1


def test_a_mirrored_denial_locks_nobody_out(world):
    browser = world.browser()
    open_page(browser, NO)

    browser.visit(grant())
    answer = arrive(browser)

    assert said(answer) == ("granted", "cookie-granted")
    assert world.rows() == [Row("Seen", browser.device_id, None)]


@pytest.mark.parametrize(
    ("cookie", "expected"),
    [
        pytest.param(YES, ("unknown", "no-choice"), id="a-grant-ends"),
        pytest.param(NO, ("denied", "cookie-denied"), id="a-denial-stays"),
    ],
)
def test_of_a_manager_that_was_given_up_only_a_denial_is_left(kind, world, cookie, expected):
    browser = world.browser()
    open_page(browser, cookie)

    with World(kind, consent_readers=["klaro"]) as browser.world:
        assert said(arrive(browser)) == expected


def test_a_denial_of_a_manager_that_was_given_up_yields_to_its_successor(kind, world):
    browser = world.browser()
    open_page(browser, NO)

    with World(kind, consent_readers=["klaro"]) as browser.world:
        answer = open_page(browser, klaro(is_granted=True))

        assert said(answer) == ("granted", "manager-granted")


def test_a_mirrors_grant_ends_after_180_days_and_keeps_the_id(world):
    browser = world.browser()
    open_page(browser, YES)
    a = browser.device_id
    world.clock.advance(180 * DAY + 1)

    answer = arrive(browser)

    assert answer.notes[0] == ("unknown", "grant-expired", True)
    assert browser.device_id == a is not None


def test_a_mirror_is_renewed_at_half_its_time(world):
    browser = world.browser()
    open_page(browser, YES)
    world.clock.advance(91 * DAY)
    open_page(browser, YES)
    world.clock.advance(91 * DAY)

    assert said(arrive(browser)) == ("granted", "cookie-granted")


# --- conflicts (reference/consent.md section 6 as RULES section 2 changes it) -------------------------

HOUR = 3_600.0
BOTH = {"consent_readers": ["onetrust", "klaro"]}
WITH_GPC = {"consent_readers": ["klaro"]}


def twice(*values: str) -> tuple[str, str]:
    return ("cookie", "; ".join(f"cookieconsent_status={value}" for value in values))


OSANO = {"consent_readers": ["osano-cookieconsent-oss"]}


@pytest.mark.parametrize(
    ("act", "app", "expected"),
    [
        pytest.param(grant(), False, ("denied", "app-denied"), id="a-denied-there-granted-here"),
        pytest.param(deny(), True, ("denied", "cookie-denied"), id="b-granted-there-denied-here"),
    ],
)
def test_the_record_of_a_user_and_a_device_agree_on_the_denial(kind, act, app, expected):
    with World(kind, consent_from=read_session_consent) as world:
        browser = world.browser()
        browser.visit(act)
        browser.session["consent"] = StoredConsent(app)

        answer = browser.visit(SEEN, START, read_consent())

        assert said(answer) == expected
        assert (browser.device_id, world.rows()) == (None, [])


@pytest.mark.parametrize(
    ("settings", "act", "headers", "expected"),
    [
        pytest.param(
            BOTH,
            deny(),
            [onetrust(is_granted=True, at=NOW + 1)],
            ("granted", "manager-granted"),
            id="c-manager-granted-after-our-denial",
        ),
        pytest.param(
            BOTH,
            deny(),
            [onetrust(is_granted=True, at=NOW)],
            ("denied", "cookie-denied"),
            id="c-a-tie-denies",
        ),
        pytest.param(
            BOTH,
            deny(),
            [onetrust(is_granted=True, at=NOW - 1)],
            ("denied", "cookie-denied"),
            id="c-manager-granted-before-our-denial",
        ),
        pytest.param(
            BOTH,
            deny(),
            [klaro(is_granted=True)],
            ("denied", "cookie-denied"),
            id="c-manager-granted-at-no-known-time",
        ),
        pytest.param(
            BOTH,
            grant(),
            [onetrust(is_granted=False, at=NOW - DAY)],
            ("denied", "manager-denied"),
            id="d-manager-denied-before-our-grant",
        ),
        pytest.param(
            BOTH,
            None,
            [onetrust(is_granted=True, at=NOW), klaro(is_granted=False)],
            ("denied", "manager-denied"),
            id="e-two-managers-disagree",
        ),
        pytest.param(
            OSANO, None, [twice("allow", "deny")], ("denied", "manager-denied"), id="f-yes-no"
        ),
        pytest.param(
            OSANO, None, [twice("deny", "allow")], ("denied", "manager-denied"), id="f-no-yes"
        ),
        pytest.param(
            OSANO,
            None,
            [twice("allow", "dismiss")],
            ("unknown", "manager-unreadable"),
            id="f-yes-and-nothing",
        ),
        pytest.param(
            OSANO,
            None,
            [twice("allow", "allow")],
            ("granted", "manager-granted"),
            id="f-yes-twice",
        ),
        pytest.param(
            WITH_GPC,
            None,
            [klaro(is_granted=True), *GPC],
            ("denied", "sec-gpc"),
            id="g-gpc-beats-a-manager",
        ),
    ],
)
def test_a_conflict_is_settled(kind, settings, act, headers, expected):
    with World(kind, **settings) as world:
        browser = world.browser()
        browser.visit(look(), headers=GRANTED_BY_APP)
        if act is not None:
            browser.visit(act)
        world.clock.advance(HOUR)

        answer = browser.visit(read_consent(), SEEN, headers=headers)

        assert said(answer) == expected
        assert len(world.rows()) == (expected[0] == "granted")
        assert (browser.device_id is None) is (expected[0] == "denied")


def test_g_without_gpc_an_anonymous_visitor_is_what_the_cookie_says(kind):
    with World(kind, **WITH_GPC) as world:
        browser = world.browser()
        objecting = open_page(browser, klaro(is_granted=True), *GPC)

        later = open_page(browser, klaro(is_granted=True))

        assert said(objecting) == ("denied", "sec-gpc")
        assert said(later) == ("granted", "manager-granted")
        assert world.rows() == [Row("Seen", browser.device_id, None)]


TODAY = 1_795_132_800.0  # the day on which the fixture's string was written: TCF knows no hour
TCF = ("cookie", "euconsent-v2=CQtAQoAQt-4cAAfKABENCOFgAIEAAAAAAAYgAAAAAAAA.YAAAAAAAAAAA")


@pytest.mark.parametrize(
    ("denied_at", "expected"),
    [
        pytest.param(TODAY - 1, ("granted", "manager-granted"), id="the-day-before"),
        pytest.param(TODAY, ("denied", "cookie-denied"), id="at-midnight"),
        pytest.param(TODAY + HOUR, ("denied", "cookie-denied"), id="that-day"),
    ],
)
def test_c_a_day_precise_grant_never_beats_a_denial_of_that_day(kind, denied_at, expected):
    clock = WorldClock()
    clock.now = clock.began = denied_at
    with World(kind, clock=clock, consent_readers=["iab-tcf"]) as world:
        browser = world.browser()
        browser.visit(deny())
        clock.advance(2 * HOUR)

        assert said(open_page(browser, TCF)) == expected


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        pytest.param(TODAY - DAY, ("granted", "manager-granted"), id="one-day-ahead"),
        pytest.param(TODAY - DAY - 1, ("unknown", "manager-unreadable"), id="further-ahead"),
        pytest.param(TODAY + 390 * DAY, ("granted", "manager-granted"), id="within-13-months"),
        pytest.param(TODAY + 400 * DAY, ("unknown", "grant-expired"), id="older"),
    ],
)
def test_a_tcf_grant_is_neither_from_the_future_nor_older_than_13_months(kind, now, expected):
    clock = WorldClock()
    clock.now = clock.began = now
    with World(kind, clock=clock, consent_readers=["iab-tcf"]) as world:
        answer = open_page(world.browser(), TCF)

        assert said(answer) == expected
        assert len(world.rows()) == (expected[0] == "granted")


@pytest.mark.parametrize(
    ("consent", "state"), [("opt-in", "unknown"), ("opt-out", "denied")], ids=["opt-in", "opt-out"]
)
def test_a_managers_cookie_that_cannot_be_read_is_never_a_grant(kind, consent, state):
    with World(kind, consent=consent, consent_readers=["klaro"]) as world:
        answer = open_page(world.browser(), ("cookie", "klaro=%7B%22mixpanel%22%3A"))

        assert said(answer) == (state, "manager-unreadable")
        assert (answer.cookies, world.rows()) == ([], [])


@pytest.mark.parametrize(
    ("given_at", "expected"),
    [
        pytest.param(NOW - DAY, ("granted", "manager-granted"), id="at-the-notices-time"),
        pytest.param(NOW - DAY - 1, ("unknown", "notice-changed"), id="older"),
    ],
)
def test_a_managers_grant_older_than_the_notice_is_asked_for_again(kind, given_at, expected):
    since = datetime.fromtimestamp(NOW - DAY, UTC).isoformat()
    settings = {"consent_version": f"v2@{since}", "consent_readers": ["onetrust"]}
    with World(kind, **settings) as world:
        answer = open_page(world.browser(), onetrust(is_granted=True, at=given_at))

        assert said(answer) == expected


# --- the region -------------------------------------------------------------------------------------

PROXY, STRANGER = "10.0.0.1", "203.0.113.7"
BY_COUNTRY = {"opt_out_countries": ["US"], "trusted_proxies": ["10.0.0.0/8"]}
OPT_OUT, OPT_IN = ("granted", "opt-out-default"), ("unknown", "no-choice")
FROM_US, FROM_DE = ("cf-ipcountry", "US"), ("cf-ipcountry", "DE")


def ask(world: World, *headers: tuple[str, str], client: str = PROXY) -> Answer:
    """Open a page from behind the proxy, or past it."""
    return world.serve(Request(headers=headers, client=client), [read_consent(), SEEN])


@pytest.mark.parametrize(
    ("headers", "client", "expected"),
    [
        pytest.param([FROM_US], PROXY, OPT_OUT, id="trusted-proxy"),
        pytest.param([("x-vercel-ip-country", "us")], PROXY, OPT_OUT, id="another-header-any-case"),
        pytest.param([FROM_US], STRANGER, OPT_IN, id="stranger"),
        pytest.param([FROM_DE], PROXY, OPT_IN, id="another-country"),
        pytest.param([], PROXY, OPT_IN, id="nobody-tells"),
        pytest.param([("cf-ipcountry", "XX")], PROXY, OPT_IN, id="nowhere"),
        pytest.param(
            [FROM_US, ("cloudfront-viewer-country", "US")], PROXY, OPT_OUT, id="two-that-agree"
        ),
        pytest.param(
            [FROM_US, ("cloudfront-viewer-country", "DE")], PROXY, OPT_IN, id="two-that-disagree"
        ),
        pytest.param([FROM_US, FROM_DE], PROXY, OPT_IN, id="one-that-was-sent-twice"),
        pytest.param([FROM_US, *GPC], PROXY, ("denied", "sec-gpc"), id="with-gpc"),
    ],
)
def test_a_trusted_country_decides_what_holds_without_a_choice(kind, headers, client, expected):
    with World(kind, **BY_COUNTRY) as world:
        answer = ask(world, *headers, client=client)

        assert said(answer) == expected
        assert len(world.rows()) == (expected == OPT_OUT)
        assert bool(answer.cookies) is (expected == OPT_OUT)


def test_the_countrys_header_may_have_another_name(kind):
    with World(kind, **BY_COUNTRY, country_headers=["X-Country"]) as world:
        assert said(ask(world, ("x-country", "US"))) == OPT_OUT
        assert said(ask(world, FROM_US)) == OPT_IN


def test_a_visitor_who_moves_is_under_the_other_law(kind):
    with World(kind, **BY_COUNTRY) as world:
        answer = ask(world, FROM_US)
        cookie = ("cookie", answer.cookies[0].partition(";")[0])
        assert said(ask(world, FROM_US, cookie)) == OPT_OUT

        moved = ask(world, FROM_DE, cookie)

        assert said(moved) == OPT_IN
        assert len(world.rows()) == 2


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        pytest.param("opt-in", OPT_IN, id="opt-in"),
        pytest.param("opt-out", OPT_OUT, id="opt-out"),
        pytest.param("deny", ("denied", "policy-denied"), id="deny"),
        pytest.param("minor", OPT_IN, id="minor"),
        pytest.param("cookieless", OPT_IN, id="cookieless-where-it-is-off"),
        pytest.param(Default.OPT_OUT, OPT_OUT, id="by-member"),
        pytest.param("OPT-OUT", OPT_IN, id="no-word-of-ours"),
        pytest.param(True, OPT_IN, id="no-word-at-all"),
        pytest.param(None, OPT_IN, id="nothing"),
        pytest.param(["opt-out"], OPT_IN, id="a-list"),
    ],
)
def test_an_apps_policy_says_what_holds_without_a_choice(kind, answer, expected):
    with World(kind, policy=lambda head: answer) as world:
        assert said(ask(world)) == expected
        assert len(world.rows()) == (expected == OPT_OUT)


def test_an_apps_policy_may_read_any_header(kind):
    def by_region(head):
        return "opt-out" if head.header(b"x-our-region") == b"elsewhere" else "opt-in"

    with World(kind, policy=by_region) as world:
        assert said(ask(world, ("x-our-region", "elsewhere"))) == OPT_OUT
        assert said(ask(world)) == OPT_IN


def test_an_apps_policy_that_fails_is_opt_in_and_counted(kind):
    def fail(head):
        raise RuntimeError(head)

    with World(kind, policy=fail) as world:
        assert said(ask(world)) == OPT_IN
        assert (world.rows(), world.stats().other) == ([], {"policy_failed": 1})


def test_where_the_policy_denies_an_id_is_deleted_and_a_choice_still_counts(kind):
    laws = ["opt-out"]
    with World(kind, policy=lambda head: laws[0]) as world:
        browser = world.browser()
        browser.visit(SEEN)
        world.flush()
        laws[0] = "deny"

        browser.visit(SEEN)
        assert browser.device_id is None

        browser.visit(grant())
        browser.visit(SEEN)
        assert browser.device_id is not None
        assert len(world.rows()) == 2


def test_a_minor_may_only_be_asked(kind):
    with World(kind, policy=lambda head: "minor") as world:
        browser = world.browser()
        assert said(open_page(browser)) == OPT_IN

        browser.visit(grant())

        assert said(open_page(browser)) == ("granted", "cookie-granted")
