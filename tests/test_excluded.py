"""Paths on which nothing is tracked (setting `exclude`), through both doors."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mp_asgi import Tracker
from tests.doors import (
    NAVIGATION,
    Request,
    Row,
    World,
    call,
    deny,
    grant,
    identify,
    look,
    read_session_user,
    reset,
    set_person,
    track,
)

Open = Callable[..., World]
GRANTED = (("x-mp-consent", "granted"),)


@pytest.fixture(params=["asgi", "wsgi-validated"])
def open_world(request: pytest.FixtureRequest) -> Iterator[Open]:
    worlds: list[World] = []

    def open_one(**settings: Any) -> World:
        worlds.append(World(request.param, context=False, **settings))
        return worlds[-1]

    yield open_one
    for world in worlds:
        world.analytics.close()


@pytest.mark.parametrize(
    ("exclude", "path", "is_excluded"),
    [
        pytest.param("/health", "/health", True, id="the-path"),
        pytest.param("/health", "/health/", False, id="another-path"),
        pytest.param("/admin/*", "/admin/users/7", True, id="below"),
        pytest.param("*.json", "/api/users.json", True, id="a-star-in-front"),
        pytest.param("/*/health", "/eu/health", True, id="a-star-inside"),
        pytest.param("*", "/", True, id="everything"),
    ],
)
def test_nothing_is_tracked_on_the_paths_that_are_named(open_world, exclude, path, is_excluded):
    world = open_world(exclude=[exclude])
    world.browser().visit(grant(), path="/welcome")

    world.serve(Request(path=path, headers=GRANTED), (track("Seen"), track("Left")))

    assert [row.name for row in world.rows()] == ([] if is_excluded else ["Seen", "Left"])
    assert world.stats().refused == ({"excluded": 2} if is_excluded else {})


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        pytest.param("asgi", "/caf%C3%A9/x", id="asgi-raw"),
        pytest.param("wsgi", "/caf\xc3\xa9/x", id="wsgi-decoded"),
    ],
)
def test_a_path_is_excluded_as_browsers_show_it(kind, path):
    with World(kind, exclude=["/caf%C3%A9/*"]) as world:
        world.serve(Request(path=path, headers=GRANTED), (track("Seen"),))

        assert (world.rows(), world.stats().refused) == ([], {"excluded": 1})


def test_profiles_and_page_views_are_tracked_as_little(open_world):
    world = open_world(exclude=["*"])
    browser = world.browser()
    browser.visit(grant(), identify("U1"))

    browser.visit(set_person(plan="pro"), call(Tracker.track_pageview))
    world.flush()

    assert (world.standin.events, world.standin.people) == ([], [])
    assert world.stats().refused == {"excluded": 2}


def test_a_stranger_gets_no_id(open_world):
    world = open_world(exclude=["/health"])
    browser = world.browser()

    answer = browser.visit(look(), track("Seen"), headers=GRANTED, path="/health")

    assert answer.notes[0][0] is not None
    assert (answer.cookies, browser.device_id) == ([], None)
    assert world.stats().unpersisted == 0


def test_a_stranger_of_whom_the_app_knows_the_user_gets_no_id_either(open_world):
    world = open_world(exclude=["*"], identity="original", identify_from=read_session_user)
    browser = world.browser()
    browser.session["user"] = "U1"

    answer = browser.visit(track("Seen"), headers=GRANTED)

    assert (answer.cookies, world.rows()) == ([], [])


def test_no_page_is_handed_an_id_that_is_not_kept(open_world):
    world = open_world(exclude=["*"], share_id=True)
    browser = world.browser()
    browser.write("mp_t0ken_mixpanel", "%7B%22%24device_id%22%3A%22X%22%7D")

    answer = browser.visit(look(), headers=[*GRANTED, *NAVIGATION])

    assert answer.cookies == []


def test_choices_logins_and_logouts_work_as_everywhere(open_world):
    world = open_world(exclude=["/auth/*"])
    browser = world.browser()

    browser.visit(grant(), path="/auth/consent")
    first = browser.device_id
    browser.visit(identify("U1"), track("Logged In"), path="/auth/login")
    browser.visit(track("Known"))
    browser.visit(reset(), path="/auth/logout")
    second = browser.device_id
    browser.visit(track("Unknown"))
    rows = world.rows()
    browser.visit(deny(), path="/auth/consent")

    assert rows == [Row("Known", first, "U1"), Row("Unknown", second, None)]
    assert second not in {None, first}
    assert browser.device_id is None


def test_a_login_on_an_excluded_path_joins_the_two(open_world):
    world = open_world(exclude=["/auth/*"], identity="original")
    browser = world.browser()
    browser.visit(grant(), track("Seen"))
    device = browser.device_id

    browser.visit(identify("U1"), track("Logged In"), path="/auth/login")
    browser.visit(track("Bought"))

    assert world.rows() == [
        Row("Seen", device, None),
        Row("$identify", device, "U1"),
        Row("Bought", device, "U1"),
    ]
    assert world.who_is_who() == {"U1": ["Seen", "Bought"]}
