"""One visitor, tracked by the server and by mixpanel-browser in the page, through both doors.

RULES section 4, journeys 17 and 18, and what belongs to them: adopting, sharing, denying on both
sides. The real library does the same in `tests/servers/test_mixpanel_browser.py`.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlencode

import pytest

from mp_asgi.dev.wire import WireRequest
from tests.doors import (
    FAIL,
    GPC,
    NAVIGATION,
    Answer,
    Browser,
    World,
    call,
    deny,
    grant,
    login,
    logout,
    look,
    read_consent,
    read_session_user,
    start,
    track,
)
from tests.stories import Story, tell

MODES = ["simplified", "original", "legacy"]
SOURCES = [
    pytest.param({}, id="identify"),
    pytest.param({"identify_from": read_session_user}, id="identify_from"),
]
IDS = "mp_t0ken_mixpanel"
OPT = "__mp_opt_in_out_t0ken"
MARK = "__mp_opt_in_out_t0ken_mp_asgi"
SITE = "shop.example"  # where mixpanel-browser keeps its cookies on this host
PAGE = "e75fd028-ff86-441c-9375-424df8336f5e"
OTHER = "5f1d7a52-7c1e-4d7e-9a43-3f0b8c6e2d11"
VISITOR = "0b6f4a3e-52c8-4f0d-8d5b-6a1c9e7f2d34"
GATEWAY = (("x-mp-consent", "granted"),)
POSTED = (("content-type", "application/json"), ("sec-fetch-site", "same-origin"))
ADOPTING = {"adopt_browser_id": True}
SHARING = {"share_id": True}
DAY = 86_400

Open = Callable[..., World]


@pytest.fixture(params=["asgi", "wsgi-validated"])
def open_world(request: pytest.FixtureRequest) -> Iterator[Open]:
    """Open a world behind one door; its events carry nothing but who it is."""
    worlds: list[World] = []

    def open_one(**settings: Any) -> World:
        worlds.append(World(request.param, context=False, **settings))
        return worlds[-1]

    yield open_one
    for world in worlds:
        world.__exit__()


class Page:
    """A page with mixpanel-browser: keeps its IDs in a cookie, and tells Mixpanel by itself."""

    def __init__(self, browser: Browser) -> None:
        self.browser = browser

    def keep(self, fields: Mapping[str, Any], domain: str = SITE) -> None:
        """Keep these super properties as the library does."""
        self.browser.write(IDS, quote(json.dumps(fields)), domain)

    @property
    def fields(self) -> dict[str, Any]:
        """What the library goes on with."""
        [value] = self.browser.values(IDS)
        return json.loads(unquote(value))

    def track(self, name: str, **properties: Any) -> None:
        """Send an event with the super properties."""
        send(self.browser.world, name, **{**self.fields, **properties})

    def identify(self, user_id: str) -> None:
        before = self.fields
        self.keep({**before, "distinct_id": user_id, "$user_id": user_id})
        self.track("$identify", **{"$anon_distinct_id": before["distinct_id"]})


def send(world: World, name: str, **properties: Any) -> None:
    """Send an event to Mixpanel without our server, as a page or the app of before does."""
    data = json.dumps({"event": name, "properties": {"token": "t0ken", **properties}})
    headers = {"content-type": "application/x-www-form-urlencoded"}
    body = urlencode({"data": data}).encode()
    world.standin.answer(WireRequest("POST", "/track", "", headers, body), ())


def device(device_id: str) -> dict[str, str]:
    return {"distinct_id": f"$device:{device_id}", "$device_id": device_id}


def open_page(world: World, fields: Mapping[str, Any] | None = None) -> Page:
    """Answer a page of a new browser that has these super properties already."""
    page = Page(world.browser())
    if fields is not None:
        page.keep(fields)
    return page


def cookie_values(answer: Answer, name: str) -> list[str]:
    pairs = [cookie.partition(";")[0].partition("=") for cookie in answer.cookies]
    return [value for found, _, value in pairs if found == name]


# --- journey 17: the browser was first ----------------------------------------------------------

FIRST_PAGE = "defaults_cookie"
FIXTURE = Path(__file__).with_name("fixtures") / "mixpanel_browser.jsonl"


def read_generations() -> dict[str, dict[str, Any]]:
    """Answer what the first page of each generation of the library kept, by version."""
    rows = [json.loads(line) for line in FIXTURE.read_text("utf-8").splitlines()]
    return {row["sdk_version"]: read_ids(row) for row in rows if row["scenario"] == FIRST_PAGE}


def read_ids(row: Mapping[str, str]) -> dict[str, Any]:
    pairs = [pair.partition("=") for pair in row["cookie_header"].split("; ")]
    [value] = [value for name, _, value in pairs if name == f"mp_{row['token']}_mixpanel"]
    return json.loads(unquote(value))


GENERATIONS = read_generations()
# To Simplified, a bare `distinct_id` without a `$device_id` is a user (reference section 3).
UNJOINABLE = {("simplified", "2.11.0")}


def test_journey_17_all_generations_of_the_library_are_here():
    assert list(GENERATIONS) == ["2.83.0", "2.29.0", "2.11.0"]


@pytest.mark.parametrize(
    ("mode", "story"),
    [
        pytest.param(
            "simplified",
            Story(
                [
                    "/track Opened: distinct_id=$device:A $device_id=A",
                    "/import Served: distinct_id=$device:A $device_id=A",
                    "/import Signed Up: distinct_id=U1 $device_id=A $user_id=U1",
                ],
                ["U1: Opened, Served, Signed Up"],
            ),
            id="simplified",
        ),
        pytest.param(
            "original",
            Story(
                [
                    "/track Opened: distinct_id=$device:A $device_id=A",
                    "/import Served: distinct_id=$device:A $device_id=A",
                    "/import $identify: distinct_id=U1 $identified_id=U1 $anon_id=$device:A",
                    "/import Signed Up: distinct_id=U1 $device_id=A $user_id=U1",
                ],
                ["U1: Opened, Served, Signed Up"],
            ),
            id="original",
        ),
        pytest.param(
            "legacy",
            Story(
                [
                    "/track Opened: distinct_id=$device:A $device_id=A",
                    "/track $create_alias: distinct_id=$device:A alias=U1",
                    "/import Served: distinct_id=$device:A $device_id=A",
                    "/import Signed Up: distinct_id=U1 $device_id=A $user_id=U1",
                ],
                ["$device:A: Opened, Served, Signed Up"],
            ),
            id="legacy",
        ),
    ],
)
def test_journey_17_the_server_goes_on_with_the_id_of_the_page(open_world, mode, story):
    world = open_world(identity=mode, **ADOPTING)
    page = open_page(world, device(PAGE))
    page.track("Opened")

    page.browser.visit(grant(), track("Served"))
    page.browser.visit(login("U1", new_user=True), track("Signed Up"))

    assert tell(world) == story
    assert world.standin.failures() == []


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("version", GENERATIONS)
def test_journey_17_every_generation_ends_as_one_person(open_world, mode, version):
    world = open_world(identity=mode, **ADOPTING)
    page = open_page(world, GENERATIONS[version])
    page.track("Opened")

    page.browser.visit(grant(), track("Served"))
    page.browser.visit(login("U1", new_user=True), track("Signed Up"))

    people = list(world.who_is_who().values())
    split = [["Opened"], ["Served", "Signed Up"]]
    one = [["Opened", "Served", "Signed Up"]]
    assert people == (split if (mode, version) in UNJOINABLE else one)
    assert world.standin.failures() == []


@pytest.mark.parametrize("mode", ["original", "legacy"])
def test_journey_17_an_id_from_before_there_were_device_ids_is_passed_on_as_such(open_world, mode):
    world = open_world(identity=mode, **ADOPTING)
    old = GENERATIONS["2.11.0"]["distinct_id"]
    page = open_page(world, {"distinct_id": old})
    page.track("Opened")
    page.keep(
        {
            "distinct_id": "U1",
            "$device_id": old,
            "$user_id": "U1",
            "$had_persisted_distinct_id": True,
        }
    )

    page.browser.visit(grant(), track("Served"))

    ids = f"distinct_id={old} $device_id={old} $had_persisted_distinct_id=True"
    assert tell(world) == Story(
        [f"/track Opened: distinct_id={old}", f"/import Served: {ids}"],
        [f"{old}: Opened, Served"],
    )


@pytest.mark.parametrize("source", SOURCES)
def test_journey_17_an_adopted_id_stays_when_the_page_takes_another(open_world, source):
    world = open_world(**ADOPTING, **source)
    page = open_page(world, device(PAGE))
    page.browser.visit(grant(), track("Adopted"))

    page.keep(device(OTHER))
    page.browser.visit(track("Served"))
    page.browser.visit(login("U1"), track("Logged In"))

    assert tell(world).messages == [
        "/import Adopted: distinct_id=$device:A $device_id=A",
        "/import Served: distinct_id=$device:A $device_id=A",
        "/import Logged In: distinct_id=U1 $device_id=A $user_id=U1",
    ]


def test_journey_17_without_a_grant_nothing_is_adopted(open_world):
    world = open_world(**ADOPTING)
    page = open_page(world, device(PAGE))

    answer = page.browser.visit(track("Served"), look())

    assert (answer.cookies, answer.notes) == ([], [(None, None, None)])
    assert world.rows() == []


@pytest.mark.parametrize("mode", MODES)
def test_journey_17_a_login_of_the_page_is_not_believed(open_world, mode):
    world = open_world(identity=mode, **ADOPTING)
    page = open_page(world, {**device(PAGE), "distinct_id": "U9", "$user_id": "U9"})

    answer = page.browser.visit(grant(), track("Served"), look())

    assert answer.notes == [(PAGE, None, f"$device:{PAGE}")]
    assert tell(world).messages == ["/import Served: distinct_id=$device:A $device_id=A"]


@pytest.mark.parametrize("mode", ["simplified", "original"])
def test_journey_17_who_logs_in_on_both_sides_is_one_person(open_world, mode):
    world = open_world(identity=mode, **ADOPTING)
    page = open_page(world, device(PAGE))
    page.track("Opened")
    page.browser.visit(grant(), track("Served"))

    page.identify("U1")
    page.track("Bought")
    page.browser.visit(login("U1"), track("Logged In"))

    assert world.who_is_who() == {"U1": ["Opened", "Bought", "Served", "Logged In"]}
    assert world.standin.failures() == []


@pytest.mark.parametrize(
    "copies",
    [
        pytest.param([device(PAGE), device(OTHER)], id="two-that-differ"),
        pytest.param([{"distinct_id": "U9", "$user_id": "U9"}], id="a-user-alone"),
        pytest.param([{**device("U9"), "$user_id": "U9"}], id="a-user-as-the-device"),
        pytest.param([device("undefined")], id="a-forbidden-id"),
        pytest.param([device("x" * 256)], id="too-long"),
        pytest.param([[PAGE]], id="no-object"),
    ],
)
def test_journey_17_what_is_not_one_sound_id_is_not_adopted(open_world, copies):
    world = open_world(**ADOPTING)
    page = open_page(world)
    for fields, domain in zip(copies, [SITE, ""], strict=False):
        page.keep(fields, domain)

    page.browser.visit(grant(), track("Served"))

    [row] = world.rows()
    assert (row.device, row.user) == (page.browser.device_id, None)
    assert row.device not in {PAGE, OTHER, "U9"}


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("mode", MODES)
def test_journey_17_whom_the_page_knows_goes_on_with_its_id_and_nobody_else(
    open_world, mode, source
):
    world = open_world(identity=mode, **ADOPTING, **source)
    identified = {**device(PAGE), "distinct_id": "U1", "$user_id": "U1"}
    theirs, shared = open_page(world, identified), open_page(world, identified)

    theirs.browser.visit(grant(), login("U1"), track("One"))
    shared.browser.visit(grant(), login("U2"), track("Two"))

    told = [line for line in tell(world).messages if "$create_alias" not in line]
    assert told[0] == "/import One: distinct_id=U1 $device_id=A $user_id=U1"
    assert told[-1] == "/import Two: distinct_id=U2 $device_id=B $user_id=U2"
    assert theirs.browser.device_id != shared.browser.device_id
    assert world.standin.failures() == []


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "end",
    [
        pytest.param([FAIL], id="the-app-fails"),
        pytest.param([start(200, ("cache-control", "public"))], id="a-cache-may-keep-it"),
    ],
)
def test_journey_17_a_user_whose_mark_nothing_carries_does_not_get_the_id_of_the_page(
    open_world, mode, end
):
    world = open_world(identity=mode, identify_from=read_session_user, **ADOPTING)
    page = open_page(world, device(PAGE))
    page.browser.visit(login("U1"), track("One"), *end, headers=GATEWAY)

    page.browser.visit(login("U2"), track("Two"), headers=GATEWAY)

    rows = [row for row in world.rows() if row.name != "$identify"]
    assert rows == [("One", None, "U1"), ("Two", PAGE, "U2")]
    assert world.standin.failures() == []


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("mode", MODES)
def test_journey_17_the_next_user_does_not_inherit_the_id_of_the_page(open_world, mode, source):
    world = open_world(identity=mode, **ADOPTING, **source)
    page = open_page(world, device(PAGE))
    page.track("Opened")
    page.browser.visit(grant(), login("U1"), track("One"))

    page.browser.visit(login("U2"), track("Two"))

    told = tell(world).messages
    assert "/import One: distinct_id=U1 $device_id=A $user_id=U1" in told
    assert "/import Two: distinct_id=U2 $device_id=B $user_id=U2" in told
    assert world.standin.failures() == []


# --- where the page keeps its ID in localStorage ------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_an_id_in_local_storage_is_adopted_when_the_page_posts_it(open_world, mode):
    world = open_world(identity=mode, mount="/_mp", **ADOPTING)
    page = open_page(world)
    send(world, "Opened", **device(PAGE))
    page.browser.visit(grant())

    answer = agree(page, device(PAGE))
    page.browser.visit(track("Served"))

    assert answer == {"adopted": True, **device(PAGE)}
    assert tell(world) == Story(
        [
            "/track Opened: distinct_id=$device:A $device_id=A",
            "/import Served: distinct_id=$device:A $device_id=A",
        ],
        ["$device:A: Opened, Served"],
    )


@pytest.mark.parametrize("mode", MODES)
def test_once_a_user_owns_our_id_the_page_takes_that(open_world, mode):
    world = open_world(identity=mode, mount="/_mp", **ADOPTING)
    page = open_page(world)
    page.browser.visit(grant(), login("U1", new_user=True), track("Signed Up"))

    answer = agree(page, device(PAGE))
    assert answer.pop("adopted") is False
    page.keep(answer)
    page.track("Opened")

    [names] = world.who_is_who().values()
    assert sorted(names) == ["Opened", "Signed Up"]
    assert world.standin.failures() == []


def agree(page: Page, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Post what the page has; answer what it is told to go on with."""
    body = json.dumps(fields).encode()
    answer = page.browser.visit(method="POST", path="/_mp/identity", headers=POSTED, body=body)
    return json.loads(answer.body)


# --- no page brings back what was left ----------------------------------------------------------


def log_out(page: Page) -> None:
    page.browser.visit(login("U1"), track("One"))
    page.browser.visit(logout())


def take_turns(page: Page) -> None:
    page.browser.visit(login("U1"), track("One"))
    page.browser.visit(login("U2"))


def change_ones_mind(page: Page) -> None:
    page.browser.visit(login("U1"), track("One"))
    page.browser.world.flush()
    page.browser.world.clock.advance(1)
    page.browser.visit(deny())
    page.browser.world.clock.advance(1)
    restart(page)


def let_the_grant_expire(page: Page) -> None:
    page.browser.visit(login("U1"), track("One"))
    page.browser.world.clock.advance(181 * DAY)
    page.browser.visit(track("Too Late"))


def drop_the_key(page: Page) -> None:
    page.browser.visit(login("U1"), track("One"))
    restart(page, secret_keys=("n" * 32,))


def restart(page: Page, **changed: Any) -> None:
    """Let another process answer from here on, that remembers nothing."""
    world = page.browser.world
    world.flush()
    settings = {"mount": "/_mp", "secret_keys": world.settings.secret_keys, **changed}
    page.browser.world = World(
        world.kind, standin=world.standin, clock=world.clock, seed="later", **ADOPTING, **settings
    )


@pytest.mark.parametrize(
    "leave", [log_out, take_turns, change_ones_mind, let_the_grant_expire, drop_the_key]
)
@pytest.mark.parametrize("keeps", ["a-cookie", "local-storage"])
def test_a_page_that_kept_the_id_of_a_user_gives_it_to_nobody_else(open_world, leave, keeps):
    world = open_world(mount="/_mp", **ADOPTING)
    page = open_page(world, device(PAGE))
    page.browser.visit(grant())
    leave(page)

    for domain in [SITE] if keeps == "a-cookie" else []:
        page.keep(device(PAGE), domain)  # a tab that did not hear of it
    page.browser.visit(grant())
    answer = agree(page, device(PAGE))
    page.browser.visit(login("U3"), track("Three"))

    later = page.browser.world
    later.flush()
    assert answer["adopted"] is False
    rows = {event["event"]: event["properties"] for event in world.standin.events}
    assert (rows["One"]["$device_id"], rows["One"]["$user_id"]) == (PAGE, "U1")
    assert rows["Three"]["$device_id"] == page.browser.device_id != PAGE
    assert world.standin.failures() == []
    if later is not world:
        later.__exit__()


def test_a_logout_of_who_has_only_the_id_of_the_page_starts_anew(open_world):
    world = open_world(**ADOPTING)
    page = open_page(world, device(PAGE))

    page.browser.visit(logout(), track("Seen"), headers=GATEWAY)
    page.browser.visit(track("Seen Again"), headers=GATEWAY)

    devices = {row.device for row in world.rows()}
    assert devices == {page.browser.device_id}
    assert PAGE not in devices


# --- journey 18: the server was first -----------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "distinct_id"),
    [("simplified", "$device:{}"), ("original", "{}"), ("legacy", "{}")],
)
def test_journey_18_the_page_starts_with_the_id_of_the_server(open_world, mode, distinct_id):
    world = open_world(identity=mode, **SHARING)
    browser = world.browser()

    answer = browser.visit(grant())

    a = browser.device_id
    fields = {"distinct_id": distinct_id.format(a), "$device_id": a}
    value = quote(json.dumps(fields, separators=(",", ":")), safe="!*'()")
    ends = "Max-Age=31536000; Path=/; Domain=shop.example; Secure; SameSite=Lax"
    assert f"{IDS}={value}; {ends}" in answer.cookies
    assert f"{IDS}=; Max-Age=0; Path=/; Secure; SameSite=Lax" in answer.cookies
    assert Page(browser).fields == fields


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("mode", ["simplified", "original"])
def test_journey_18_server_and_page_are_one_person(open_world, mode, source):
    world = open_world(identity=mode, **SHARING, **source)
    page = open_page(world)
    page.browser.visit(grant(), track("Served"))

    page.track("Opened")
    page.browser.visit(login("U1"), track("Logged In"))
    page.track("Opened Again")

    [(person, names)] = world.who_is_who().items()
    assert person == "U1"
    assert sorted(names) == ["Logged In", "Opened", "Opened Again", "Served"]
    assert world.standin.failures() == []


@pytest.mark.parametrize(
    ("mode", "is_new"),
    [("simplified", True), ("original", False), ("legacy", False)],
)
def test_journey_18_after_a_logout_the_page_goes_on_as_the_server_does(open_world, mode, is_new):
    world = open_world(identity=mode, **SHARING)
    page = open_page(world)
    page.browser.visit(grant(), login("U1"))
    a = page.fields["$device_id"]

    page.browser.visit(logout())

    assert page.fields["$device_id"] == page.browser.device_id
    assert (page.fields["$device_id"] != a) == is_new


@pytest.mark.parametrize("mode", MODES)
def test_journey_18_the_next_user_has_a_device_of_their_own_on_both_sides(open_world, mode):
    world = open_world(identity=mode, **SHARING)
    page = open_page(world)
    page.browser.visit(grant(), login("U1"), track("One"))
    a = page.fields["$device_id"]

    page.browser.visit(login("U2"), track("Two"))

    assert page.fields["$device_id"] == page.browser.device_id != a
    assert world.rows()[-1].device == page.browser.device_id


def test_journey_18_a_page_that_went_on_with_another_id_comes_back_at_a_navigation(open_world):
    world = open_world(**SHARING)
    page = open_page(world)
    page.browser.visit(grant())
    a = page.browser.device_id
    page.keep(device(OTHER))

    in_between = page.browser.visit(track("Fetched"))
    page.browser.visit(track("Opened"), headers=NAVIGATION)

    assert cookie_values(in_between, IDS) == []
    assert page.fields == device(a)


def test_journey_18_what_the_page_knows_is_not_told_again(open_world):
    world = open_world(**SHARING)
    page = open_page(world)
    page.browser.visit(grant())

    assert page.browser.visit(track("Opened"), headers=NAVIGATION).cookies == []


@pytest.mark.parametrize("headers", [(), (("cache-control", "public, s-maxage=60"),)])
@pytest.mark.parametrize("status", [200, 304])
def test_journey_18_a_page_that_is_rendered_with_our_id_is_nobody_elses(
    open_world, status, headers
):
    world = open_world()
    browser = world.browser()
    browser.visit(grant())

    answer = browser.visit(
        call(lambda tracker: tracker.bootstrap), start(status, *headers), headers=NAVIGATION
    )

    assert answer.notes == [device(browser.device_id)]
    assert answer.cookies == []
    assert answer.all("cache-control") == ["private, no-store"]


def test_journey_18_a_page_that_is_rendered_without_an_id_may_be_kept(open_world):
    shared = start(200, ("cache-control", "public"))

    answer = open_world().browser().visit(call(lambda tracker: tracker.bootstrap), shared)

    assert answer.notes == [{}]
    assert answer.all("cache-control") == ["public"]


def test_journey_18_without_a_grant_the_page_gets_nothing(open_world):
    world = open_world(**SHARING)

    assert world.browser().visit(track("Opened"), headers=NAVIGATION).cookies == []


# --- a denial clears both sides -----------------------------------------------------------------


@pytest.mark.parametrize("kind", [ADOPTING, SHARING], ids=["adopting", "sharing"])
@pytest.mark.parametrize("source", SOURCES)
def test_journey_18_a_withdrawal_clears_both_sides(open_world, kind, source):
    world = open_world(**kind, **source)
    page = open_page(world, device(PAGE))
    page.keep(device(PAGE), "")  # a copy for this host, which could hide the other
    page.browser.visit(grant(), login("U1"), track("Waiting"))
    world.clock.advance(1)

    page.browser.visit(deny(), track("Behind it"))

    assert page.browser.values(IDS) == []
    assert page.browser.values(OPT) == ["0"]
    assert page.browser.device_id is None
    assert world.rows() == []


@pytest.mark.parametrize("kind", [ADOPTING, SHARING], ids=["adopting", "sharing"])
def test_journey_18_a_signal_of_the_browser_clears_both_sides(open_world, kind):
    world = open_world(**kind)
    page = open_page(world, device(PAGE))
    page.browser.visit(grant(), track("Waiting"))
    world.clock.advance(1)

    page.browser.visit(track("Behind it"), headers=GPC)

    assert page.browser.values(IDS) == []
    assert page.browser.values(OPT) == ["0"]
    assert page.browser.device_id is None
    assert world.rows() == []


@pytest.mark.parametrize("mode", MODES)
def test_journey_18_a_denied_id_is_never_adopted_again(open_world, mode):
    world = open_world(identity=mode, **ADOPTING)
    page = open_page(world, device(PAGE))
    page.browser.visit(grant(), track("Waiting"))
    world.clock.advance(1)
    page.browser.visit(deny())
    world.clock.advance(1)

    page.keep(device(PAGE))  # a tab that did not hear of it
    page.browser.visit(grant(), track("Anew"))

    [(name, row)] = [(row["event"], row["properties"]) for row in arrived(world)]
    assert name == "Anew"
    assert row["$device_id"] == page.browser.device_id != PAGE


@pytest.mark.parametrize(
    ("settings", "keep"),
    [
        pytest.param(ADOPTING, lambda page: page.keep(device(PAGE)), id="the-page"),
        pytest.param(
            {"adopt_cookie": "visitor"},
            lambda page: page.browser.write("visitor", VISITOR),
            id="the-app",
        ),
    ],
)
@pytest.mark.parametrize(
    ("refuse", "headers"),
    [
        pytest.param([deny()], (), id="refused"),
        pytest.param([track("Behind it")], GPC, id="browser-objects"),
    ],
)
def test_a_denial_stops_an_adopted_id_that_no_cookie_of_ours_carries_yet(
    open_world, settings, keep, refuse, headers
):
    world = open_world(**settings)
    page = open_page(world)
    keep(page)
    shared = start(200, ("cache-control", "public"))
    page.browser.visit(track("Waiting"), shared, headers=GATEWAY)
    world.clock.advance(1)

    page.browser.visit(*refuse, headers=headers)

    assert page.browser.device_id is None
    assert world.rows() == []
    assert world.stats().dropped == {"stopped": 1}


@pytest.mark.parametrize("kind", [ADOPTING, SHARING], ids=["adopting", "sharing"])
def test_a_signal_that_has_gone_leaves_no_opt_out_behind(open_world, kind):
    world = open_world(**kind)
    page = open_page(world, device(PAGE))
    page.browser.visit(grant())
    page.browser.visit(look(), headers=GPC)
    world.clock.advance(1)
    opted_out = page.browser.values(OPT), page.browser.values(MARK)

    fetched = page.browser.visit(look(), read_consent())
    page.browser.visit(look(), headers=NAVIGATION)

    assert opted_out == (["0"], ["1"])
    assert fetched.notes[1] == ("granted", "cookie-granted", False)
    assert cookie_values(fetched, OPT) == []
    assert (page.browser.values(OPT), page.browser.values(MARK)) == (["1"], [])


def test_a_pages_own_opt_out_does_not_end_by_itself(open_world):
    world = open_world(**ADOPTING)
    page = open_page(world, device(PAGE))
    page.browser.visit(grant())
    page.browser.write(OPT, "0", SITE)
    page.browser.visit(look())

    answer = page.browser.visit(look(), read_consent(), headers=NAVIGATION)

    assert answer.notes[1] == ("denied", "manager-denied", False)
    assert (page.browser.values(OPT), page.browser.values(MARK)) == (["0"], [])


@pytest.mark.parametrize("kind", [ADOPTING, SHARING], ids=["adopting", "sharing"])
def test_a_grant_that_expires_ends_on_both_sides(open_world, kind):
    world = open_world(**kind)
    page = open_page(world, device(PAGE))
    page.browser.visit(grant())
    page.keep(device(PAGE))
    page.browser.write(OPT, "1", SITE)
    world.clock.advance(181 * DAY)

    page.browser.visit(track("Too Late"))

    assert (page.browser.values(IDS), page.browser.values(OPT)) == ([], [])
    assert page.browser.device_id is None
    assert world.rows() == []


def test_journey_18_a_new_grant_opts_the_page_in_again(open_world):
    world = open_world(**SHARING)
    page = open_page(world)
    page.browser.visit(grant())
    page.browser.visit(deny())
    world.clock.advance(1)

    page.browser.visit(grant())

    assert page.browser.values(OPT) == ["1"]
    assert page.fields == device(page.browser.device_id)


@pytest.mark.parametrize("kind", [ADOPTING, SHARING], ids=["adopting", "sharing"])
@pytest.mark.parametrize("has_ids", [True, False], ids=["with-its-ids", "without-its-ids"])
@pytest.mark.parametrize(
    "opt_out", [(OPT, "0"), ("mp_optout", "1")], ids=["of-today", "of-old-versions"]
)
def test_an_opt_out_in_the_page_stops_the_server(open_world, kind, has_ids, opt_out):
    world = open_world(**kind)
    page = open_page(world)
    page.browser.visit(grant(), track("Waiting"))
    world.clock.advance(1)
    if has_ids:
        page.keep(device(PAGE))
    else:
        page.browser.jar.pop(f"{IDS}@{SITE}", None)

    page.browser.write(*opt_out, SITE)
    answer = page.browser.visit(track("Behind it"), read_consent())

    assert answer.notes == [("denied", "manager-denied", False)]
    assert page.browser.values(IDS) == []
    assert page.browser.device_id is None
    assert world.rows() == []


def test_an_opt_in_in_the_page_is_no_grant(open_world):
    world = open_world(**ADOPTING)
    page = open_page(world, device(PAGE))
    page.browser.write(OPT, "1", SITE)

    answer = page.browser.visit(track("Opened"), read_consent())

    assert answer.notes == [("unknown", "no-choice", True)]
    assert world.rows() == []


def arrived(world: World) -> list[dict[str, Any]]:
    world.flush()
    return world.standin.events


# --- an app that kept an ID before us -----------------------------------------------------------

ROLL_OUTS = {
    "simplified": Story(
        [
            "/track Before: distinct_id=$device:A $device_id=A",
            "/import After: distinct_id=$device:A $device_id=A",
            "/import Signed Up: distinct_id=U1 $device_id=A $user_id=U1",
        ],
        ["U1: Before, After, Signed Up"],
    ),
    "original": Story(
        [
            "/track Before: distinct_id=A",
            "/import After: distinct_id=A $device_id=A",
            "/import $identify: distinct_id=U1 $identified_id=U1 $anon_id=A",
            "/import Signed Up: distinct_id=U1 $device_id=A $user_id=U1",
        ],
        ["U1: Before, After, Signed Up"],
    ),
    "legacy": Story(
        [
            "/track Before: distinct_id=A",
            "/track $create_alias: distinct_id=A alias=U1",
            "/import After: distinct_id=A $device_id=A",
            "/import Signed Up: distinct_id=U1 $device_id=A $user_id=U1",
        ],
        ["A: Before, After, Signed Up"],
    ),
}


def roll_out(world: World, visitor: str, **before: str) -> Browser:
    """Let the app have tracked a visitor by its own cookie, then add us and let them sign up."""
    send(world, "Before", **before)
    browser = world.browser()
    browser.write("visitor", visitor)
    browser.visit(grant(), track("After"))
    browser.visit(login("U1", new_user=True), track("Signed Up"))
    return browser


@pytest.mark.parametrize("mode", MODES)
def test_at_the_roll_out_nobody_splits_who_has_the_apps_cookie(open_world, mode):
    world = open_world(identity=mode, adopt_cookie="visitor")
    before = device(VISITOR) if mode == "simplified" else {"distinct_id": VISITOR}

    roll_out(world, VISITOR, **before)

    assert tell(world) == ROLL_OUTS[mode]
    assert world.standin.failures() == []


@pytest.mark.parametrize("mode", ["simplified", "original"])
def test_at_the_roll_out_identify_from_joins_the_same(open_world, mode):
    world = open_world(identity=mode, adopt_cookie="visitor", identify_from=read_session_user)
    before = device(VISITOR) if mode == "simplified" else {"distinct_id": VISITOR}

    roll_out(world, VISITOR, **before)

    assert tell(world) == ROLL_OUTS[mode]
    assert world.standin.failures() == []


@pytest.mark.parametrize(
    ("mode", "visitor", "reasons"),
    [
        # To Simplified, what the app called a bare `distinct_id` was a user.
        pytest.param("simplified", VISITOR, [], id="simplified-a-bare-id-was-a-user"),
        pytest.param(
            "original",
            "visitor-7",
            ["errAnonDistinctIdNonGUIDForm"],
            id="original-joins-only-a-uuid",
        ),
    ],
)
def test_some_apps_chose_an_id_that_mixpanel_cannot_join(open_world, mode, visitor, reasons):
    world = open_world(identity=mode, adopt_cookie="visitor")

    roll_out(world, visitor, distinct_id=visitor)

    people = list(world.who_is_who().values())
    assert people in ([["Before"], ["After", "Signed Up"]], [["Before", "After"], ["Signed Up"]])
    assert [failure.reason for failure in world.standin.failures()] == reasons


def test_after_the_roll_out_the_apps_cookie_may_go(open_world):
    world = open_world(adopt_cookie="visitor")
    browser = roll_out(world, VISITOR, **device(VISITOR))

    browser.write("visitor", OTHER)
    browser.visit(track("Changed"))
    del browser.jar["visitor"]
    browser.visit(track("Gone"))

    assert world.who_is_who() == {"U1": ["Before", "After", "Signed Up", "Changed", "Gone"]}


def test_who_has_an_id_of_ours_does_not_take_the_apps(open_world):
    world = open_world(adopt_cookie="visitor")
    browser = world.browser()
    browser.visit(grant())

    browser.write("visitor", VISITOR)
    browser.visit(track("Seen"))

    [row] = world.rows()
    assert row.device == browser.device_id != VISITOR


def test_the_id_of_the_page_comes_before_the_apps(open_world):
    world = open_world(adopt_cookie="visitor", **ADOPTING)
    page = open_page(world, device(PAGE))
    page.browser.write("visitor", VISITOR)

    page.browser.visit(grant(), track("Seen"))

    assert [row.device for row in world.rows()] == [PAGE]
