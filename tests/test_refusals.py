"""Ways in which a refusal could be missed or outlived, each through both doors."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from mp_asgi.stops import MAX_REMEMBERED
from tests.doors import (
    CHUNK,
    END,
    NAVIGATION,
    START,
    Request,
    World,
    call,
    deny,
    grant,
    look,
    track,
)
from tests.support import NOW

DAY = 86_400
PAYMENT_RETURN = (
    ("sec-fetch-site", "cross-site"),
    ("origin", "https://pay.example"),
    *NAVIGATION,
)
PIXEL = (
    ("sec-fetch-site", "cross-site"),
    ("sec-fetch-mode", "no-cors"),
    ("sec-fetch-dest", "image"),
)
LINK = (("sec-fetch-site", "cross-site"), *NAVIGATION)
AGREED = "OptanonConsent=groups=C0001%3A1%2CC0002%3A1; OptanonAlertBoxClosed="
KLARO_NO = "klaro=%7B%22mixpanel%22%3Afalse%7D"
KLARO_YES = "klaro=%7B%22mixpanel%22%3Atrue%7D"
COOKIEYES_NO = "cookieyes-consent=consentid:x,consent:no,action:yes,necessary:yes,analytics:no"


@pytest.fixture(params=["asgi", "wsgi"])
def open_world(request: pytest.FixtureRequest) -> Iterator[Any]:
    worlds: list[World] = []

    def open_one(**settings: Any) -> World:
        worlds.append(World(request.param, **settings))
        return worlds[-1]

    yield open_one
    for world in worlds:
        world.__exit__()


def make_tc_string(at: float) -> str:
    """Answer a TCF string that grants every purpose, updated at that time."""
    bits = f"{2:06b}" + f"{int(at * 10):036b}" * 2 + f"{1:012b}" * 2 + f"{1:06b}" + "0" * 12
    bits += f"{1:012b}{2:06b}10" + "0" * 12 + "1" * 24 + "0" * 24 + "0" * 13 + "0" * 46
    bits += "0" * (-len(bits) % 6)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return "".join(alphabet[int(bits[i : i + 6], 2)] for i in range(0, len(bits), 6))


def agree_at(at: float) -> str:
    """Answer OneTrust's cookies of somebody who agreed at that time."""
    return AGREED + datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")


def names(world: World) -> list[str]:
    return [row.name for row in world.rows()]


# --- a refusal that the browser left at home ------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "headers", "samesite"),
    [
        pytest.param("POST", PAYMENT_RETURN, "Lax", id="a-form-comes-back"),
        pytest.param("GET", PIXEL, "Lax", id="an-image-elsewhere"),
        pytest.param("GET", LINK, "Strict", id="a-link-and-strict-cookies"),
    ],
)
@pytest.mark.parametrize(
    "silence",
    [
        pytest.param({"consent": "opt-out"}, id="opt-out"),
        pytest.param({"policy": lambda head: "cookieless", "cookieless": "daily"}, id="cookieless"),
    ],
)
def test_withheld_cookies_are_no_silence(open_world, silence, method, headers, samesite):
    world = open_world(cookie_samesite=samesite, **silence)
    browser = world.browser()
    browser.visit(deny())
    world.clock.advance(5)

    answer = browser.visit(track("Elsewhere"), jar={}, method=method, headers=headers)

    assert names(world) == []
    assert answer.cookies == []


def test_withheld_cookies_cost_nobody_their_id(open_world):
    world = open_world(consent="opt-out")
    browser = world.browser()
    browser.visit(grant())
    device_id = browser.device_id

    browser.visit(track("Paid"), jar={}, method="POST", headers=PAYMENT_RETURN)

    assert browser.device_id == device_id


def test_a_link_from_elsewhere_brings_lax_cookies_so_that_none_is_silence(open_world):
    world = open_world(consent="opt-out")

    world.browser().visit(track("Arrived"), headers=LINK)

    assert names(world) == ["Arrived"]


# --- a refusal that something older outlives ------------------------------------------------------


def test_a_time_that_is_still_to_come_overrules_no_refusal(open_world):
    world = open_world(consent_readers=("onetrust",))
    browser, agreed = world.browser(), (("cookie", agree_at(NOW + 7_200)),)
    browser.visit(track("Agreed"), headers=agreed)
    world.clock.advance(60)

    browser.visit(deny(), headers=agreed)
    for _ in range(3):
        world.clock.advance(3_600)
        browser.visit(track("After my no"), headers=agreed)

    assert names(world) == []


def test_a_refusal_that_the_manager_did_not_see_stands_against_a_time_to_come(open_world):
    world = open_world(consent_readers=("onetrust",))
    browser = world.browser()
    browser.visit(deny())

    browser.visit(track("Not yet"), headers=(("cookie", agree_at(NOW + 7_200)),))

    assert names(world) == []


def test_a_mirror_does_not_outlive_the_string_that_it_mirrors(open_world):
    world = open_world(consent_readers=("iab-tcf",))
    browser = world.browser()
    string = make_tc_string(NOW - 390 * DAY)
    browser.visit(track("Day 390"), headers=(("cookie", f"euconsent-v2={string}"), *NAVIGATION))

    world.clock.advance(2 * DAY)
    browser.visit(track("Day 392"), headers=NAVIGATION)
    world.clock.advance(4 * DAY)
    browser.visit(track("Day 396"), headers=NAVIGATION)

    assert names(world) == ["Day 390", "Day 392"]


def test_a_stop_that_the_process_had_to_forget_still_ends_what_began_before(open_world):
    world = open_world()
    browser = world.browser()
    browser.visit(grant())
    world.clock.advance(1)
    before = browser.snapshot()

    def refuse_and_flood(_: object) -> None:
        world.clock.advance(1)
        browser.visit(deny(), jar=before)
        world.clock.advance(1)
        now = world.clock.now
        keys = [b"%d" % number for number in range(MAX_REMEMBERED)]
        world.analytics.core.stops.add(keys, now, is_act=True)
        world.clock.advance(1)

    browser.visit(
        START, CHUNK, call(refuse_and_flood), track("After my no"), CHUNK, END, jar=before
    )

    assert names(world) == []


# --- a refusal among other words ------------------------------------------------------------------


@pytest.mark.parametrize("damage", [0, 1, 20], ids=["whole", "cut-by-one", "cut-short"])
def test_a_damaged_copy_beside_a_grant_may_have_been_a_refusal(open_world, damage):
    world = open_world()
    granted, denied = world.browser(), world.browser()
    granted.visit(grant())
    world.clock.advance(5)
    denied.visit(deny())
    name = "__Host-mp_consent"
    yes, no = granted.jar[name].value, denied.jar[name].value
    copy = no[: len(no) - damage]

    for cookie in (f"{name}={copy}; {name}={yes}", f"{name}={yes}; {name}={copy}"):
        world.serve(Request(headers=(("cookie", cookie),)), (track("Doubtful"),))

    assert names(world) == []


def test_of_two_managers_that_refused_one_can_change_its_word_alone(open_world):
    world = open_world(consent_readers=("klaro", "cookieyes"))
    browser = world.browser()
    both = (("cookie", KLARO_NO), ("cookie", COOKIEYES_NO), *NAVIGATION)
    browser.visit(look(), headers=both)
    world.clock.advance(10)

    browser.visit(track("Arrived"), headers=(("cookie", KLARO_YES), *LINK))
    browser.visit(track("Again"), headers=(("cookie", KLARO_YES), *LINK))

    assert names(world) == []


@pytest.mark.parametrize(
    "cookie", ["a=1;  mp_choice=denied", "a=1;\tmp_choice=denied", "mp_choice =denied"]
)
def test_odd_spacing_hides_no_refusal(open_world, cookie):
    world = open_world(consent="opt-out")

    world.serve(Request(headers=(("cookie", cookie),)), (track("Seen"),))

    assert names(world) == []
