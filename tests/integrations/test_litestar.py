"""Litestar needs no adapter: wrapped, or as one of its middlewares."""

from typing import Any

import pytest
from litestar import Litestar, Request, get
from litestar.middleware import DefineMiddleware
from litestar.params import FromPath
from starlette.testclient import TestClient

from mp_asgi import MixpanelMiddleware, Tracker, get_tracker
from tests.probes import Project, open_project

PAGE = {"X-MP-Consent": "granted", "Accept": "text/html"}


@get("/orders/{order:int}", media_type="text/html")
async def show(request: Request[Any, Any, Any], order: FromPath[int]) -> str:
    get_tracker(request).track("Seen", {"order": order})
    return "<p>seen</p>"


@get("/compare")
async def compare(request: Request[Any, Any, Any]) -> bool:
    tracker: Tracker = request.state.mixpanel
    return get_tracker(request) is tracker is request.scope["mp_asgi.tracker"]


def wrap(project: Project) -> Any:
    return MixpanelMiddleware(Litestar([show, compare]), analytics=project.analytics)


def put_inside(project: Project) -> Any:
    def with_mixpanel(app: Any) -> MixpanelMiddleware:
        return MixpanelMiddleware(app, analytics=project.analytics)

    return Litestar([show, compare], middleware=[DefineMiddleware(with_mixpanel)])


WAYS = pytest.mark.parametrize("build", [wrap, put_inside], ids=["wrapped", "inside"])


@WAYS
def test_a_handler_finds_the_tracker_and_the_page_its_route(build: Any) -> None:
    with open_project(track_pageviews=True, strict=True) as project:
        answer = TestClient(build(project)).get("/orders/7", headers=PAGE)
        seen, page = project.deliver()

    assert answer.text == "<p>seen</p>"
    assert answer.headers["set-cookie"].startswith("mp_id=")
    assert (seen["event"], seen["properties"]["order"]) == ("Seen", 7)
    assert page["properties"]["current_url_route"] == "/orders/{order}"


@WAYS
def test_every_way_leads_to_the_same_tracker(project: Project, build: Any) -> None:
    assert TestClient(build(project)).get("/compare").json() is True


def test_the_wrapped_app_still_hears_of_start_and_shutdown(project: Project) -> None:
    heard: list[str] = []
    app = Litestar(
        on_startup=[lambda: heard.append("start")], on_shutdown=[lambda: heard.append("end")]
    )

    with TestClient(MixpanelMiddleware(app, analytics=project.analytics)):
        assert heard == ["start"]

    assert heard == ["start", "end"]
