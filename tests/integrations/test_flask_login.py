"""Who is logged in comes from Flask-Login, as long as Flask is in the request."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask, Response, request, stream_with_context
from flask_login import LoginManager, UserMixin, login_user, logout_user

from mp_asgi import FlaskMixpanel, Tracker, current_tracker, get_tracker
from mp_asgi.integrations.flask_login import find_user
from tests.probes import Project, open_project

GRANTED = {"X-MP-Consent": "granted"}


class Member(UserMixin):
    def __init__(self, member_id: str) -> None:
        self.id = member_id


@pytest.fixture
def project() -> Iterator[Project]:
    with open_project(identify_from="flask-login", strict=True) as project:
        yield project


@pytest.fixture
def app(project: Project) -> Flask:
    app = Flask(__name__)
    app.secret_key = "flask's own"
    manager = LoginManager(app)
    manager.user_loader(Member)
    FlaskMixpanel(app, analytics=project.analytics)

    @app.get("/")
    def show() -> str:
        current_tracker.track("Seen")
        return "ok"

    @app.get("/log-in/<name>")
    def log_in(name: str) -> str:
        login_user(Member(name))
        return show()

    @app.get("/log-out")
    def log_out() -> str:
        logout_user()
        return show()

    return app


def visit(app: Flask, project: Project, *paths: str) -> list[dict[str, Any]]:
    client = app.test_client()
    for path in paths:
        assert client.get(path, headers=GRANTED, buffered=True).status_code == 200
    return [item["properties"] for item in project.deliver()]


def test_login_and_logout_are_followed(app: Flask, project: Project) -> None:
    found = visit(app, project, "/", "/log-in/7", "/", "/log-out")

    assert [item.get("$user_id") for item in found] == [None, "7", "7", None]
    first, *_, last = (item["$device_id"] for item in found)
    assert [item["$device_id"] for item in found] == [first, first, first, last]
    assert first != last


@pytest.mark.parametrize("names", [["Opened"], []], ids=["the-view-tracked", "only-the-stream"])
@pytest.mark.parametrize(
    ("keep", "user"),
    [(stream_with_context, "7"), (iter, None)],
    ids=["in-flasks-context", "outside"],
)
def test_a_stream_knows_the_user_whom_flask_or_its_view_knows(
    app: Flask,
    project: Project,
    keep: Callable[[Iterator[str]], Iterator[str]],
    user: str | None,
    names: list[str],
) -> None:
    def parts(tracker: Tracker) -> Iterator[str]:
        tracker.track("Streamed")
        yield "ok"

    @app.get("/stream")
    def stream() -> Response:
        for name in names:
            current_tracker.track(name)
        return Response(keep(parts(get_tracker(request.environ))))

    *_, found = visit(app, project, "/log-in/7", "/stream")

    assert found.get("$user_id") == ("7" if names else user)


def test_outside_a_request_nobody_can_tell() -> None:
    assert find_user({}) is None
