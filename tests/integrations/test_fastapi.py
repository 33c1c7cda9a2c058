"""`TrackerDep` gives a path operation the tracker, and nothing to its documentation."""

from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, WebSocket
from fastapi.testclient import TestClient
from starlette.requests import HTTPConnection

from mp_asgi import MixpanelMiddleware, TrackerDep, get_tracker
from tests.probes import Project

HEADERS = {"X-MP-Consent": "granted"}


def build_app(project: Project | None, *, has_tracker: bool = True) -> FastAPI:
    app = FastAPI()
    if project is not None:
        app.add_middleware(MixpanelMiddleware, analytics=project.analytics)

    if has_tracker:

        @app.get("/items/{item}")
        def show(item: int, mixpanel: TrackerDep) -> dict[str, Any]:
            return {"insert_id": mixpanel.track("Seen", {"item": item})}

    else:

        @app.get("/items/{item}")
        def show(item: int) -> dict[str, Any]:
            return {}

    return app


def test_a_path_operation_gets_the_tracker(project: Project) -> None:
    answer = TestClient(build_app(project)).get("/items/7", headers=HEADERS)

    (event,) = project.deliver()
    assert event["properties"]["$insert_id"] == answer.json()["insert_id"]
    assert event["properties"]["item"] == 7


def test_an_async_path_operation_gets_the_same_tracker_as_the_request(project: Project) -> None:
    app = FastAPI()
    app.add_middleware(MixpanelMiddleware, analytics=project.analytics)

    @app.get("/")
    async def show(connection: HTTPConnection, mixpanel: TrackerDep) -> bool:
        return mixpanel is get_tracker(connection) is connection.state.mixpanel

    assert TestClient(app).get("/").json() is True


def test_a_websocket_gets_the_tracker(project: Project) -> None:
    app = FastAPI()
    app.add_middleware(MixpanelMiddleware, analytics=project.analytics)

    @app.websocket("/ws")
    async def join(websocket: WebSocket, mixpanel: TrackerDep) -> None:
        mixpanel.track("Joined")
        await websocket.accept()
        await websocket.close()

    with TestClient(app).websocket_connect("/ws", headers=HEADERS):
        pass

    assert project.delivered_names() == ["Joined"]


def test_a_dependency_of_a_dependency_gets_the_tracker(project: Project) -> None:
    app = FastAPI()
    app.add_middleware(MixpanelMiddleware, analytics=project.analytics)

    def track_view(mixpanel: TrackerDep) -> str | None:
        return mixpanel.track_pageview()

    @app.get("/")
    def show(insert_id: Annotated[str | None, Depends(track_view)]) -> str | None:
        return insert_id

    TestClient(app).get("/", headers=HEADERS)

    assert project.delivered_names() == ["$mp_web_page_view"]


def test_openapi_does_not_know_of_it() -> None:
    assert build_app(None).openapi() == build_app(None, has_tracker=False).openapi()


def test_without_the_middleware_the_remedy_is_named() -> None:
    with pytest.raises(LookupError, match="has no tracker"):
        TestClient(build_app(None)).get("/items/7")
