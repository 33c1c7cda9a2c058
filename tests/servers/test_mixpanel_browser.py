"""Pages with the real mixpanel-browser in Chromium, on real servers; the stand-in is Mixpanel.

The library comes from npm by `make managers`; nothing of it is kept in this repository.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import httpx
import pytest
from playwright.sync_api import Page, Request, Route

from mp_asgi.dev import StandIn, run_in_thread
from mp_asgi.dev.wire import WireRequest, parse_call
from tests.endpoints.browsing import CHROMIUM, open_browser, open_pages
from tests.servers.apps.hybrid import FILES, USER
from tests.servers.shops import TOKEN, run_shop

NEWEST, OLDER = VERSIONS = ("2.83.0", "2.47.0")
UVICORN = ["uvicorn", "--factory", "tests.servers.apps.hybrid:make_asgi", "--fd", "{fd}"]
GUNICORN = [
    *("gunicorn", "tests.servers.apps.hybrid:make_wsgi()", "--bind", "fd://{fd}"),
    *("--threads", "4", "--no-control-socket"),
]
VARIABLES = {
    "MP_ASGI_MOUNT": "/_mp",
    "MP_ASGI_ADOPT_BROWSER_ID": "1",
    "MP_ASGI_SHARE_ID": "1",
    "MP_ASGI_FIRST_PARTY": "1",
    # Headless Chromium says what it is.
    "MP_ASGI_EXCLUDE_BOTS": "0",
}
HOST = "www.shop.localhost"  # Chromium's own loopback; the library's cookies are shop.localhost's
MIXPANEL = "https://api-js.mixpanel.com"  # where the library sends without being told
PAGES_COOKIE = f"mp_{TOKEN}_mixpanel"

SHARED_OPT_OUT = {"opt_out_tracking_persistence_type": "cookie"}
DIRECT = {**SHARED_OPT_OUT, "batch_requests": False}
FIRST_PARTY = {**SHARED_OPT_OUT, "api_host": "/_mp", "batch_flush_interval_ms": 20}
IN_STORAGE = {**DIRECT, "persistence": "localStorage"}
LAST_MINUTE = {**FIRST_PARTY, "batch_flush_interval_ms": 60_000}  # nothing leaves before the page

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed on this machine"),
    pytest.mark.skipif(
        not all((FILES / f"mixpanel-browser-{version}").is_dir() for version in VERSIONS),
        reason="mixpanel-browser is not here; `make managers` brings it",
    ),
]

# The library takes what was answered out of these a moment later, if the page is still there.
QUEUES_ARE_EMPTY = f"""() => ["ev", "pp"].every(
    (queue) => (localStorage.getItem("__mpq_{TOKEN}_" + queue) ?? "[]") === "[]"
)"""
# It waits for twice its interval before it takes what another page has left.
TIME_HAS_PASSED = f"""() => {{
    const queue = "__mpq_{TOKEN}_ev";
    const left = localStorage.getItem(queue).replace(/"flushAfter":\\d+/g, '"flushAfter":0');
    localStorage.setItem(queue, left);
}}"""
# Every 10 s by itself.
SEND_RECORDING = """() => void setInterval(
    () => mixpanel.__get_recorder()?.activeRecording?.batcher.flush(), 50
)"""

Event = dict[str, Any]


@dataclass
class Site:
    """A site that runs, and the Mixpanel it believes in.

    Attributes:
        url: As visitors know it.
        other: Another visitor, who has agreed.
        mixpanel: Reaches the stand-in as a page would reach Mixpanel.
    """

    url: str
    standin: StandIn
    other: httpx.Client
    mixpanel: httpx.Client

    def arrived(self) -> list[Event]:
        """Answer the visitor's events, without Mixpanel's own, once whatever was sent has come."""
        # Another visitor's event, sent later, comes behind everything that was sent before it.
        name = f"barrier-{uuid4()}"
        self.other.get(f"/{name}").raise_for_status()
        self.standin.wait_for(lambda standin: name in names(standin.events))
        own = ("barrier", "$")
        return [event for event in self.standin.events if not event["event"].startswith(own)]

    def people(self, events: Sequence[Event]) -> set[str]:
        """Answer whose these events are in Mixpanel's eyes."""
        return {self.standin.who_is(event) for event in events}


@dataclass
class Visitor:
    """Somebody with a browser; their page has this version of the library, with these options."""

    page: Page
    site: Site
    version: str
    options: dict[str, Any] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)

    def go(self, act: str, *, has_library: bool = True) -> None:
        """Open the page on which the server acts."""
        path = f"{self.version}/{act}" if has_library else act
        self.page.goto(f"{self.site.url}/{path}?{quote(json.dumps(self.options))}")

    def note(self, request: Request) -> None:
        self.requests.append(request)

    def run(self, script: str) -> Any:
        return self.page.evaluate(script)

    def track(self, name: str) -> None:
        """Track in the page, and see that it is answered."""
        with self.expect_answer("/track/", name):
            self.run(f"mixpanel.track({json.dumps(name)})")

    @contextmanager
    def expect_answer(self, path: str, text: str) -> Iterator[None]:
        """See that what holds the text is answered, and that the library has heard of it."""
        with self.page.expect_response(
            lambda response: path in response.url and text in read_sent(response.request)
        ):
            yield
        self.page.wait_for_function(QUEUES_ARE_EMPTY)

    def ids(self) -> tuple[str, str]:
        """Answer what the page takes for its `distinct_id` and `$device_id`."""
        distinct_id, device_id = self.run(
            "[mixpanel.get_distinct_id(), mixpanel.get_property('$device_id')]"
        )
        return distinct_id, device_id

    def cookies(self) -> list[str]:
        return [cookie["name"] for cookie in self.page.context.cookies()]

    def sent(self) -> list[str]:
        """Answer the URLs to which the library sent something."""
        return [request.url for request in self.requests if request.method == "POST"]


def read_sent(request: Request) -> str:
    """Answer the messages of a request as JSON."""
    headers = {"content-type": request.headers.get("content-type", "")}
    body = request.post_data_buffer or b""
    call = parse_call(WireRequest("POST", "/track", "", headers, body), limit_bytes=len(body))
    return json.dumps(call.messages, ensure_ascii=False)


def names(events: Sequence[Event]) -> list[str]:
    return [event["event"] for event in events]


def plans(standin: StandIn) -> list[str]:
    """Answer the plans that people were given."""
    return [update["$set"]["plan"] for update in standin.people if "plan" in update.get("$set", {})]


def values(events: Sequence[Event], name: str) -> set[Any]:
    return {event["properties"].get(name) for event in events}


@contextmanager
def run_site(command: list[str], **variables: str) -> Iterator[Site]:
    mode: Any = variables.get("MP_ASGI_IDENTITY", "simplified")
    standin = StandIn(TOKEN, mode=mode)
    granted = {"X-MP-Consent": "granted"}
    with (
        run_in_thread(standin) as server,
        run_shop(command, server.url, **VARIABLES, **variables) as address,
        httpx.Client(base_url=address, headers=granted, timeout=10) as other,
        httpx.Client(base_url=server.url) as mixpanel,
    ):
        yield Site(address.replace("127.0.0.1", HOST), standin, other, mixpanel)


@pytest.fixture(scope="module")
def uvicorn_site() -> Iterator[Site]:
    """A site under the ASGI door; its project is in simplified mode."""
    with run_site(UVICORN) as site:
        yield site


@pytest.fixture(scope="module")
def gunicorn_site() -> Iterator[Site]:
    """A site under the WSGI door; its project is in original mode."""
    with run_site(GUNICORN, MP_ASGI_IDENTITY="original") as site:
        yield site


UNDER_UVICORN = [("uvicorn_site", version) for version in VERSIONS]
UNDER_GUNICORN = [("gunicorn_site", version) for version in VERSIONS]


def on(*grounds: tuple[str, str]) -> pytest.MarkDecorator:
    """Run a test with these sites and versions of the library."""
    return pytest.mark.parametrize("ground", grounds, indirect=True, ids=" ".join)


only_uvicorn = on(*UNDER_UVICORN)
only_newest = on(UNDER_UVICORN[0])


@pytest.fixture(params=[*UNDER_UVICORN, UNDER_GUNICORN[0]], ids=" ".join)
def ground(request: pytest.FixtureRequest) -> tuple[str, str]:
    found: tuple[str, str] = request.param
    return found


@pytest.fixture
def site(ground: tuple[str, str], request: pytest.FixtureRequest) -> Iterator[Site]:
    found: Site = request.getfixturevalue(ground[0])
    yield found
    found.arrived()  # what comes late is not the next test's
    assert found.standin.failures() == []
    assert found.standin.rejected == []
    found.standin.reset()


@pytest.fixture
def version(ground: tuple[str, str]) -> str:
    return ground[1]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with open_browser() as browser:
        yield browser


@pytest.fixture
def visit(browser: Any, version: str) -> Iterator[Callable[..., Visitor]]:
    complaints: list[str] = []
    with open_pages(browser, complaints) as open_page:

        def visit(site: Site, options: dict[str, Any]) -> Visitor:
            page = open_page("about:blank")
            visitor = Visitor(page, site, version, options)
            page.on("request", visitor.note)
            page.context.route(f"{MIXPANEL}/**", lambda route: forward(route, site))
            return visitor

        yield visit
    assert complaints == []


def forward(route: Route, site: Site) -> None:
    """Let the stand-in answer what a page sends to Mixpanel."""
    request = route.request
    reply = site.mixpanel.request(
        request.method,
        request.url.removeprefix(MIXPANEL),
        content=request.post_data_buffer,
        headers={"content-type": request.headers.get("content-type", "")},
    )
    here = {
        "access-control-allow-origin": site.url,
        "access-control-allow-credentials": "true",
    }
    route.fulfill(status=reply.status_code, body=reply.content, headers=here)


# One ID on both sides, where the page sends to Mixpanel itself


@on(*UNDER_UVICORN, *UNDER_GUNICORN)
def test_who_is_known_to_the_page_first_stays_who_they_are(site: Site, visit: Any) -> None:
    visitor = visit(site, DIRECT)
    visitor.go("home")
    distinct_id, device_id = visitor.ids()

    visitor.go("grant")
    visitor.track("Clicked")

    events = site.arrived()
    assert sorted(names(events)) == ["Clicked", "grant"]
    assert values(events, "$device_id") == {device_id}
    assert values(events, "distinct_id") == {distinct_id} == {f"$device:{device_id}"}
    assert visitor.ids() == (distinct_id, device_id)
    assert len(site.people(events)) == 1


def test_who_is_known_to_the_server_first_stays_who_they_are(site: Site, visit: Any) -> None:
    visitor = visit(site, DIRECT)
    visitor.go("grant", has_library=False)

    visitor.go("home")
    visitor.track("Clicked")

    events = site.arrived()
    assert sorted(names(events)) == ["Clicked", "grant", "home"]
    assert len(values(events, "distinct_id")) == 1
    assert len(site.people(events)) == 1
    assert visitor.cookies().count(PAGES_COOKIE) == 1


@only_uvicorn
def test_a_page_may_be_told_its_id_inline(site: Site, visit: Any) -> None:
    visitor = visit(site, DIRECT)
    visitor.go("grant", has_library=False)
    visitor.page.context.clear_cookies(name=PAGES_COOKIE)

    visitor.go("inline")
    visitor.track("Clicked")

    events = site.arrived()
    assert sorted(names(events)) == ["Clicked", "grant", "inline"]
    assert len(site.people(events)) == 1


def test_who_logs_in_on_both_sides_is_one_person(site: Site, visit: Any) -> None:
    visitor = visit(site, DIRECT)
    visitor.go("home")
    visitor.go("grant")

    visitor.go("login")
    visitor.run(f"mixpanel.identify('{USER}')")
    visitor.track("Clicked")

    events = site.arrived()
    assert {"grant", "login", "Clicked"} <= {*names(events)}
    assert len(site.people(events)) == 1


def test_after_a_logout_on_the_server_the_page_is_somebody_new(site: Site, visit: Any) -> None:
    visitor = visit(site, DIRECT)
    visitor.go("grant")
    visitor.go("login")
    visitor.run(f"mixpanel.identify('{USER}')")
    visitor.track("Before")

    visitor.go("logout")
    visitor.track("After")

    events = site.arrived()
    after = [event for event in events if event["event"] in {"logout", "After"}]
    before = [event for event in events if event not in after]
    assert len(site.people(after)) == len(site.people(before)) == 1
    assert site.people(after).isdisjoint(site.people(before))


# In localStorage, where no server sees it


def test_an_id_in_storage_is_kept_by_both_sides(site: Site, visit: Any) -> None:
    visitor = visit(site, IN_STORAGE)
    visitor.go("home")
    distinct_id, _ = visitor.ids()

    visitor.run("""fetch("/_mp/consent", {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: '{"analytics":"granted"}',
    }).then(agreeOnId)""")
    visitor.go("home")
    visitor.track("Clicked")

    events = site.arrived()
    assert sorted(names(events)) == ["Clicked", "home"]
    assert values(events, "distinct_id") == {distinct_id}


@only_uvicorn
def test_a_users_device_is_not_given_up_for_an_id_in_storage(site: Site, visit: Any) -> None:
    visitor = visit(site, IN_STORAGE)
    visitor.go("home")
    visitor.go("grant", has_library=False)
    visitor.go("login", has_library=False)

    visitor.go("home")
    visitor.run("agreed")
    visitor.track("Clicked")

    events = site.arrived()
    assert {"grant", "login", "home", "Clicked"} <= {*names(events)}
    assert len(site.people(events)) == 1


# Consent on both sides


@pytest.mark.parametrize("storage", ["cookie", "localStorage"])
def test_a_withdrawal_ends_both_sides_and_a_grant_begins_anew(
    site: Site, visit: Any, storage: str
) -> None:
    visitor = visit(site, {**DIRECT, "opt_out_tracking_persistence_type": storage})
    visitor.go("grant")
    visitor.track("Before")
    before = site.arrived()

    visitor.go("withdraw", has_library=False)
    assert {"mp_id", PAGES_COOKIE}.isdisjoint(visitor.cookies())
    visitor.requests.clear()
    visitor.go("home")
    visitor.run("mixpanel.track('Ignored')")

    assert visitor.run("mixpanel.has_opted_out_tracking()")
    assert {"mp_id", PAGES_COOKIE}.isdisjoint(visitor.cookies())
    assert visitor.sent() == []
    assert site.arrived() == before

    visitor.go("grant")
    visitor.track("After")

    after = [event for event in site.arrived() if event not in before]
    assert visitor.run("mixpanel.has_opted_in_tracking()")
    assert {"grant", "After"} <= {*names(after)}
    assert len(site.people(after)) == 1
    assert site.people(after).isdisjoint(site.people(before))


@only_uvicorn
def test_a_page_that_is_opted_out_by_default_begins_with_the_grant(site: Site, visit: Any) -> None:
    # Not in a cookie: there, the server would take the library's own opt-out for the visitor's.
    by_default = {"opt_out_tracking_by_default": True, "opt_out_persistence_by_default": True}
    visitor = visit(site, {"batch_requests": False, **by_default})
    visitor.go("home")
    visitor.run("mixpanel.track('Ignored')")
    visitor.go("home")

    assert visitor.cookies() == []
    assert visitor.sent() == []

    visitor.go("grant")
    visitor.track("Clicked")

    events = site.arrived()
    assert sorted(names(events)) == ["Clicked", "grant"]
    assert len(site.people(events)) == 1


@only_uvicorn
def test_who_opts_out_in_the_page_stops_the_server(site: Site, visit: Any) -> None:
    visitor = visit(site, DIRECT)
    visitor.go("grant")
    before = site.arrived()

    visitor.run("mixpanel.opt_out_tracking()")
    visitor.go("home")

    assert {"mp_id", PAGES_COOKIE}.isdisjoint(visitor.cookies())
    assert site.arrived() == before

    visitor.run("mixpanel.opt_in_tracking({ track() {} })")
    visitor.go("home")
    visitor.go("home")

    assert "mp_id" not in visitor.cookies()
    assert site.arrived() == before


@only_uvicorn
def test_events_that_wait_are_forgotten_with_an_opt_out_in_the_page(visit: Any) -> None:
    patient = {"MP_ASGI_FLUSH_INTERVAL": "600", "MP_ASGI_CLOSE_TIMEOUT": "20"}

    # Nothing is sent before the server ends.
    with run_site(UVICORN, **patient) as site:
        visitor = visit(site, DIRECT)
        visitor.go("grant")
        visitor.run("mixpanel.opt_out_tracking()")
        visitor.go("home")
        site.other.get("/elsewhere").raise_for_status()
        assert site.standin.events == []

    assert names(site.standin.events) == ["elsewhere"]


# The first-party route


def test_a_page_sends_nothing_out_before_the_grant(site: Site, visit: Any) -> None:
    visitor = visit(site, FIRST_PARTY)
    visitor.go("home")
    visitor.track("Too early")
    visitor.go("grant")

    visitor.track("Clicked")

    events = site.arrived()
    assert sorted(names(events)) == ["Clicked", "grant"]
    assert len(site.people(events)) == 1
    assert all(url.startswith(f"{site.url}/_mp/") for url in visitor.sent())


@only_uvicorn
def test_a_page_sends_events_and_profiles_in_batches(site: Site, visit: Any) -> None:
    visitor = visit(site, FIRST_PARTY)
    visitor.go("grant")
    visitor.go("login")
    visitor.run(f"mixpanel.identify('{USER}')")

    with visitor.expect_answer("/engage/", "pro"), visitor.expect_answer("/track/", "Second"):
        visitor.run("""
            mixpanel.track("First", { mood: "😀 ça va" });
            mixpanel.track("Second");
            mixpanel.people.set({ plan: "pro 😀" });
        """)

    events = site.arrived()
    first = next(event for event in events if event["event"] == "First")
    assert first["properties"]["mood"] == "😀 ça va"
    assert "Second" in names(events)
    assert len(site.people(events)) == 1
    site.standin.wait_for(lambda standin: "pro 😀" in plans(standin))
    assert {update["$distinct_id"] for update in site.standin.people} == {USER}


def leave(visitor: Visitor) -> None:
    visitor.go("home", has_library=False)


def close(visitor: Visitor) -> None:
    visitor.page.close()


@only_uvicorn
@pytest.mark.parametrize("end", [leave, close])
def test_what_a_page_still_holds_leaves_with_it_and_counts_once(
    site: Site, visit: Any, end: Callable[[Visitor], None]
) -> None:
    visitor = visit(site, LAST_MINUTE)
    context = visitor.page.context
    visitor.go("grant")
    visitor.run("mixpanel.track('Left', { mood: '😀' })")

    end(visitor)
    site.standin.wait_for(lambda standin: "Left" in names(standin.events))
    visitor.page = context.new_page()
    visitor.go("home", has_library=False)
    visitor.run(TIME_HAS_PASSED)
    with visitor.expect_answer("/track/", "Left"):  # the library sends it once more
        visitor.go("home")

    left = [event for event in site.arrived() if event["event"] == "Left"]
    assert len(left) > 1
    assert values(left, "mood") == {"😀"}
    for name in ("$insert_id", "time", "distinct_id"):
        assert len(values(left, name)) == 1


@only_uvicorn
def test_a_page_that_keeps_nothing_has_the_servers_id(site: Site, visit: Any) -> None:
    visitor = visit(site, {**FIRST_PARTY, "disable_persistence": True})
    visitor.go("grant")
    visitor.track("First")
    visitor.go("home")
    visitor.track("Second")

    events = site.arrived()
    assert sorted(names(events)) == ["First", "Second", "grant", "home"]
    assert len(values(events, "distinct_id")) == 1


@only_newest
def test_endpoints_may_have_other_names(visit: Any) -> None:
    routes = {"track": "t/", "engage": "e/", "flags": "f/"}
    variables = {"MP_ASGI_FIRST_PARTY_NAMES": "track=t,engage=e,flags=f"}

    with run_site(UVICORN, **variables) as site:
        visitor = visit(site, {**FIRST_PARTY, "api_routes": routes, "flags": True})
        visitor.go("grant")
        visitor.go("login")
        visitor.run(f"mixpanel.identify('{USER}')")
        with visitor.expect_answer("/_mp/e/", "pro"), visitor.expect_answer("/_mp/t/", "Clicked"):
            visitor.run("mixpanel.track('Clicked'); mixpanel.people.set({ plan: 'pro' })")
        events = site.arrived()
        site.standin.wait_for(lambda standin: "pro" in plans(standin))

    assert "Clicked" in names(events)


@only_newest
def test_remote_settings_switch_a_recording_off_that_would_go_nowhere(
    site: Site, visit: Any
) -> None:
    visitor = visit(
        site, {**FIRST_PARTY, "record_sessions_percent": 100, "remote_settings_mode": "strict"}
    )

    with visitor.page.expect_response("**/_mp/settings/**") as settings:
        visitor.go("grant")
    visitor.run("mixpanel.__get_recording_init_promise()")

    assert settings.value.status == 200
    assert visitor.run("mixpanel.get_session_recording_properties()") == {}


@only_newest
def test_replay_and_flags_are_answered_and_go_nowhere(site: Site, visit: Any) -> None:
    visitor = visit(site, {**FIRST_PARTY, "record_sessions_percent": 100, "flags": True})

    with visitor.page.expect_response("**/_mp/flags/**") as flags:
        visitor.go("grant")
    with visitor.page.expect_response("**/_mp/record/**") as record:
        visitor.run(SEND_RECORDING)

    assert [reply.value.status for reply in (flags, record)] == [200, 200]
    assert names(site.arrived()) == ["grant"]
    assert {request.path for request in site.standin.requests} == {"/import"}
