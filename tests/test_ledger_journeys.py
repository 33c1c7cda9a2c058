"""Journeys of people with several devices, through both doors, as one ledger makes them known.

Each world is a process: it has a cache of its own, and shares nothing but the ledger.
"""

import multiprocessing
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mp_asgi.accounts import FRESH_SECONDS
from mp_asgi.delivery.lanes import MAX_DELAY_SECONDS
from mp_asgi.dev import StandIn
from mp_asgi.events import ActState, Notice, Standing
from tests.doors import (
    END,
    GPC,
    START,
    Browser,
    Row,
    World,
    deny,
    grant,
    identify,
    login,
    logout,
    look,
    read_consent,
    read_session_user,
    reset,
    track,
    wait_until,
)
from tests.ledger.acts import run_sql
from tests.ledger.servers import find_postgresql, run_postgresql
from tests.phone import LEDGER_KEY, withdraw_on_the_phone
from tests.support import TIMEOUT

Open = Callable[..., World]


@pytest.fixture
def ledger_url(tmp_path) -> str:
    return f"sqlite:///{tmp_path / 'ledger.db'}"


@pytest.fixture(params=["identify", "identify_from"])
def source(request) -> dict[str, Any]:
    """Answer the settings that say where the middleware learns the user from."""
    return {"identify_from": read_session_user} if request.param == "identify_from" else {}


@pytest.fixture(params=["asgi", "wsgi-validated"])
def open_world(request, ledger_url) -> Iterator[Open]:
    """Open processes behind one door, in front of one Mixpanel, over one ledger."""
    standin = StandIn("t0ken")
    worlds: list[World] = []

    def open_one(**settings: Any) -> World:
        clock = worlds[0].clock if worlds else None
        ledger = {"ledger": ledger_url, "ledger_keys": (LEDGER_KEY,)}
        seed = str(len(worlds))
        worlds.append(
            World(request.param, standin=standin, clock=clock, seed=seed, **ledger, **settings)
        )
        return worlds[-1]

    yield open_one
    for world in worlds:
        world.__exit__()


class Pair:
    """A laptop and a phone, each served by a process of its own, and the user U1."""

    def __init__(self, open_world: Open, **settings: Any) -> None:
        self.home, self.away = open_world(**settings), open_world(**settings)
        self.laptop, self.phone = self.home.browser(), self.away.browser()

    def consent(self) -> None:
        """Grant on both devices, as nobody yet."""
        self.laptop.visit(grant())
        self.phone.visit(grant())
        self.pass_time()

    def withdraw(self) -> None:
        """Deny on the phone while logged in there."""
        self.phone.visit(login("U1"), deny())
        self.pass_time()

    def pass_time(self) -> None:
        """Let a second pass, and what was chosen be recorded."""
        for world in (self.home, self.away):
            world.analytics._worker._home.recorder.settle()
        self.home.clock.advance(1)

    def stand(self) -> Standing | None:
        """Answer where U1 stands."""
        key = self.home.analytics.core.keys.user_key("U1")
        return self.home.analytics.ledger.current(key)


@pytest.fixture
def pair(open_world, source) -> Pair:
    return Pair(open_world, **source)


@pytest.fixture
def shared(open_world, source) -> Pair:
    """Answer a pair whose notice speaks for the account."""
    return Pair(open_world, consent_scope="account", **source)


def catch_up(browser: Browser) -> None:
    """Let the browser's process hear of U1: a visit asks, and the answer comes behind it."""
    world = browser.world
    world.clock.advance(FRESH_SECONDS + 1)
    browser.visit(login("U1"), look())
    core, ledger = world.analytics.core, world.analytics.ledger
    key = core.keys.user_key("U1")
    wait_until(lambda: core.accounts.get(key) == ledger.current(key))


# --- withdrawals ----------------------------------------------------------------------------------


def test_journey_12_a_withdrawal_on_the_phone_stops_what_waits_on_the_laptop(pair):
    pair.consent()
    pair.laptop.visit(login("U1"), track("Waiting"))
    cookies = pair.laptop.snapshot()

    pair.withdraw()

    assert pair.home.rows() == []
    assert pair.home.stats().dropped == {"withdrawn": 1}
    assert pair.laptop.jar == cookies


def test_journey_12_what_the_laptop_did_as_nobody_still_leaves(pair):
    pair.consent()
    device = pair.laptop.device_id
    pair.laptop.visit(track("As nobody"))
    pair.laptop.visit(login("U1"), track("As U1"))

    pair.withdraw()

    assert pair.home.rows() == [Row("As nobody", device, None)]


def test_journey_12_once_it_is_known_the_laptop_tracks_nothing_and_keeps_its_cookies(pair):
    pair.consent()
    pair.laptop.visit(login("U1"))
    pair.withdraw()
    catch_up(pair.laptop)
    cookies = pair.laptop.snapshot()

    answer = pair.laptop.visit(login("U1"), track("Seen"))

    assert (answer.cookies, pair.laptop.jar) == ([], cookies)
    assert pair.home.rows() == []
    assert pair.home.stats().refused == {"account-denied": 1}


def test_journey_12_a_logout_gives_the_laptop_its_own_answer_back_for_good(pair):
    pair.consent()
    pair.laptop.visit(login("U1"))
    pair.withdraw()
    catch_up(pair.laptop)

    pair.laptop.visit(logout())
    pair.laptop.visit(track("As nobody"))

    [row] = pair.home.rows()
    assert row == Row("As nobody", pair.laptop.device_id, None)


def test_another_user_of_the_laptop_is_not_concerned(pair):
    pair.consent()
    pair.laptop.visit(login("U1"))
    pair.withdraw()
    catch_up(pair.laptop)

    pair.laptop.visit(login("U2"), track("Seen"))

    [row] = pair.home.rows()
    assert row == Row("Seen", pair.laptop.device_id, "U2")


def test_journey_11_between_a_withdrawal_and_a_grant_nothing_arrives(pair):
    pair.consent()
    a = pair.laptop.device_id
    pair.laptop.visit(login("U1"), track("Before"))
    pair.home.clock.advance(1)
    pair.laptop.visit(login("U1"), deny())
    pair.laptop.visit(login("U1"), track("Between"))
    pair.pass_time()

    pair.laptop.visit(login("U1"), grant(), track("After"))
    b = pair.laptop.device_id

    assert a != b
    assert pair.home.rows() == [Row("After", b, "U1")]


def test_what_a_process_tracked_before_it_knew_never_arrives_after_a_new_grant(pair):
    pair.consent()
    pair.withdraw()
    pair.laptop.visit(login("U1"), track("Between"))
    pair.pass_time()

    pair.phone.visit(login("U1"), grant())
    pair.pass_time()
    catch_up(pair.laptop)
    pair.laptop.visit(login("U1"), track("After"))

    assert [row.name for row in pair.home.rows()] == ["After"]
    assert pair.home.stats().dropped == {"withdrawn": 1}


@pytest.mark.parametrize("script", [(login("U1"), deny()), (deny(), login("U1"))])
def test_a_denial_in_the_request_of_a_login_goes_to_the_account_in_any_order(pair, script):
    pair.phone.visit(*script)
    pair.pass_time()

    assert pair.stand().state is ActState.DENIED
    assert pair.stand().source == "own"


def test_the_ledger_hears_of_every_denial_even_if_this_process_remembers_an_older_one(pair):
    pair.consent()
    pair.withdraw()
    tablet = pair.away.browser()
    tablet.visit(grant())
    pair.laptop.visit(login("U1"), grant())
    pair.pass_time()

    tablet.visit(login("U1"), deny())
    pair.pass_time()

    assert pair.stand().state is ActState.DENIED


# --- grants ---------------------------------------------------------------------------------------


def test_a_grant_of_a_device_lifts_what_the_account_denied(pair):
    pair.consent()
    pair.withdraw()

    pair.laptop.visit(login("U1"), grant(), track("Seen"))
    pair.pass_time()

    assert pair.stand().state is ActState.LIFTED
    assert pair.home.rows() == [Row("Seen", pair.laptop.device_id, "U1")]


def test_a_grant_of_a_device_grants_no_other(pair):
    pair.withdraw()
    pair.laptop.visit(login("U1"), grant())
    pair.pass_time()
    tablet = pair.home.browser()
    catch_up(tablet)

    answer = tablet.visit(login("U1"), track("Seen"))

    assert answer.cookies == []
    assert pair.home.rows() == []


def test_under_account_scope_a_grant_on_the_phone_grants_the_laptop(shared):
    shared.phone.visit(login("U1"), grant())
    shared.pass_time()
    catch_up(shared.laptop)

    shared.laptop.visit(login("U1"), track("Seen"))

    assert shared.home.rows() == [Row("Seen", shared.laptop.device_id, "U1")]


def test_under_account_scope_a_denial_on_the_phone_denies_the_laptop(shared):
    shared.phone.visit(login("U1"), grant())
    shared.pass_time()
    catch_up(shared.laptop)
    shared.laptop.visit(login("U1"), track("Waiting"))
    shared.withdraw()
    catch_up(shared.laptop)

    shared.laptop.visit(login("U1"), track("Seen"))

    assert shared.home.rows() == []
    assert shared.home.stats().dropped == {"withdrawn": 1}


def test_under_account_scope_a_logout_ends_what_the_account_granted(shared):
    shared.phone.visit(login("U1"), grant())
    shared.pass_time()
    catch_up(shared.laptop)
    shared.laptop.visit(login("U1"), track("Seen"))

    shared.laptop.visit(logout())
    answer = shared.laptop.visit(track("As nobody"), read_consent())

    assert answer.notes == [("unknown", "no-choice", True)]
    assert [row.name for row in shared.home.rows()] == ["Seen"]


def test_under_device_scope_what_an_account_granted_earlier_grants_nothing(open_world, source):
    earlier = Pair(open_world, consent_scope="account", **source)
    earlier.phone.visit(login("U1"), grant())
    earlier.pass_time()
    later = Pair(open_world, **source)
    catch_up(later.laptop)

    later.laptop.visit(login("U1"), track("Seen"))

    assert later.home.rows() == []


@pytest.mark.parametrize("choice", [grant(), deny()], ids=["granted", "denied"])
@pytest.mark.parametrize("scope", ["device", "account"])
def test_a_login_copies_nothing(open_world, source, choice, scope):
    pair = Pair(open_world, consent_scope=scope, **source)
    pair.laptop.visit(choice)
    pair.pass_time()

    pair.laptop.visit(login("U1"), track("Seen"))
    pair.pass_time()

    assert pair.stand() is None


# --- what the browser objects to ------------------------------------------------------------------


def test_gpc_of_a_known_user_persists_until_an_explicit_grant(pair):
    pair.laptop.visit(grant())
    pair.pass_time()
    pair.laptop.visit(login("U1"), look(), headers=GPC)
    pair.pass_time()

    pair.laptop.visit(login("U1"), track("Without the signal"))
    pair.pass_time()
    stood = pair.stand()
    pair.laptop.visit(login("U1"), grant(), track("Granted"))
    pair.laptop.visit(login("U1"), track("And on"))
    pair.pass_time()

    assert (stood.state, stood.source) == (ActState.DENIED, "sec-gpc")
    assert pair.stand().state is ActState.LIFTED
    device = pair.laptop.device_id
    assert pair.home.rows() == [Row("Granted", device, "U1"), Row("And on", device, "U1")]


def test_gpc_on_one_device_of_a_known_user_rules_the_others(pair):
    pair.consent()
    pair.phone.visit(login("U1"), look(), headers=GPC)
    pair.pass_time()

    pair.laptop.visit(login("U1"), track("Seen"))

    assert pair.home.rows() == []


def test_gpc_of_nobody_is_nobodys(pair):
    pair.consent()

    pair.laptop.visit(track("Seen"), headers=GPC)
    pair.laptop.visit(login("U1"))
    pair.pass_time()

    assert pair.stand() is None


@pytest.mark.parametrize("has_objected", [True, False], ids=["told-before", "at-first"])
def test_a_grant_that_overrides_gpc_is_not_taken_back_by_another_browser(pair, has_objected):
    if has_objected:
        pair.laptop.visit(login("U1"), look(), headers=GPC)
        pair.pass_time()
    pair.laptop.visit(login("U1"), grant(override_gpc=True), headers=GPC)
    pair.pass_time()

    pair.phone.visit(login("U1"), look(), headers=GPC)
    pair.pass_time()
    pair.laptop.visit(login("U1"), track("Seen"), headers=GPC)

    assert not pair.stand().is_denied
    assert pair.home.rows() == [Row("Seen", pair.laptop.device_id, "U1")]


# --- what a request sees --------------------------------------------------------------------------


def test_a_request_waits_for_no_answer_and_a_miss_changes_nothing(open_world):
    pair = Pair(open_world)
    pair.consent()
    pair.withdraw()

    missed = pair.laptop.visit(login("U1"), read_consent())
    catch_up(pair.laptop)
    known = pair.laptop.visit(login("U1"), read_consent())

    assert missed.notes == [("granted", "cookie-granted", False)]
    assert known.notes == [("denied", "account-denied", False)]


def test_a_logout_in_a_request_gives_the_device_its_answer_back_at_once(open_world):
    pair = Pair(open_world)
    pair.consent()
    pair.laptop.visit(identify("U1"))
    pair.withdraw()
    catch_up(pair.laptop)

    answer = pair.laptop.visit(
        track("As U1"), read_consent(), reset(), read_consent(), track("As nobody")
    )

    assert answer.notes == [
        ("denied", "account-denied", False),
        ("granted", "cookie-granted", False),
    ]
    assert pair.home.rows() == [Row("As nobody", pair.laptop.device_id, None)]


# --- a ledger that fails --------------------------------------------------------------------------


def break_ledger(url: str) -> None:
    run_sql(url, "ALTER TABLE mp_asgi_records RENAME TO elsewhere")


def mend_ledger(url: str) -> None:
    run_sql(url, "ALTER TABLE elsewhere RENAME TO mp_asgi_records")


def test_a_ledger_that_fails_never_fails_a_request(pair, ledger_url):
    pair.consent()
    break_ledger(ledger_url)

    answers = [
        pair.laptop.visit(login("U1"), track("Seen"), look()),
        pair.laptop.visit(login("U1"), deny()),
        pair.laptop.visit(login("U1"), grant(), track("Again")),
        pair.laptop.visit(logout(), track("As nobody")),
        pair.laptop.visit(login("U1"), track("Seen"), headers=GPC),
    ]

    assert [(answer.status, answer.error) for answer in answers] == [(200, None)] * 5
    mend_ledger(ledger_url)


def test_while_the_ledger_fails_nothing_leaves_and_nothing_is_lost(pair, ledger_url, caplog):
    pair.consent()
    break_ledger(ledger_url)
    pair.laptop.visit(track("Waiting"))
    is_flushed = pair.home.analytics.flush(0.05)
    pair.laptop.visit(grant(), track("Waiting too"))

    sent_meanwhile = list(pair.home.standin.events)
    mend_ledger(ledger_url)
    pair.home.clock.began += MAX_DELAY_SECONDS
    rows = pair.home.rows()

    assert (is_flushed, sent_meanwhile) == (False, [])
    assert [row.name for row in rows] == ["Waiting", "Waiting too"]
    assert LEDGER_KEY not in caplog.text


def test_a_ledger_that_fails_grants_nothing(shared, ledger_url):
    shared.phone.visit(login("U1"), grant())
    shared.pass_time()
    break_ledger(ledger_url)
    shared.laptop.visit(login("U1"), look())
    failed = shared.home.analytics.stats

    wait_until(lambda: failed().other.get("ledger_failed", 0) > 0)
    shared.laptop.visit(login("U1"), track("Seen"))

    mend_ledger(ledger_url)
    assert failed().other["ledger_failed"] > 0
    assert shared.home.rows() == []


# --- two processes --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def postgresql() -> Iterator[str]:
    programs = find_postgresql()
    if programs is None:
        pytest.skip("PostgreSQL is not installed here: apt-get install postgresql")
    with run_postgresql(programs) as url:
        yield url


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_a_withdrawal_in_one_process_stops_what_waits_in_another(request, ledger_url, database):
    url = ledger_url if database == "sqlite" else request.getfixturevalue("postgresql")
    with World("asgi", ledger=url, ledger_keys=(LEDGER_KEY,)) as world:
        laptop, other = world.browser(), world.browser()
        for browser, user in ((laptop, "U1"), (other, "U2")):
            browser.visit(grant())
            browser.visit(login(user), track("Waiting"))

        phone = multiprocessing.get_context("spawn").Process(
            target=withdraw_on_the_phone, args=(url,)
        )
        phone.start()
        phone.join(6 * TIMEOUT)

        assert phone.exitcode == 0
        assert world.rows() == [Row("Waiting", other.device_id, "U2")]
        assert world.stats().dropped == {"withdrawn": 1}


# --- who is here, where the account lets nothing leave --------------------------------------------


def test_the_browser_learns_who_is_here_also_where_their_account_denies(open_world):
    pair = Pair(open_world)
    pair.consent()
    pair.withdraw()
    catch_up(pair.laptop)

    pair.laptop.visit(login("U1"))
    pair.laptop.visit(track("Later"))

    assert pair.home.rows() == []
    assert pair.home.stats().refused == {"account-denied": 1}


def test_nobody_is_taken_for_who_was_here_before(open_world):
    pair = Pair(open_world)
    pair.consent()
    pair.withdraw()
    catch_up(pair.laptop)
    pair.laptop.visit(login("U0"), track("Of U0"))

    pair.laptop.visit(login("U1"))
    pair.laptop.visit(track("Of U1"))
    pair.pass_time()

    assert [(row.name, row.user) for row in pair.home.rows()] == [("Of U0", "U0")]


def test_a_grant_before_the_login_of_the_same_request_lifts_the_account(pair):
    pair.phone.visit(grant())
    pair.pass_time()
    pair.withdraw()

    pair.laptop.visit(grant(), login("U1"), track("Agreed"))
    pair.pass_time()

    assert pair.stand().state is ActState.LIFTED
    assert [row.name for row in pair.home.rows()] == ["Agreed"]


def test_what_only_the_account_allowed_leaves_although_the_user_logs_out(open_world):
    shared = Pair(open_world, consent_scope="account")
    shared.phone.visit(login("U1"), grant())
    shared.pass_time()
    catch_up(shared.laptop)
    shared.laptop.visit(login("U1"), look())

    shared.laptop.visit(track("Logged Out"), reset(), track("Home"))
    shared.pass_time()

    assert [(row.name, row.user) for row in shared.home.rows()] == [("Logged Out", "U1")]


def test_a_persons_own_refusal_is_recorded_after_their_browsers(pair):
    pair.laptop.visit(grant())
    pair.pass_time()
    pair.laptop.visit(login("U1"), look(), headers=GPC)
    pair.pass_time()

    pair.laptop.visit(login("U1"), deny())
    pair.pass_time()

    assert (pair.stand().state, pair.stand().source) == (ActState.DENIED, "own")


# --- what is read again, and what cannot be recorded ----------------------------------------------


def test_an_old_cookie_ends_no_tombstone(open_world):
    pair = Pair(open_world)
    pair.laptop.visit(grant(), track("Before"))
    pair.pass_time()
    cookie = pair.laptop.jar["__Host-mp_id"].value
    pair.away.analytics.erase(cookies=[cookie], seconds=0)
    pair.pass_time()

    pair.laptop.visit(identify("U9"), track("Sneak"))
    pair.pass_time()

    assert "Sneak" not in [row.name for row in pair.home.rows()]


@pytest.mark.parametrize(
    "notice",
    ["banner v3", ("en", "text"), Notice("en", None), Notice(None, "text"), 5],
    ids=["text", "tuple", "no-text", "no-language", "number"],
)
def test_a_wrong_notice_loses_nobodys_choice(pair, notice):
    pair.laptop.visit(grant())
    pair.pass_time()
    pair.laptop.visit(login("U1"), deny(notice=notice))
    pair.pass_time()
    stood = pair.stand()
    pair.laptop.visit(grant(notice=notice), track("Agreed"))
    pair.pass_time()

    assert stood.state is ActState.DENIED
    assert [row.name for row in pair.home.rows()] == ["Agreed"]
    assert pair.home.stats().refused["invalid_notice"] > 0


def test_a_link_is_of_what_left(open_world):
    pair = Pair(open_world)
    pair.laptop.visit(grant())
    pair.pass_time()

    pair.laptop.visit(START, identify("U1"), track("Late"), END)
    pair.pass_time()
    without = links_of(pair, "U1")
    pair.laptop.visit(identify("U1"), track("Marked"))
    pair.pass_time()

    assert [row.device for row in pair.home.rows()] == [None, pair.laptop.device_id]
    assert (without, links_of(pair, "U1")) == ([], [pair.laptop.device_id])


def links_of(pair: Pair, user_id: str) -> list[str]:
    key = pair.home.analytics.core.keys.user_key(user_id)
    return [link.device_id for link in pair.home.analytics.ledger.links_of_user(key)]


def test_who_never_agreed_is_linked_to_nothing(open_world):
    pair = Pair(open_world, consent_from=lambda connection: None)

    pair.laptop.visit(identify("U1"), track("Nothing"))
    pair.pass_time()

    assert links_of(pair, "U1") == []
