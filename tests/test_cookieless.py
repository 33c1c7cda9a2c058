"""Visitors who are only counted, by a hash that changes every day: never against a word of theirs.

The first part asks `DailyVisitors` alone; the second goes through both doors.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mp_asgi.cookieless import DailyVisitors
from mp_asgi.events import ActState
from mp_asgi.head import HeadReader, RequestHead, TrustedProxies
from mp_asgi.identity import IdentityMode
from tests.doors import (
    GPC,
    NAVIGATION,
    START,
    Act,
    Answer,
    Browser,
    Randomness,
    Request,
    World,
    advance,
    deny,
    grant,
    identify,
    look,
    read_consent,
    read_session_consent,
    read_session_user,
    reset,
    set_group,
    set_person,
    track,
    update_group,
)
from tests.support import NOW, make_act

DAY = 86_400.0
PROXY = "10.0.0.1"
LEDGER_KEY = "l" * 32
TODAY = NOW - NOW % DAY


# --- who a visitor is today ---------------------------------------------------------------------


def make_head(client: str | None, *, agent: str | None = "Firefox", hops: str = "") -> RequestHead:
    headers = [(b"x-forwarded-for", hops.encode())] if hops else []
    if agent is not None:
        headers.append((b"user-agent", agent.encode()))
    reader = HeadReader("X-MP-Consent")
    return reader.read_asgi(NOW, "https", None if client is None else (client, 443), headers)


def make_daily(site: str = "t0ken", *, proxies: tuple[str, ...] = (), seed: str = "") -> Any:
    """Answer a function from a head, and a time, to the ID."""
    daily = DailyVisitors(site, TrustedProxies(proxies), Randomness(seed))
    return lambda head, now=NOW: daily.visitor(head, now).device_id


def test_the_visitor_of_a_day_is_a_device_without_a_user():
    daily = DailyVisitors("t0ken", TrustedProxies(()), Randomness(""))

    visitor = daily.visitor(make_head("203.0.113.7"), NOW)

    assert (visitor.user_id, visitor.owner_mark) == (None, b"")
    assert visitor.issued == TODAY
    assert visitor.distinct_id(IdentityMode.SIMPLIFIED) == f"$device:{visitor.device_id}"


@pytest.mark.parametrize(
    "moment", [pytest.param(TODAY, id="midnight"), pytest.param(TODAY + DAY - 0.001, id="evening")]
)
def test_a_visitor_is_the_same_all_day(moment):
    find = make_daily()
    head = make_head("203.0.113.7")

    assert find(head, moment) == find(head, NOW)


def test_a_day_that_is_over_can_never_be_told_again():
    find = make_daily()
    head = make_head("203.0.113.7")

    ids = [find(head, now) for now in (TODAY, TODAY + DAY, TODAY)]

    assert len(set(ids)) == 3


def test_no_salt_of_before_is_kept():
    daily = DailyVisitors("t0ken", TrustedProxies(()), Randomness(""))
    head = make_head("203.0.113.7")
    daily.visitor(head, NOW)
    salt = daily._salt

    daily.visitor(head, NOW + DAY)

    assert len(salt) == 32
    assert salt not in [getattr(daily, name) for name in DailyVisitors.__slots__]


def test_another_process_counts_apart():
    head = make_head("203.0.113.7")

    assert make_daily(seed="first")(head) != make_daily(seed="second")(head)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param("203.0.113.0", "203.0.113.255", id="24-bits"),
        pytest.param("2001:db8:1::", "2001:db8:1:ffff:ffff:ffff:ffff:ffff", id="48-bits"),
        pytest.param("203.0.113.7", "::ffff:203.0.113.200", id="ipv4-mapped"),
        pytest.param("", "unix:/run/app.sock", id="no-address"),
        pytest.param(None, "testclient", id="no-client"),
    ],
)
def test_a_network_is_one_visitor(one, other):
    find = make_daily()

    assert find(make_head(one)) == find(make_head(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param("203.0.113.7", "203.0.112.7", id="the-24th-bit"),
        pytest.param("2001:db8:1::7", "2001:db8:0::7", id="the-48th-bit"),
        pytest.param("::ffff:203.0.113.7", "::ffff:203.0.112.7", id="ipv4-mapped"),
        pytest.param("0.0.0.0", "testclient", id="an-address-and-none"),
        pytest.param("0.0.0.0", "::", id="two-versions"),
    ],
)
def test_two_networks_are_two_visitors(one, other):
    find = make_daily()

    assert find(make_head(one)) != find(make_head(other))


def test_another_user_agent_is_another_visitor():
    find = make_daily()
    agents = ["Firefox", "Chrome", None]

    assert len({find(make_head("203.0.113.7", agent=agent)) for agent in agents}) == 3


def test_another_site_has_another_visitor():
    head = make_head("203.0.113.7")

    assert make_daily("t0ken")(head) != make_daily("another")(head)


@pytest.mark.parametrize(
    ("client", "hops", "expected"),
    [
        pytest.param(PROXY, "198.51.100.7", "198.51.100.9", id="behind-a-proxy"),
        pytest.param(PROXY, "203.0.113.7, 198.51.100.7", "198.51.100.9", id="from-the-right"),
        pytest.param(PROXY, "198.51.100.7, 10.9.9.9", "198.51.100.9", id="behind-two-proxies"),
        pytest.param("198.51.100.7", "203.0.113.7", "198.51.100.9", id="from-outside"),
    ],
)
def test_only_a_trusted_proxy_tells_the_address(client, hops, expected):
    find = make_daily(proxies=("10.0.0.0/8",))

    assert find(make_head(client, hops=hops)) == find(make_head(expected))


# --- through both doors -------------------------------------------------------------------------

Open = Callable[..., World]


def count_daily(head: RequestHead) -> str:
    """Be a policy."""
    return "cookieless"


@pytest.fixture(params=["asgi", "wsgi-validated"])
def open_world(request: pytest.FixtureRequest) -> Iterator[Open]:
    """Open worlds behind one door whose policy counts visitors who have not chosen."""
    worlds: list[World] = []

    def open_one(**settings: Any) -> World:
        given = {"policy": count_daily, "cookieless": "daily", **settings}
        worlds.append(World(request.param, **given))
        return worlds[-1]

    yield open_one
    for world in worlds:
        world.__exit__()


def send_cookie(world: World, cookie: str, *script: Act) -> Answer:
    """Make a request with this Cookie header."""
    return world.serve(Request(headers=(("cookie", cookie),)), script)


def find_daily_id(world: World) -> str:
    """Answer the ID by which a plain request is counted now."""
    Browser(world).visit(track("Probe"))
    [row] = [row for row in world.rows() if row.name == "Probe"]
    assert row.device is not None
    return row.device


def forget_choice(browser: Browser) -> None:
    """Be a browser that kept the ID cookie and lost the choice."""
    del browser.jar[f"__Host-{browser.world.settings.consent_cookie}"]


def kinds(world: World) -> dict[str, str]:
    """Answer the kind of consent of every event that arrived, by its name."""
    world.flush()
    return {
        event["event"]: event["properties"].get("$mp_asgi_consent", "")
        for event in world.standin.events
    }


def test_who_has_not_chosen_is_counted_without_a_cookie(open_world):
    world = open_world()

    answer = world.browser().visit(track("Seen", plan="pro"), read_consent(), headers=NAVIGATION)

    [row] = world.rows()
    [event] = world.standin.events
    assert row.user is None
    assert len(row.device) == 32
    assert event["properties"]["$mp_asgi_consent"] == "cookieless"
    assert event["properties"]["ip"] == 0
    assert event["properties"]["plan"] == "pro"
    assert answer.notes == [("granted", "cookieless", True)]
    assert answer.cookies == []


def test_a_visitor_is_counted_once_a_day(open_world):
    world = open_world()
    browser = world.browser()
    browser.visit(track("Seen"))
    browser.visit(track("Seen"), track("Seen"))
    world.clock.advance(DAY)
    browser.visit(track("Seen"))

    devices = [row.device for row in world.rows()]

    assert devices[:3] == [devices[0]] * 3
    assert devices[3] != devices[0]


def test_two_browsers_are_two_visitors(open_world):
    world = open_world()
    for agent in ("Firefox", "Chrome"):
        world.browser().visit(track("Seen"), headers=(("user-agent", agent),))

    assert len({row.device for row in world.rows()}) == 2


@pytest.mark.parametrize(
    ("client", "hops"),
    [
        pytest.param(PROXY, "198.51.100.7", id="behind-a-proxy"),
        pytest.param(PROXY, "203.0.113.7, 198.51.100.7", id="from-the-right"),
        pytest.param("198.51.100.7", "203.0.113.7", id="from-outside"),
    ],
)
def test_a_visitor_behind_a_proxy_is_the_visitor(open_world, client, hops):
    world = open_world(trusted_proxies=("10.0.0.0/8",))
    world.serve(Request(client="198.51.100.9"), [track("Direct")])

    world.serve(Request(client=client, headers=(("x-forwarded-for", hops),)), [track("Forwarded")])

    first, second = world.rows()
    assert first.device == second.device


@pytest.mark.parametrize(
    ("headers", "settings", "reason"),
    [
        pytest.param((("cookie", "mp_choice=denied"),), {}, "script-denied", id="script-cookie"),
        pytest.param((("x-mp-consent", "denied"),), {}, "header-denied", id="header"),
        pytest.param(
            (("cookie", "cmplz_statistics=deny"),),
            {"consent_readers": ("complianz",)},
            "manager-denied",
            id="manager",
        ),
        pytest.param(GPC, {}, "sec-gpc", id="gpc"),
        pytest.param((("dnt", "1"),), {"honor_dnt": True}, "dnt", id="dnt"),
    ],
)
def test_who_has_said_no_is_not_counted(open_world, headers, settings, reason):
    world = open_world(**settings)

    answer = world.serve(Request(headers=headers), [track("Seen"), read_consent()])

    assert world.rows() == []
    assert answer.notes == [("denied", reason, False)]


def test_who_has_denied_before_is_not_counted(open_world):
    world = open_world()
    browser = world.browser()
    browser.visit(deny())
    world.clock.advance(DAY)

    answer = browser.visit(track("Seen"), read_consent())

    assert world.rows() == []
    assert answer.notes == [("denied", "cookie-denied", False)]


@pytest.mark.parametrize(
    "answer", [pytest.param(False, id="denied"), pytest.param(ValueError(), id="failed")]
)
def test_what_the_app_knows_late_takes_the_count_back(open_world, answer):
    world = open_world(consent_from=read_session_consent)
    browser = world.browser()
    browser.session["consent"] = answer

    browser.visit(track("Seen"), START, track("Streamed"))

    assert world.rows() == []
    assert sum(world.stats().refused.values()) == 2


def test_an_ignored_dnt_does_not_end_the_count(open_world):
    world = open_world(honor_dnt=False)

    world.serve(Request(headers=(("dnt", "1"),)), [track("Seen")])

    assert kinds(world) == {"Seen": "cookieless"}


@pytest.mark.parametrize(
    ("cookie", "settings"),
    [
        pytest.param("__Host-mp_consent=1.g.damaged", {}, id="own"),
        pytest.param("cmplz_statistics=perhaps", {"consent_readers": ("complianz",)}, id="manager"),
    ],
)
def test_an_unreadable_choice_may_be_a_no(open_world, cookie, settings):
    world = open_world(**settings)

    answer = send_cookie(world, cookie, track("Seen"), read_consent())

    assert world.rows() == []
    assert answer.notes[0][0] == "unknown"


def test_an_unreadable_header_may_be_a_no(open_world):
    world = open_world()

    world.serve(Request(headers=(("x-mp-consent", "perhaps"),)), [track("Seen")])

    assert world.rows() == []


def test_an_outdated_grant_is_asked_for_again_and_not_counted(open_world):
    world = open_world()
    browser = world.browser()
    browser.visit(grant())
    world.clock.advance(181 * DAY)

    answer = browser.visit(track("Seen"), read_consent(), headers=NAVIGATION)

    assert world.rows() == []
    assert answer.notes == [("unknown", "grant-expired", True)]


@pytest.mark.parametrize(
    ("settings", "state"),
    [
        pytest.param({"policy": lambda head: "minor"}, "unknown", id="minor"),
        pytest.param({"policy": lambda head: "opt-in"}, "unknown", id="opt-in"),
        pytest.param({"policy": lambda head: "deny"}, "denied", id="deny"),
        pytest.param({"cookieless": "off"}, "unknown", id="switched-off"),
    ],
)
def test_nobody_is_counted_where_it_is_not_allowed(open_world, settings, state):
    world = open_world(**settings)

    answer = world.browser().visit(track("Seen"), read_consent(), look())

    assert world.rows() == []
    assert answer.notes[0][0] == state
    assert answer.notes[1] == (None, None, None)


def test_an_opt_out_default_is_no_count(open_world):
    world = open_world(policy=lambda head: "opt-out")
    browser = world.browser()

    browser.visit(track("Seen"))

    [row] = world.rows()
    assert kinds(world) == {"Seen": "opt-out-default"}
    assert row.device == browser.device_id


@pytest.mark.parametrize("identity", ["simplified", "original"])
def test_a_counted_visitor_has_no_user_and_no_profile(open_world, identity):
    world = open_world(identity=identity)

    answer = world.browser().visit(
        identify("U1"),
        track("Seen"),
        set_person(plan="pro"),
        set_group("company", "acme"),
        update_group("company", "acme", size=5),
        look(),
    )

    [row] = world.rows()
    assert (row.name, row.user) == ("Seen", None)
    assert (world.standin.people, world.standin.groups) == ([], [])
    assert world.stats().refused == {"cookieless": 3}
    assert answer.notes == [(None, None, None)]
    assert answer.cookies == []


@pytest.mark.parametrize("has_ledger", [False, True], ids=["alone", "with-a-ledger"])
def test_the_apps_user_is_not_filled_in(open_world, has_ledger, tmp_path):
    ledger = {"ledger": f"sqlite:///{tmp_path / 'ledger.db'}", "ledger_keys": (LEDGER_KEY,)}
    world = open_world(identify_from=read_session_user, **(ledger if has_ledger else {}))
    browser = world.browser()
    browser.session["user"] = "U1"

    answer = browser.visit(track("Seen"), START, track("Streamed"))

    # The ledger cannot be asked about who is only counted, and it may know of a refusal.
    expected = set() if has_ledger else {(find_daily_id(world), None)}
    assert {(row.device, row.user) for row in world.rows() if row.name != "Probe"} == expected
    assert answer.cookies == []
    assert answer.error is None


@pytest.mark.parametrize(
    "script",
    [
        pytest.param([], id="only-tracked"),
        pytest.param([identify("U1")], id="identified"),
        pytest.param([reset()], id="reset"),
        pytest.param([reset(new_device=True)], id="reset-the-device"),
    ],
)
def test_an_id_cookie_is_neither_used_nor_deleted_nor_told(open_world, script):
    world = open_world()
    browser = world.browser()
    browser.visit(grant())
    known = browser.device_id
    forget_choice(browser)

    answer = browser.visit(*script, track("Seen"), look(), headers=NAVIGATION)

    assert [(row.device, row.user) for row in world.rows()] == [(find_daily_id(world), None)]
    assert answer.notes == [(None, None, None)]
    assert answer.cookies == []
    assert browser.device_id == known


def test_an_id_cookie_serves_again_after_a_grant(open_world):
    world = open_world()
    browser = world.browser()
    browser.visit(grant())
    known = browser.device_id
    forget_choice(browser)

    browser.visit(track("Counted"), grant(), track("Known"))

    counted, granted = world.rows()
    assert counted.device == find_daily_id(world)
    assert granted.device == known


@pytest.mark.parametrize("identity", ["simplified", "original"])
def test_a_grant_begins_anew_and_names_nothing_of_before(open_world, identity):
    world = open_world(identity=identity)
    browser = world.browser()

    browser.visit(identify("U1"), track("Counted"), set_person(plan="pro"), grant(), track("Known"))

    rows = {row.name: row for row in world.rows()}
    assert rows["Counted"] == ("Counted", find_daily_id(world), None)
    assert rows["Known"] == ("Known", browser.device_id, "U1")
    assert {row.device for row in rows.values()} == {rows["Counted"].device, browser.device_id}
    assert world.standin.people == []
    assert kinds(world)["Counted"] == "cookieless"
    assert kinds(world)["Known"] == "explicit"


def test_a_grant_that_the_app_knows_late_names_nothing_of_before(open_world):
    world = open_world(consent_from=read_session_consent, identify_from=read_session_user)
    browser = world.browser()
    browser.session.update(consent=True, user="U1")

    browser.visit(track("Counted"), START, track("Known"))

    rows = {row.name: row for row in world.rows()}
    assert rows["Counted"].user is None
    assert len(rows["Counted"].device) == 32
    assert rows["Known"].device != rows["Counted"].device
    assert kinds(world) == {"Counted": "cookieless", "Known": "explicit"}


def test_a_denial_takes_back_what_this_request_counted(open_world):
    world = open_world()

    answer = world.browser().visit(track("Seen"), deny(), track("Later"), read_consent())

    assert world.rows() == []
    assert answer.notes == [("denied", "denied-now", False)]
    assert world.stats().refused == {"denied-now": 2}


def test_a_denial_after_a_grant_takes_both_back(open_world):
    world = open_world()
    browser = world.browser()

    browser.visit(track("Counted"), grant(), track("Known"), deny())

    assert world.rows() == []
    assert browser.device_id is None


@pytest.mark.parametrize(
    "script",
    [
        pytest.param([deny()], id="at-once"),
        pytest.param([track("Seen"), deny()], id="after-an-event"),
        pytest.param([START, track("Streamed"), deny()], id="while-the-body-streams"),
    ],
)
def test_a_denial_forgets_what_waits_of_that_day(open_world, script):
    world = open_world()
    browser = world.browser()
    browser.visit(track("Earlier"))

    browser.visit(*script)

    assert world.rows() == []


def test_a_denial_does_not_end_the_count_of_a_network(open_world):
    world = open_world()
    world.browser().visit(deny())
    world.clock.advance(1)
    neighbour = world.browser()

    neighbour.visit(track("Seen"))
    neighbour.visit(track("Slow"), advance(5), track("Seen Again"))

    assert kinds(world) == dict.fromkeys(("Seen", "Slow", "Seen Again"), "cookieless")


def test_a_denial_spares_what_waits_of_others(open_world):
    world = open_world()
    world.serve(Request(client="198.51.100.7"), [track("Elsewhere")])

    world.browser().visit(deny())

    assert [row.name for row in world.rows()] == ["Elsewhere"]


def test_a_failing_policy_counts_nobody(open_world):
    def fail(head: RequestHead) -> str:
        raise KeyError(head)

    world = open_world(policy=fail)

    world.browser().visit(track("Seen"))

    assert world.rows() == []


@pytest.mark.parametrize(
    ("script", "headers"),
    [
        pytest.param([track("Objected")], GPC, id="gpc"),
        pytest.param([deny()], GPC, id="deny-under-gpc"),
        pytest.param([track("Refused")], (("x-mp-consent", "denied"),), id="header"),
        pytest.param([grant(), deny()], (), id="grant-and-deny"),
    ],
)
def test_any_denial_forgets_what_waits_of_that_day(open_world, script, headers):
    world = open_world()
    browser = world.browser()
    browser.visit(track("Earlier"))

    browser.visit(*script, headers=headers)

    assert world.rows() == []


def test_a_later_denial_forgets_what_was_counted_before_the_grant(open_world):
    world = open_world()
    browser = world.browser()
    browser.visit(track("Earlier"))
    browser.visit(grant())

    browser.visit(deny())

    assert world.rows() == []


def test_who_logs_out_of_a_granted_account_is_only_counted_again(open_world, tmp_path):
    ledger = {"ledger": f"sqlite:///{tmp_path / 'ledger.db'}", "ledger_keys": (LEDGER_KEY,)}
    world = open_world(consent_scope="account", **ledger)
    core = world.analytics.core
    granted = make_act(ActState.GRANTED, key=core.keys.user_key("U1")).standing()
    core.accounts.learn({core.keys.user_key("U1"): granted})
    browser = world.browser()

    browser.visit(track("Counted"), identify("U1"), track("Known"), reset(), track("After Reset"))

    rows = {row.name: row for row in world.rows()}
    assert [rows[name].user for name in ("Counted", "Known", "After Reset")] == [None, "U1", None]
    assert rows["Counted"].device == rows["After Reset"].device != rows["Known"].device
    assert kinds(world) == {
        "Counted": "cookieless",
        "Known": "explicit",
        "After Reset": "cookieless",
    }
    assert browser.device_id is None
