"""Starlette needs no adapter: state, scope, request and websocket all lead to the tracker."""

import subprocess
import sys
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient
from werkzeug.test import EnvironBuilder

from mp_asgi import MixpanelMiddleware, MixpanelWSGIMiddleware, Tracker, get_tracker
from tests.probes import Project, http_scope, open_project, serve
from tests.test_wsgi import plain_list
from tests.test_wsgi import serve as serve_wsgi

GRANTED = {"X-MP-Consent": "granted"}


def test_every_way_leads_to_the_same_tracker(project: Project) -> None:
    seen: list[Tracker] = []

    async def endpoint(request: Request) -> Response:
        seen.append(request.state.mixpanel)
        seen.append(request.scope["mp_asgi.tracker"])
        seen.extend(map(get_tracker, (request, request.scope, HTTPConnection(request.scope))))
        return JSONResponse("ok")

    app = Starlette(
        routes=[Route("/", endpoint)],
        middleware=[Middleware(MixpanelMiddleware, analytics=project.analytics)],
    )
    TestClient(app).get("/")

    assert len(seen) == 5
    assert len({id(tracker) for tracker in seen}) == 1


def test_add_middleware_and_wrapping_do_the_same(project: Project) -> None:
    async def endpoint(request: Request) -> Response:
        return JSONResponse(get_tracker(request).track("Seen"))

    added = Starlette(routes=[Route("/", endpoint)])
    added.add_middleware(MixpanelMiddleware, analytics=project.analytics)
    wrapped = MixpanelMiddleware(
        Starlette(routes=[Route("/", endpoint)]), analytics=project.analytics
    )

    for app in (added, wrapped):
        answer = TestClient(app).get("/", headers=GRANTED)
        assert answer.headers["set-cookie"].startswith("mp_id=")

    assert project.delivered_names() == ["Seen", "Seen"]


def build_app(project: Project, endpoint: Any, *inner: Any) -> Starlette:
    outermost = Middleware(MixpanelMiddleware, analytics=project.analytics)
    return Starlette(
        routes=[Route("/", endpoint, methods=["GET", "POST"])], middleware=[outermost, *inner]
    )


async def see(request: Request) -> Response:
    request.state.mixpanel.track("Seen")
    return JSONResponse("ok")


class PassingOn(BaseHTTPMiddleware):
    """Runs what is inside in a task of its own, and tracks in the outer one."""

    async def dispatch(self, request: Request, call_next: Any) -> Response:
        request.state.mixpanel.track("Before")
        response: Response = await call_next(request)
        request.state.mixpanel.track("After")
        return response


def test_base_http_middlewares_share_the_tracker(project: Project) -> None:
    app = build_app(project, see, Middleware(PassingOn), Middleware(PassingOn))

    answer = TestClient(app).get("/", headers=GRANTED)

    assert len(answer.headers.get_list("set-cookie")) == 1
    assert project.delivered_names() == ["Before", "Before", "Seen", "After", "After"]


def test_we_may_stand_inside_a_base_http_middleware(project: Project) -> None:
    class Around(BaseHTTPMiddleware):
        async def dispatch(self, request: Request, call_next: Any) -> Response:
            response: Response = await call_next(request)
            response.headers["x-around"] = "1"
            return response

    app = Starlette(
        routes=[Route("/", see)],
        middleware=[
            Middleware(Around),
            Middleware(MixpanelMiddleware, analytics=project.analytics),
        ],
    )

    answer = TestClient(app).get("/", headers=GRANTED)

    assert (answer.headers["x-around"], "mp_id" in answer.cookies) == ("1", True)
    assert project.delivered_names() == ["Seen"]


def test_the_user_is_read_from_the_session_that_stands_inside() -> None:
    async def log_in(request: Request) -> Response:
        request.session["user"] = "ada"
        return await see(request)

    session = Middleware(SessionMiddleware, secret_key="s")
    with open_project(identify_from=lambda scope: scope["session"].get("user")) as project:
        answer = TestClient(build_app(project, log_in, session)).get("/", headers=GRANTED)

        (event,) = project.deliver()

    assert event["properties"]["$user_id"] == "ada"
    assert sorted(answer.cookies) == ["mp_id", "session"]


def test_compression_inside_keeps_body_and_cookie(project: Project) -> None:
    async def endpoint(request: Request) -> Response:
        request.state.mixpanel.track("Seen")
        return PlainTextResponse("x" * 10_000)

    app = build_app(project, endpoint, Middleware(GZipMiddleware))

    answer = TestClient(app).get("/", headers={**GRANTED, "Accept-Encoding": "gzip"})

    assert answer.headers["content-encoding"] == "gzip"
    assert sorted(answer.headers["vary"].replace(" ", "").split(",")) == [
        "Accept-Encoding",
        "Cookie",
    ]
    assert answer.text == "x" * 10_000
    assert "mp_id" in answer.cookies


def test_an_error_page_made_outside_us_has_no_cookie_and_the_events_are_sent(
    project: Project,
) -> None:
    async def endpoint(request: Request) -> Response:
        request.state.mixpanel.track("Tried")
        raise RuntimeError

    client = TestClient(build_app(project, endpoint), raise_server_exceptions=False)
    answer = client.get("/", headers=GRANTED)

    assert answer.status_code == 500
    assert "set-cookie" not in answer.headers
    assert project.delivered_names() == ["Tried"]


def test_an_error_page_made_inside_us_has_the_cookie(project: Project) -> None:
    async def endpoint(request: Request) -> Response:
        request.state.mixpanel.track("Tried")
        raise HTTPException(404)

    answer = TestClient(build_app(project, endpoint)).get("/", headers=GRANTED)

    assert (answer.status_code, "mp_id" in answer.cookies) == (404, True)
    assert project.delivered_names() == ["Tried"]


async def test_a_scope_leads_to_its_tracker(project: Project) -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(get_tracker(scope))

    scope = http_scope()
    await serve(MixpanelMiddleware(app, analytics=project.analytics), scope)

    assert seen == [scope["mp_asgi.tracker"]]


def test_an_environ_and_its_werkzeug_request_lead_to_the_tracker(project: Project) -> None:
    builder = EnvironBuilder(headers={"X-MP-Consent": "granted"})
    request = builder.get_request()

    serve_wsgi(MixpanelWSGIMiddleware(plain_list, analytics=project.analytics), request.environ)

    assert get_tracker(request.environ) is get_tracker(request)


@pytest.mark.parametrize(
    "connection",
    [http_scope(), {}, None, object(), Request(http_scope()), {"mp_asgi.tracker": "not ours"}],
    ids=["scope", "empty", "none", "object", "request", "foreign"],
)
def test_where_no_middleware_of_ours_is_the_remedy_is_named(connection: Any) -> None:
    with pytest.raises(LookupError) as raised:
        get_tracker(connection)

    assert str(raised.value) == (
        "This request has no tracker. Add mp_asgi.MixpanelMiddleware (ASGI) or "
        "mp_asgi.MixpanelWSGIMiddleware (WSGI) around the app."
    )


BLOCKER = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {extra!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocker())
import mp_asgi
assert not hasattr(mp_asgi, "whatever")
try:
    mp_asgi.{name}
except ImportError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("name", "extra"),
    [("TrackerDep", "fastapi"), ("FlaskMixpanel", "flask"), ("current_tracker", "flask")],
)
def test_a_name_whose_extra_is_missing_says_what_to_install(name: str, extra: str) -> None:
    code = BLOCKER.format(name=name, extra=extra)

    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert run.stdout.strip() == f'{extra} is missing. Run: pip install "mp-asgi[{extra}]"'
