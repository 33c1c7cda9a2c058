"""Quart needs no adapter: its `asgi_app` is wrapped, and its scope is ours."""

from collections.abc import AsyncIterator
from typing import Any

from quart import Quart, Response, request
from starlette.testclient import TestClient

from mp_asgi import MixpanelMiddleware, get_tracker
from tests.probes import Project, open_project

PAGE = {"X-MP-Consent": "granted", "Accept": "text/html"}


def build_app(project: Project) -> Quart:
    app = Quart(__name__)
    app.asgi_app = MixpanelMiddleware(  # type: ignore[method-assign]
        app.asgi_app, analytics=project.analytics
    )
    return app


def test_a_handler_finds_the_tracker_of_its_request(project: Project) -> None:
    app = build_app(project)

    @app.get("/")
    async def show() -> dict[str, bool]:
        get_tracker(request).track("Seen")
        return {"same": get_tracker(request) is request.scope["mp_asgi.tracker"]}

    answer = TestClient(app).get("/", headers=PAGE)

    assert answer.json() == {"same": True}
    assert answer.headers["set-cookie"].startswith("mp_id=")
    assert project.delivered_names() == ["Seen"]


def test_a_stream_tracks_as_it_goes(project: Project) -> None:
    app = build_app(project)

    @app.get("/")
    async def show() -> Response:
        tracker: Any = get_tracker(request)

        async def parts() -> AsyncIterator[str]:
            for name in ("one", "two"):
                tracker.track(name)
                yield name

        return Response(parts())

    assert TestClient(app).get("/", headers=PAGE).text == "onetwo"
    assert project.delivered_names() == ["one", "two"]


def test_the_app_may_leave_user_and_route_in_the_scope() -> None:
    settings = {"identify_from": lambda scope: scope.get("shop.user"), "track_pageviews": True}
    with open_project(**settings, strict=True) as project:
        app = build_app(project)

        @app.before_request
        async def tell() -> None:
            request.scope["shop.user"] = "7"
            request.scope["mp_asgi.route"] = request.url_rule.rule

        @app.get("/orders/<int:order>")
        async def show(order: int) -> str:
            return "<p>seen</p>"

        TestClient(app).get("/orders/7", headers=PAGE)
        pages = [item["properties"] for item in project.deliver() if "event" in item]

    assert [page["$user_id"] for page in pages] == ["7"]
    assert [page["current_url_route"] for page in pages] == ["/orders/<int:order>"]
