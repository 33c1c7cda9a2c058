"""Django's door: a third one, with the same cookies, events and users as the other two."""

import asyncio
import gc
import io
import json
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import ModuleType
from typing import Any
from wsgiref.util import FileWrapper

import pytest
from asgiref.testing import ApplicationCommunicator
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.core.management import call_command
from django.db import connection as database
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.test import RequestFactory
from django.test.utils import CaptureQueriesContext, override_settings
from django.utils.functional import SimpleLazyObject
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.test import Client

from mp_asgi import (
    ANONYMOUS,
    Analytics,
    Consumer,
    MixpanelMiddleware,
    MixpanelWSGIMiddleware,
    SettingsError,
    Tracker,
)
from mp_asgi.endpoints.message import MAX_BODY_BYTES
from mp_asgi.integrations import django as door
from tests.integrations import django_project as shop
from tests.probes import Project, http_scope, open_project
from tests.test_wsgi import make_environ, serve

GRANTED = {"X-MP-Consent": "granted"}
PAGE = {**GRANTED, "Accept": "text/html"}
BEHIND_NOTHING = [shop.MIXPANEL, shop.SESSION, shop.CSRF, shop.AUTHENTICATION]
KINDS = pytest.mark.parametrize("kind", ["wsgi", "asgi"])


class Answer:
    """What a browser got."""

    def __init__(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    def all(self, name: str) -> list[str]:
        return [value for found, value in self.headers if found.lower() == name]

    def cookie_names(self) -> list[str]:
        return [value.partition("=")[0].strip() for value in self.all("set-cookie")]


class Browser:
    """A browser that keeps the cookies of one Django project."""

    def __init__(self, kind: str, wrap: Any = None) -> None:
        handler = WSGIHandler() if kind == "wsgi" else ASGIHandler()
        app: Any = handler if wrap is None else wrap(handler)
        self.kind = kind
        self.client: Any = Client(app) if kind == "wsgi" else TestClient(app)

    def get(self, path: str, headers: dict[str, str] = GRANTED) -> Answer:
        return self.send("GET", path, headers)

    def send(self, method: str, path: str, headers: dict[str, str], body: bytes = b"") -> Answer:
        if self.kind == "wsgi":
            got = self.client.open(path, method=method, headers=headers, data=body, buffered=True)
            return Answer(got.status_code, got.headers.to_wsgi_list(), got.data)
        got = self.client.request(method, path, headers=headers, content=body)
        return Answer(got.status_code, list(got.headers.multi_items()), got.content)


@contextmanager
def open_shop(**settings: Any) -> Iterator[Project]:
    """Answer a project of Mixpanel's that Django's `with_mixpanel` tracks for."""
    with open_project(**settings) as project, override_settings(SHOP_ANALYTICS=project.analytics):
        yield project


@pytest.fixture(scope="module", autouse=True)
def users() -> Iterator[dict[str, str]]:
    call_command("migrate", verbosity=0)
    names = ("ada", "bob")
    yield {name: str(shop.User.objects.create_user(name).pk) for name in names}
    shop.User.objects.filter(username__in=names).delete()


@pytest.fixture(autouse=True)
def shop_analytics(project: Project) -> Iterator[None]:
    with override_settings(SHOP_ANALYTICS=project.analytics):
        yield


def events(project: Project) -> list[tuple[str, Any, Any]]:
    found = [(item["event"], item["properties"]) for item in project.deliver()]
    return [(name, values.get("$device_id"), values.get("$user_id")) for name, values in found]


def wrap_outside(kind: str, project: Project) -> Any:
    middleware: Any = MixpanelWSGIMiddleware if kind == "wsgi" else MixpanelMiddleware
    return lambda app: middleware(app, analytics=project.analytics)


# --- the tracker --------------------------------------------------------------------------------


@KINDS
@pytest.mark.parametrize("path", ["/", "/async/"], ids=["sync-view", "async-view"])
def test_a_view_finds_the_tracker_and_the_browser_gets_its_id(
    project: Project, kind: str, path: str
) -> None:
    browser = Browser(kind)

    first, second = browser.get(path), browser.get(path)

    assert first.cookie_names() == ["mp_id"]
    assert (first.all("cache-control"), first.all("vary")) == (["private"], ["Cookie"])
    assert second.cookie_names() == []
    assert len({device for _, device, _ in events(project)}) == 1
    assert project.delivered_names() == ["Seen", "Seen"]


@KINDS
def test_every_way_leads_to_the_same_tracker(kind: str) -> None:
    assert Browser(kind).get("/compare/").body == b"[true, true]"


@KINDS
def test_a_response_of_a_view_that_does_not_track_stays_as_it_was(kind: str) -> None:
    with_us = Browser(kind).get("/ignore/")
    with override_settings(MIDDLEWARE=[shop.SESSION, shop.CSRF, shop.AUTHENTICATION]):
        without_us = Browser(kind).get("/ignore/")

    assert (with_us.headers, with_us.body) == (without_us.headers, without_us.body)


@KINDS
def test_an_error_page_carries_the_cookie_and_its_events_are_sent(
    project: Project, kind: str
) -> None:
    answer = Browser(kind).get("/fail/")

    assert (answer.status, answer.cookie_names()) == (500, ["mp_id"])
    assert project.delivered_names() == ["Tried"]


@override_settings(DEBUG_PROPAGATE_EXCEPTIONS=True)
def test_events_are_sent_when_nobody_makes_an_error_page(project: Project) -> None:
    with pytest.raises(RuntimeError):
        Browser("wsgi").get("/fail/")

    assert project.delivered_names() == ["Tried"]


@pytest.mark.parametrize(
    ("kind", "path"),
    [("wsgi", "/stream/"), ("asgi", "/stream-async/")],
    ids=["wsgi", "asgi"],
)
def test_events_of_a_stream_follow_as_they_come(project: Project, kind: str, path: str) -> None:
    answer = Browser(kind).get(path)

    assert (answer.body, answer.cookie_names()) == (b"onetwo", ["mp_id"])
    assert project.delivered_names() == ["Opened", "one", "two"]
    assert len({device for _, device, _ in events(project)}) == 1


def test_a_file_reaches_the_server_as_its_file_wrapper_made_it(project: Project) -> None:
    environ = make_environ(PATH_INFO="/download/", **{"wsgi.file_wrapper": FileWrapper})

    body = WSGIHandler()(environ, lambda *_: None)

    assert type(body) is FileWrapper
    body.close()
    assert project.delivered_names() == ["Downloaded"]


def test_events_of_a_client_that_hung_up_are_sent(project: Project) -> None:
    reached = asyncio.Event()

    async def wait(request: HttpRequest) -> HttpResponse:
        request.mixpanel.track("Waited")
        reached.set()
        await asyncio.Event().wait()
        raise AssertionError

    async def hang_up() -> None:
        scope = http_scope((b"x-mp-consent", b"granted"), path="/wait/", raw_path=b"/wait/")
        caller = ApplicationCommunicator(ASGIHandler(), scope)
        await caller.send_input({"type": "http.request"})
        await reached.wait()
        await caller.send_input({"type": "http.disconnect"})
        await caller.wait()

    with override_settings(ROOT_URLCONF=(shop.path("wait/", wait),)):
        asyncio.run(hang_up())

    assert project.delivered_names() == ["Waited"]


RUNNING: ContextVar[Tracker | None] = ContextVar("running", default=None)
TWICE = pytest.mark.parametrize("is_inside", [False, True], ids=["alone", "inside-another-of-ours"])


@KINDS
@TWICE
def test_who_asks_which_request_runs_finds_this_one_while_it_runs(
    project: Project, kind: str, is_inside: bool
) -> None:
    project.analytics.requests = RUNNING
    seen = []

    def ask(request: HttpRequest) -> HttpResponse:
        seen.append(RUNNING.get() is request.mixpanel)
        return HttpResponse()

    with open_project() as outer, override_settings(ROOT_URLCONF=(shop.path("ask/", ask),)):
        Browser(kind, wrap_outside(kind, outer) if is_inside else None).get("/ask/")
        refused = [outer.analytics.stats().refused, project.analytics.stats().refused]

    assert seen == [True]
    assert RUNNING.get() is None
    assert refused == [{}, {}]


def stream_who_runs(seen: list[bool], *, is_async: bool) -> Any:
    """Answer a view whose stream notes of each part whether its own request runs."""

    def show(request: HttpRequest) -> HttpResponse:
        def note(part: str) -> str:
            seen.append(RUNNING.get() is request.mixpanel)
            return part

        def parts() -> Iterator[str]:
            yield from map(note, ("one", "two"))
            note("end")

        async def parts_async() -> AsyncIterator[str]:
            for part in parts():
                await asyncio.sleep(0)
                yield part

        return StreamingHttpResponse(parts_async() if is_async else parts())

    return show


@KINDS
@TWICE
@pytest.mark.parametrize("is_async", [False, True], ids=["sync-stream", "async-stream"])
@pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume")
def test_a_stream_runs_as_its_request(
    project: Project, kind: str, is_inside: bool, is_async: bool
) -> None:
    seen: list[bool] = []
    project.analytics.requests = RUNNING
    show = stream_who_runs(seen, is_async=is_async)

    with open_project() as outer, override_settings(ROOT_URLCONF=(shop.path("parts/", show),)):
        browser = Browser(kind, wrap_outside(kind, outer) if is_inside else None)
        assert browser.get("/parts/").body == b"onetwo"

    assert seen == [True] * 3


def test_between_two_parts_of_a_stream_no_request_runs(project: Project) -> None:
    project.analytics.requests = RUNNING
    middleware = door.MixpanelMiddleware(
        stream_who_runs([], is_async=False), analytics=project.analytics
    )

    response = middleware(RequestFactory().get("/"))

    assert [(part, RUNNING.get()) for part in response] == [(b"one", None), (b"two", None)]
    assert RUNNING.get() is None


def test_between_two_parts_of_an_async_stream_no_request_runs(project: Project) -> None:
    project.analytics.requests = RUNNING

    async def show(request: HttpRequest) -> HttpResponse:
        response: HttpResponse = stream_who_runs([], is_async=True)(request)
        return response

    async def read() -> list[Any]:
        middleware = door.MixpanelMiddleware(show, analytics=project.analytics)
        response = await middleware(RequestFactory().get("/"))
        return [(part, RUNNING.get()) async for part in response] + [RUNNING.get()]

    assert asyncio.run(read()) == [(b"one", None), (b"two", None), None]


def test_a_file_that_is_sent_as_the_current_request_is_still_a_file(project: Project) -> None:
    project.analytics.requests = RUNNING
    environ = make_environ(PATH_INFO="/download/", **{"wsgi.file_wrapper": FileWrapper})

    body = WSGIHandler()(environ, lambda *_: None)

    assert type(body) is FileWrapper
    body.close()


class OddResponse(HttpResponse):
    """A response of a middleware between, with headers that are none."""

    def items(self) -> Any:
        yield "X-Odd", 7


@KINDS
@pytest.mark.parametrize("path", ["/odd/", "/odd-and-tracked/"], ids=["unused", "used"])
def test_a_response_that_cannot_be_read_is_the_servers_matter(kind: str, path: str) -> None:
    def show(request: HttpRequest) -> HttpResponse:
        if "tracked" in request.path:
            request.mixpanel.track("Seen")
        return OddResponse("<p>odd</p>")

    paths = (shop.path("odd/", show), shop.path("odd-and-tracked/", show))
    with (
        open_shop(track_pageviews=True) as project,
        override_settings(ROOT_URLCONF=paths, MIDDLEWARE=[shop.MIXPANEL]),
    ):
        middleware: Any = shop.with_mixpanel(show)
        response = middleware(RequestFactory(headers=PAGE).get(path))
        stats = project.analytics.stats()

    assert (response.status_code, response.content) == (200, b"<p>odd</p>")
    assert stats.refused["failed_call"] == 1 + ("tracked" in path)


def test_a_request_leaves_no_cyclic_garbage() -> None:
    middleware = door.MixpanelMiddleware(shop.show, analytics=shop.settings.SHOP_ANALYTICS)
    requests = RequestFactory(headers=GRANTED)
    middleware(requests.get("/"))
    gc.collect()
    gc.disable()

    try:
        for _ in range(100):
            middleware(requests.get("/"))
        found = gc.collect()
    finally:
        gc.enable()

    assert found == 0


# --- cookies and caches -------------------------------------------------------------------------


def shapes(answer: Answer) -> list[tuple[str, bool, list[str]]]:
    """Answer name and attributes of each cookie, and whether it has a value; that is random."""
    found = []
    for cookie in answer.all("set-cookie"):
        pair, *attributes = (part.strip() for part in cookie.split(";"))
        name, _, value = pair.partition("=")
        found.append((name, bool(value), sorted(map(str.lower, attributes))))
    return sorted(found)


@pytest.mark.parametrize("path", ["/", "/grant/", "/deny/"], ids=["minted", "granted", "denied"])
def test_the_cookies_are_those_of_the_other_doors(path: str) -> None:
    page = {**PAGE, "Host": "www.shop.test"}  # mixpanel-browser has cookies for two domains there
    borrow = "tests.integrations.django_project.borrow"
    with open_shop(share_id=True, cookie_domain="shop.test", cookie_secure="on") as project:
        ours = Browser("wsgi").get(path, page)
        with override_settings(MIDDLEWARE=[shop.SESSION, shop.AUTHENTICATION, borrow]):
            theirs = Browser("wsgi", wrap_outside("wsgi", project)).get(path, page)

    assert len(shapes(ours)) > 1
    assert shapes(ours) == shapes(theirs)


@pytest.mark.parametrize(
    ("said", "answered"),
    [("max-age=60", "max-age=60, private"), ("private", "private"), ("no-store", "no-store")],
)
def test_a_cookie_adds_to_what_the_view_says_to_caches(said: str, answered: str) -> None:
    answer = Browser("wsgi").get(f"/cache/?say={said}")

    assert answer.cookie_names() == ["mp_id"]
    assert answer.all("cache-control") == [answered]
    assert answer.all("vary") == ["Accept-Language, Cookie"]


def test_a_minted_cookie_stays_off_what_a_shared_cache_keeps() -> None:
    answer = Browser("wsgi").get("/cache/?say=public")

    assert answer.cookie_names() == []
    assert (answer.all("cache-control"), answer.all("vary")) == (["public"], ["Accept-Language"])


@KINDS
def test_an_act_makes_its_response_private_for_every_cache(kind: str) -> None:
    answer = Browser(kind).get("/grant/", {})

    assert answer.all("cache-control") == ["private, no-store"]
    assert answer.all("cdn-cache-control") == []
    assert sorted(answer.cookie_names()) == ["mp_consent", "mp_id"]


def test_the_apps_own_cookies_stay() -> None:
    assert "shop" in Browser("wsgi").get("/deny/").cookie_names()


def test_an_unchanged_page_gets_no_minted_cookie(project: Project) -> None:
    answer = Browser("wsgi").get("/not-modified/")

    assert (answer.status, answer.cookie_names()) == (304, [])
    assert project.delivered_names() == ["Seen"]


@KINDS
@override_settings(SECURE_PROXY_SSL_HEADER=("HTTP_X_FORWARDED_PROTO", "https"))
def test_djangos_own_word_on_https_counts(kind: str) -> None:
    answer = Browser(kind).get("/", {**GRANTED, "X-Forwarded-Proto": "https"})

    assert answer.cookie_names() == ["__Host-mp_id"]


# --- users --------------------------------------------------------------------------------------


@pytest.fixture
def users_project() -> Iterator[Project]:
    with open_shop(identify_from="django", strict=True) as project:
        yield project


PLACES = pytest.mark.parametrize(
    "middleware",
    [[shop.SESSION, shop.CSRF, shop.AUTHENTICATION, shop.MIXPANEL], BEHIND_NOTHING],
    ids=["behind-authentication", "first"],
)


@KINDS
@PLACES
@pytest.mark.parametrize("end", ["", "-async"], ids=["sync-views", "async-views"])
def test_login_and_logout_are_followed(
    users_project: Project, users: dict[str, str], kind: str, middleware: list[str], end: str
) -> None:
    seen = "/async/" if end else "/"
    with override_settings(MIDDLEWARE=middleware):
        browser = Browser(kind)
        for path in (seen, f"/log-in{end}/ada/", seen, f"/log-out{end}/", seen):
            assert browser.get(path).status == 200

    found = events(users_project)
    assert [(name, user) for name, _, user in found] == [
        ("Seen", None),
        ("Came", users["ada"]),
        ("Seen", users["ada"]),
        ("Left", None),
        ("Seen", None),
    ]
    first, *_, last = (device for _, device, _ in found)
    assert [device for _, device, _ in found] == [first, first, first, last, last]
    assert first != last


@KINDS
def test_another_user_of_the_browser_gets_another_device(
    users_project: Project, users: dict[str, str], kind: str
) -> None:
    browser = Browser(kind)

    for name in ("ada", "bob"):
        browser.get(f"/log-in/{name}/")

    (_, ours, first), (_, theirs, second) = events(users_project)
    assert (first, second) == (users["ada"], users["bob"])
    assert ours != theirs


@KINDS
@override_settings(MIDDLEWARE=[shop.MIXPANEL])
def test_without_djangos_users_nobody_can_tell(users_project: Project, kind: str) -> None:
    assert Browser(kind).get("/").status == 200
    assert [(name, user) for name, _, user in events(users_project)] == [("Seen", None)]


def test_a_view_that_does_not_track_costs_no_query(users_project: Project) -> None:
    browser = Browser("wsgi")
    browser.get("/log-in/ada/")

    with CaptureQueriesContext(database) as queries:
        browser.get("/ignore/")

    assert len(queries) == 0


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"identify_from": lambda connection: None},
        {"identify_from": "django", "enabled": False},
    ],
    ids=["nobody-asks", "the-app-asks-elsewhere", "switched-off"],
)
def test_who_is_not_asked_for_costs_no_query(settings: dict[str, Any]) -> None:
    with open_shop(**settings):
        browser = Browser("wsgi")
        browser.get("/log-in/ada/")
        with CaptureQueriesContext(database) as queries:
            browser.get("/")

    assert len(queries) == 0


class BrokenUser:
    """A user whose table does not answer."""

    @property
    def is_authenticated(self) -> bool:
        raise OSError


@KINDS
def test_a_user_who_cannot_be_read_stays_unnamed(kind: str) -> None:
    def show(request: HttpRequest) -> HttpResponse:
        request.user = BrokenUser()
        return shop.show(request)

    with (
        open_shop(identify_from="django") as project,
        override_settings(ROOT_URLCONF=(shop.path("broken/", show),)),
    ):
        answer = Browser(kind).get("/broken/")
        found = events(project)
        stats = project.analytics.stats()

    assert (answer.status, [(name, user) for name, _, user in found]) == (200, [("Seen", None)])
    assert stats.refused == {"failed_call": 1}


def test_a_lazy_user_of_the_apps_own_counts_in_an_async_view(users_project: Project) -> None:
    async def show(request: HttpRequest) -> HttpResponse:
        request.user = SimpleLazyObject(lambda: shop.User(pk=7))
        request.mixpanel.track("Seen")
        return HttpResponse()

    with override_settings(ROOT_URLCONF=(shop.path("own/", show),)):
        Browser("asgi").get("/own/")

    assert [(name, user) for name, _, user in events(users_project)] == [("Seen", "7")]


# --- around it, another one of ours -------------------------------------------------------------


@KINDS
def test_inside_another_one_of_ours_it_uses_its_tracker(
    users_project: Project, users: dict[str, str], kind: str
) -> None:
    browser = Browser(kind, wrap_outside(kind, users_project))

    assert browser.get("/compare/").body == b"[true, true]"
    answer = browser.get("/log-in/ada/")

    assert answer.cookie_names().count("mp_id") == 1
    assert [(name, user) for name, _, user in events(users_project)] == [("Came", users["ada"])]


@KINDS
def test_inside_another_one_of_ours_a_page_view_knows_user_and_route(
    users: dict[str, str], kind: str
) -> None:
    with open_shop(identify_from="django", track_pageviews=True, strict=True) as project:
        browser = Browser(kind, wrap_outside(kind, project))
        browser.get("/log-in/ada/")
        browser.get("/ignore/", PAGE)

        _, page = project.deliver()

    assert page["event"] == "$mp_web_page_view"
    assert page["properties"]["$user_id"] == users["ada"]
    assert page["properties"]["current_url_route"] == "/ignore/"


@KINDS
def test_inside_another_one_of_ours_a_page_is_looked_at_once(kind: str) -> None:
    with open_shop(track_pageviews=True) as project:
        Browser(kind, wrap_outside(kind, project)).get("/ignore/", {"Accept": "text/html"})

        assert project.analytics.stats().refused == {"no-choice": 1}


@KINDS
def test_inside_one_with_other_settings_for_the_same_token_that_one_rules(kind: str) -> None:
    with open_project() as outer, open_shop(mount="/_mp") as inner:
        browser = Browser(kind, wrap_outside(kind, outer))
        answers = [browser.get("/"), browser.get("/_mp/consent")]

        assert answers[0].cookie_names() == ["mp_id"]
        assert answers[1].status == 404
        assert (outer.delivered_names(), inner.delivered_names()) == (["Seen"], [])


@KINDS
def test_inside_another_projects_middleware_both_serve_the_request(
    project: Project, other_project: Project, kind: str
) -> None:
    def after(app: Any) -> Any:
        """Track for the outer project once Django has answered."""
        if kind == "wsgi":

            def track(environ: Any, start_response: Any) -> Any:
                body = app(environ, start_response)
                environ["mp_asgi.tracker"].track("Outer")
                return body

        else:

            async def track(scope: Any, receive: Any, send: Any) -> None:
                await app(scope, receive, send)
                scope["mp_asgi.tracker"].track("Outer")

        return wrap_outside(kind, other_project)(track)

    Browser(kind, after).get("/")

    assert project.delivered_names() == ["Seen"]
    assert other_project.delivered_names() == ["Outer"]


def test_a_retry_with_the_environ_of_a_request_that_is_over_is_a_new_one(project: Project) -> None:
    environ = make_environ(PATH_INFO="/")
    handler = WSGIHandler()

    trackers = []
    for _ in range(2):
        serve(handler, environ)
        trackers.append(environ["mp_asgi.tracker"])

    assert trackers[0] is not trackers[1]
    assert project.delivered_names() == ["Seen", "Seen"]


# --- the endpoints ------------------------------------------------------------------------------


@pytest.fixture
def mounted() -> Iterator[Project]:
    with open_shop(mount="/_mp", strict=True) as project:
        yield project


SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin", "Content-Type": "application/json"}
GRANT = b'{"analytics": "granted"}'


@KINDS
@PLACES
def test_the_banner_may_post_a_decision_past_the_csrf_check(
    mounted: Project, kind: str, middleware: list[str]
) -> None:
    with override_settings(MIDDLEWARE=middleware):
        browser = Browser(kind)
        answer = browser.send("POST", "/_mp/consent", SAME_ORIGIN, GRANT)
        refused = browser.send("POST", "/ignore/", SAME_ORIGIN, GRANT)

    assert (answer.status, refused.status) == (200, 403)
    assert b'"granted"' in answer.body
    assert answer.all("content-type") == ["application/json"]
    assert answer.all("cache-control") == ["private, no-store"]
    assert sorted(answer.cookie_names()) == ["mp_consent", "mp_id"]


@KINDS
def test_what_was_agreed_to_at_the_endpoint_holds_in_the_views(mounted: Project, kind: str) -> None:
    browser = Browser(kind)

    browser.send("POST", "/_mp/consent", SAME_ORIGIN, GRANT)
    browser.get("/", {})

    assert mounted.delivered_names() == ["Seen"]


@KINDS
@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/_mp/consent", 200),
        ("HEAD", "/_mp/consent", 200),
        ("GET", "/_mp/banner.js", 200),
        ("PUT", "/_mp/consent", 405),
        ("GET", "/_mp/nothing", 404),
        ("GET", "/_mpx", 404),
    ],
)
def test_every_endpoint_answers_and_nothing_else(
    mounted: Project, kind: str, method: str, path: str, status: int
) -> None:
    answer = Browser(kind).send(method, path, {})

    assert answer.status == status
    assert path == "/_mpx" or answer.all("x-content-type-options") == ["nosniff"]


@KINDS
def test_a_script_that_the_browser_has_is_not_sent_again(mounted: Project, kind: str) -> None:
    browser = Browser(kind)
    (tag,) = browser.get("/_mp/banner.js").all("etag")

    answer = browser.get("/_mp/banner.js", {"If-None-Match": tag})

    assert (answer.status, answer.body, answer.all("content-type")) == (304, b"", [])


@KINDS
@pytest.mark.parametrize(
    "decision",
    [b'{"analytics": "granted", "x": "%s"}' % (b"x" * 20_000), b"", b"{"],
    ids=["too-long", "empty", "broken"],
)
def test_a_body_that_is_no_decision_changes_nothing(
    mounted: Project, kind: str, decision: bytes
) -> None:
    answer = Browser(kind).send("POST", "/_mp/consent", SAME_ORIGIN, decision)

    assert (answer.status // 100, answer.cookie_names()) == (4, [])


class Breaking(io.BytesIO):
    """The input of a client that hung up."""

    def read(self, size: int | None = -1, /) -> bytes:
        raise OSError


def post_consent(**values: Any) -> str:
    posted = {"REQUEST_METHOD": "POST", "CONTENT_TYPE": "application/json", **values}
    environ = make_environ(PATH_INFO="/_mp/consent", HTTP_SEC_FETCH_SITE="same-origin", **posted)
    gateway, _ = serve(WSGIHandler(), environ)
    status: str = gateway.starts[-1][0]
    return status


@pytest.mark.parametrize(
    ("length", "status"),
    [(len(GRANT), "200 OK"), (len(GRANT) + 1, "400 Bad Request"), ("9" * 5_000, "400 Bad Request")],
    ids=["whole", "half", "absurd"],
)
def test_half_a_decision_of_a_client_that_hung_up_is_none(
    mounted: Project, length: object, status: str
) -> None:
    values = {"CONTENT_LENGTH": str(length), "wsgi.input": io.BytesIO(GRANT)}

    assert post_consent(**values) == status


def test_a_body_that_cannot_be_read_is_no_error(mounted: Project) -> None:
    values = {"CONTENT_LENGTH": "24", "wsgi.input": Breaking()}

    assert post_consent(**values) == "400 Bad Request"


def test_a_body_that_nobody_needs_is_not_read(mounted: Project) -> None:
    body = io.BytesIO(GRANT)
    values = {"CONTENT_LENGTH": "24", "wsgi.input": body, "REQUEST_METHOD": "GET"}

    assert post_consent(**values) == "200 OK"
    assert body.tell() == 0


def test_a_body_that_is_too_long_is_read_no_further_than_to_see_it(mounted: Project) -> None:
    body = io.BytesIO(b"x" * (MAX_BODY_BYTES + 9))

    status = post_consent(**{"CONTENT_LENGTH": str(MAX_BODY_BYTES + 9), "wsgi.input": body})

    assert status.startswith("413 ")
    assert body.tell() == MAX_BODY_BYTES + 1


def test_a_header_of_another_alphabet_is_no_error(mounted: Project) -> None:
    assert post_consent(CONTENT_TYPE="日本").startswith("415 ")


def test_a_body_of_unknown_length_is_read_as_asgi_sends_it(mounted: Project) -> None:
    headers = [(name.lower().encode(), value.encode()) for name, value in SAME_ORIGIN.items()]
    scope = http_scope(*headers, method="POST", path="/_mp/consent", raw_path=b"/_mp/consent")

    async def post() -> int:
        caller = ApplicationCommunicator(ASGIHandler(), scope)
        await caller.send_input({"type": "http.request", "body": GRANT[:9], "more_body": True})
        await caller.send_input({"type": "http.request", "body": GRANT[9:]})
        status: int = (await caller.receive_output(10))["status"]
        await caller.receive_output(10)
        await caller.send_input({"type": "http.disconnect"})
        await caller.wait()
        return status

    assert asyncio.run(post()) == 200


@KINDS
def test_behind_djangos_users_the_endpoint_knows_who_decides(
    users: dict[str, str], kind: str
) -> None:
    asked: list[Any] = []

    def remember(connection: Any) -> None:
        asked.append(connection.get("mp_asgi.user"))

    settings = {"mount": "/_mp", "identify_from": "django", "consent_from": remember}
    with open_shop(**settings, strict=True):
        browser = Browser(kind)
        browser.get("/log-in/ada/")
        browser.get("/_mp/consent")

    assert asked == [users["ada"]] * 2


@KINDS
def test_at_the_endpoints_nobody_is_believed_to_have_left(kind: str) -> None:
    left: list[object] = []

    def find(connection: Any) -> object:
        return ANONYMOUS if left else "U1"

    with open_shop(mount="/_mp", first_party=True, identify_from=find, strict=True) as project:
        browser = Browser(kind)
        browser.get("/")
        left.append(True)
        posted = {**SAME_ORIGIN, **GRANTED}
        browser.send("POST", "/_mp/track", posted, b'{"event":"Clicked"}')
        browser.get("/")

        (_, seen, _), (_, clicked, _), (_, gone, _) = events(project)
        assert seen == clicked != gone


# --- pages --------------------------------------------------------------------------------------


@pytest.fixture
def pages() -> Iterator[Project]:
    with open_shop(track_pageviews=True, strict=True) as project:
        yield project


@KINDS
@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/", "/"),
        ("/orders/7/", "/orders/<int:order>/"),
        ("/old/7/", "/old/<order>/"),
    ],
    ids=["home", "path", "regular-expression"],
)
def test_a_page_is_named_by_its_route(pages: Project, kind: str, path: str, route: str) -> None:
    Browser(kind).get(path, PAGE)

    _, page = pages.deliver()
    assert page["event"] == "$mp_web_page_view"
    assert page["properties"]["current_url_route"] == route


def test_a_path_is_named_as_it_is_written(pages: Project) -> None:
    with override_settings(ROOT_URLCONF=(shop.path("c++/why?/", shop.ignore),)):
        assert Browser("wsgi").get("/c++/why%3F/", PAGE).status == 200

    (page,) = pages.deliver()
    assert page["properties"]["current_url_route"] == "/c++/why?/"


@KINDS
def test_a_mounted_projects_page_keeps_its_mount(pages: Project, kind: str) -> None:
    def mount(app: Any) -> Any:
        if kind == "wsgi":
            return DispatcherMiddleware(app, {"/größe".encode().decode("latin-1"): app})
        return Starlette(routes=[Mount("/größe", app)])

    Browser(kind, mount).get("/größe/orders/7/", PAGE)

    _, page = pages.deliver()
    assert page["properties"]["current_url_route"] == "/größe/orders/<int:order>/"


def test_a_page_whose_route_has_no_name_is_seen_all_the_same(pages: Project) -> None:
    class Anonymous:
        """What a resolver of the project's own may say."""

        route = None

    def show(request: HttpRequest) -> HttpResponse:
        request.resolver_match = Anonymous()
        return HttpResponse()

    door.MixpanelMiddleware(show, analytics=pages.analytics)(RequestFactory(headers=PAGE).get("/"))

    (page,) = pages.deliver()
    assert "current_url_route" not in page["properties"]


@KINDS
def test_a_page_that_nobody_tracks_is_seen_and_gets_its_cookie(pages: Project, kind: str) -> None:
    answer = Browser(kind).get("/ignore/", PAGE)

    assert answer.cookie_names() == ["mp_id"]
    assert pages.delivered_names() == ["$mp_web_page_view"]


@KINDS
def test_a_page_that_is_not_there_is_not_seen(pages: Project, kind: str) -> None:
    assert Browser(kind).get("/nothing/", PAGE).status == 404
    assert pages.delivered_names() == []


def test_a_view_may_name_its_route_itself(pages: Project) -> None:
    def show(request: HttpRequest) -> HttpResponse:
        request.environ["mp_asgi.route"] = "Shop"
        return HttpResponse()

    with override_settings(ROOT_URLCONF=(shop.path("named/", show),)):
        Browser("wsgi").get("/named/", PAGE)

    (page,) = pages.deliver()
    assert page["properties"]["current_url_route"] == "Shop"


@KINDS
def test_the_address_of_a_page_is_what_the_browser_shows(project: Project, kind: str) -> None:
    Browser(kind).get("/café/?utm_source=post")

    (event,) = project.deliver()
    url = event["properties"]["$current_url"]
    assert url.partition("/caf")[2] == "%C3%A9/?utm_source=post"


@KINDS
def test_a_policy_may_ask_for_any_header(kind: str) -> None:
    settings = {"policy": lambda head: head.header(b"x-shop").decode()}
    with open_shop(**settings) as project:
        Browser(kind).get("/", {"X-Shop": "opt-out"})

        assert project.delivered_names() == ["Seen"]


# --- settings -----------------------------------------------------------------------------------


def test_djangos_settings_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIXPANEL_TOKEN", "from-environment")
    monkeypatch.setenv("MP_ASGI_BATCH_SIZE", "7")
    ours = {
        "MIXPANEL_TOKEN": "from-django",
        "MP_ASGI_SECRET_KEYS": ["k" * 32],
        "MP_ASGI_FLUSH_INTERVAL": "2",
        "MP_ASGI_IDENTIFY_FROM": "django",
    }

    with override_settings(**ours):
        middleware = door.MixpanelMiddleware(shop.show)

    settings = middleware.analytics.settings
    assert (settings.token, settings.secret_keys) == ("from-django", ("k" * 32,))
    assert (settings.batch_size, settings.flush_interval) == (7, 2.0)
    assert settings.identify_from is door.find_user


@KINDS
@override_settings(
    MIDDLEWARE=["mp_asgi.integrations.django.MixpanelMiddleware"],
    MIXPANEL_TOKEN="t",
    MP_ASGI_SECRET_KEYS="k" * 32,
    MP_ASGI_FLUSH_INTERVALL="2",
)
def test_a_wrong_setting_stops_the_start(kind: str) -> None:
    with pytest.raises(SettingsError, match="Did you mean MP_ASGI_FLUSH_INTERVAL"):
        Browser(kind)


OURS = {"MIXPANEL_TOKEN": "t", "MP_ASGI_SECRET_KEYS": "k" * 32}


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Answer a module of the project's own."""
    module = ModuleType("shop_analytics")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


def test_an_assembly_is_made_of_djangos_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MP_ASGI_BATCH_SIZE", "7")

    with override_settings(**OURS, MP_ASGI_ANALYTICS="shop_analytics.analytics"):
        settings = door.make_analytics().settings

    assert (settings.token, settings.batch_size) == ("t", 7)


@KINDS
def test_the_assembly_that_the_project_names_serves_its_requests(
    project: Project, module: ModuleType, kind: str
) -> None:
    vars(module).update(analytics=project.analytics, consumer=Consumer(project.analytics))

    def show(request: HttpRequest) -> HttpResponse:
        message = {"event": "Seen", "properties": {"token": project.analytics.settings.token}}
        module.consumer.send("events", json.dumps(message))
        return HttpResponse()

    named = {
        "MP_ASGI_ANALYTICS": "shop_analytics.analytics",
        "MIDDLEWARE": ["mp_asgi.integrations.django.MixpanelMiddleware"],
        "ROOT_URLCONF": (shop.path("", show),),
    }
    with override_settings(**named):
        answer = Browser(kind).get("/")

    assert answer.cookie_names() == ["mp_id"]
    assert project.delivered_names() == ["Seen"]


def test_an_assembly_or_settings_given_at_once_need_no_name(project: Project) -> None:
    with override_settings(MP_ASGI_ANALYTICS="shop_analytics.nothing"):
        shared = door.MixpanelMiddleware(shop.show, analytics=project.analytics)
        own = door.MixpanelMiddleware(shop.show, project.analytics.settings)

    assert shared.analytics is project.analytics
    assert own.analytics.settings is project.analytics.settings


@pytest.mark.parametrize("name", ["", None], ids=["empty", "none"])
def test_without_a_name_the_middleware_has_its_own_assembly(name: object) -> None:
    with override_settings(**OURS, MP_ASGI_ANALYTICS=name):
        assert door.MixpanelMiddleware(shop.show).analytics.settings.token == "t"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("shop_analytics.nothing", "ImportError: Module "),
        ("shop_analytics", "ImportError: shop_analytics doesn't look like a module path"),
        ("no_such_module.analytics", "ModuleNotFoundError: No module named 'no_such_module'"),
        (".analytics", "ValueError: Empty module name"),
        ("shop_analytics.word", "it is of type str"),
        (7, "AttributeError: "),
    ],
    ids=["no-such-name", "no-dot", "no-module", "no-module-name", "something-else", "a-number"],
)
def test_a_name_without_an_assembly_stops_the_start(
    module: ModuleType, name: object, why: str
) -> None:
    vars(module).update(word="analytics")

    with (
        override_settings(**OURS, MP_ASGI_ANALYTICS=name),
        pytest.raises(SettingsError) as raised,
    ):
        door.MixpanelMiddleware(shop.show)

    (problem,) = raised.value.problems
    assert problem.startswith(f"MP_ASGI_ANALYTICS is {name!r} ({why}")
    assert problem.endswith("Name what make_analytics() has answered: shop.analytics.analytics.")


def test_wrong_settings_of_the_named_assembly_are_told_as_they_are(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(name: str) -> Analytics:
        return Analytics(token="")

    monkeypatch.setattr(module, "__getattr__", refuse, raising=False)

    with (
        override_settings(**OURS, MP_ASGI_ANALYTICS="shop_analytics.analytics"),
        pytest.raises(SettingsError) as raised,
    ):
        door.MixpanelMiddleware(shop.show)

    assert not any("MP_ASGI_ANALYTICS" in problem for problem in raised.value.problems)


def test_settings_beside_a_shared_assembly_are_one_clear_error(project: Project) -> None:
    settings = project.analytics.settings

    with pytest.raises(SettingsError, match="analytics came together with settings"):
        door.MixpanelMiddleware(shop.show, settings, analytics=project.analytics)
