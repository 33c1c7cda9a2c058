"""How a visitor first came, from the link that they followed to the profile of who they are.

RULES section 1, rule 8, through both doors.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.doors import (
    END,
    NAVIGATION,
    START,
    Browser,
    World,
    deny,
    grant,
    identify,
    login,
    look,
    read_session_user,
    reset,
    track,
)

SEARCH = (*NAVIGATION, ("referer", "https://www.google.com/search?q=shoes"))
INSIDE = (*NAVIGATION, ("referer", "https://shop.example/shoes"))
FROM_SEARCH = {
    "$initial_referrer": "https://www.google.com/search",
    "$initial_referring_domain": "www.google.com",
}
MODES = ["simplified", "original", "legacy"]
SOURCES = [
    pytest.param({}, id="identify"),
    pytest.param({"identify_from": read_session_user}, id="identify_from"),
]

Open = Callable[..., World]


@pytest.fixture(params=["asgi", "wsgi-validated"])
def open_world(request: pytest.FixtureRequest) -> Iterator[Open]:
    worlds: list[World] = []

    def open_one(**settings: Any) -> World:
        worlds.append(World(request.param, **settings))
        return worlds[-1]

    yield open_one
    for world in worlds:
        world.analytics.close()


def touches(world: World) -> list[tuple[str, dict[str, Any]]]:
    """Answer who was told to have come how, in the order of arrival."""
    world.flush()
    updates = [message for request in world.standin.requests for message in request.messages]
    return [
        (update["$distinct_id"], update["$set_once"]) for update in updates if "$set_once" in update
    ]


def is_kept(browser: Browser) -> bool:
    """Whether the ID cookie knows how its device was found: a field behind the seven of an ID."""
    value, _, _ = browser.jar["__Host-mp_id"].value.rsplit(".", 2)
    return value.count(".") > 6


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("source", SOURCES)
def test_it_rides_in_the_cookie_until_the_device_meets_its_user(open_world, mode, source):
    world = open_world(identity=mode, **source)
    browser = world.browser()
    browser.visit(grant(), headers=SEARCH)
    first = is_kept(browser)
    browser.visit(track("Seen"), headers=INSIDE)
    before = touches(world)

    browser.visit(look(), login("U1"), headers=INSIDE)
    browser.visit(track("Later"), headers=INSIDE)

    assert (first, before) == (True, [])
    assert touches(world) == [("U1", FROM_SEARCH)]
    assert not is_kept(browser)


@pytest.mark.parametrize("source", SOURCES)
def test_who_is_new_and_known_at_once_is_told_at_once(open_world, source):
    world = open_world(**source)
    browser = world.browser()

    browser.visit(grant(), login("U1"), headers=SEARCH)
    browser.visit(login("U1"), headers=INSIDE)

    assert touches(world) == [("U1", FROM_SEARCH)]
    assert not is_kept(browser)


def test_who_typed_the_address_came_directly(open_world):
    world = open_world()
    browser = world.browser()

    browser.visit(grant(), identify("U1"), headers=NAVIGATION)

    direct = {"$initial_referrer": "$direct", "$initial_referring_domain": "$direct"}
    assert touches(world) == [("U1", direct)]


@pytest.mark.parametrize(
    ("settings", "headers"),
    [
        pytest.param({"context": False}, SEARCH, id="switched-off"),
        pytest.param({}, (), id="nothing-tells"),
    ],
)
def test_what_says_nothing_is_neither_kept_nor_sent(open_world, settings, headers):
    world = open_world(**settings)
    browser = world.browser()
    browser.visit(grant(), headers=headers)

    kept = is_kept(browser)
    browser.visit(identify("U1"), headers=headers)

    assert (kept, touches(world)) == (False, [])


def test_a_device_that_was_adopted_was_found_before_us(open_world):
    world = open_world(adopt_cookie="theirs")
    browser = world.browser()
    browser.write("theirs", "v-7")
    browser.visit(grant(), headers=SEARCH)

    kept = is_kept(browser)
    browser.visit(identify("U1"), headers=INSIDE)

    assert (kept, touches(world)) == (False, [])


def test_after_a_logout_nobody_is_found_anew(open_world):
    world = open_world()
    browser = world.browser()
    browser.visit(grant(), identify("U1"), headers=SEARCH)
    browser.visit(reset(), headers=SEARCH)

    kept = is_kept(browser)
    browser.visit(identify("U2"), headers=INSIDE)

    assert (kept, touches(world)) == (False, [("U1", FROM_SEARCH)])


@pytest.mark.parametrize("mode", MODES)
def test_the_next_user_of_the_browser_is_not_told_how_it_was_found(open_world, mode):
    world = open_world(identity=mode)
    browser = world.browser()
    browser.visit(grant(), identify("U1"), headers=SEARCH)

    browser.visit(identify("U2"), headers=SEARCH)

    assert touches(world) == [("U1", FROM_SEARCH)]


def test_a_denial_ends_it_with_the_cookie(open_world):
    world = open_world()
    browser = world.browser()
    browser.visit(grant(), headers=SEARCH)
    browser.visit(deny(), headers=INSIDE)

    browser.visit(grant(), identify("U1"), headers=NAVIGATION)

    assert touches(world) == []


def test_a_denial_behind_a_login_takes_it_back(open_world):
    world = open_world()

    world.browser().visit(grant(), identify("U1"), deny(), headers=SEARCH)

    assert touches(world) == []


def test_a_user_who_comes_after_the_start_leaves_it_to_the_device(open_world):
    world = open_world()
    browser = world.browser()
    browser.visit(grant(), START, identify("U1"), track("Streamed"), END, headers=SEARCH)

    browser.visit(identify("U2"), track("Seen"), headers=INSIDE)

    rows = world.rows()
    assert [(row.name, row.user) for row in rows] == [("Streamed", "U1"), ("Seen", "U2")]
    assert rows[0].device != rows[1].device
