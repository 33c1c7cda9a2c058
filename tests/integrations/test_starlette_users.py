"""Who is logged in comes from AuthenticationMiddleware, and never from a display name."""

from typing import Any

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.authentication import (
    AuthCredentials,
    AuthenticationBackend,
    BaseUser,
    UnauthenticatedUser,
)
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from mp_asgi import ANONYMOUS, MixpanelMiddleware
from mp_asgi.integrations.starlette import find_user
from tests.probes import Project, open_project

GRANTED = {"X-MP-Consent": "granted"}


class Member(BaseUser):
    """A user with an ID, and with a name to be shown."""

    is_authenticated = True
    display_name = "ada@shop.example"

    def __init__(self, identity: str) -> None:
        self._identity = identity

    @property
    def identity(self) -> str:
        return self._identity


class Nameless(BaseUser):
    """A user class that leaves `identity` out, as BaseUser allows."""

    is_authenticated = True
    display_name = "ada@shop.example"


class Token(AuthenticationBackend):
    """Knows the user from a header."""

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, BaseUser] | None:
        identity = conn.headers.get("x-user")
        return (AuthCredentials(["member"]), Member(identity)) if identity else None


async def see(request: Request) -> Response:
    request.state.mixpanel.track("Seen")
    return PlainTextResponse("ok")


def serve_members(project: Project, app: type[Starlette]) -> TestClient:
    ours = Middleware(MixpanelMiddleware, analytics=project.analytics)
    authentication = Middleware(AuthenticationMiddleware, backend=Token())
    routes = [Route("/", see)]
    return TestClient(app(routes=routes, middleware=[ours, authentication]))


@pytest.mark.parametrize("app", [Starlette, FastAPI], ids=["starlette", "fastapi"])
def test_a_user_is_named_and_whoever_comes_after_them_is_somebody_else(
    app: type[Starlette],
) -> None:
    with open_project(identify_from="starlette", strict=True) as project:
        client = serve_members(project, app)
        for user in ({}, {"X-User": "7"}, {}):
            client.get("/", headers={**GRANTED, **user})
        found = [item["properties"] for item in project.deliver()]

    before, named, after = (item["$device_id"] for item in found)
    assert [item.get("$user_id") for item in found] == [None, "7", None]
    assert (before == named, named == after) == (True, False)


@pytest.mark.parametrize(
    ("connection", "user"),
    [
        ({"user": Member("7")}, "7"),
        ({"user": UnauthenticatedUser()}, ANONYMOUS),
        ({"user": Nameless()}, None),
        ({"user": type("Other", (), {"is_authenticated": True})()}, None),
        ({"user": None}, None),
        ({}, None),
    ],
    ids=["member", "nobody", "no-identity", "not-a-base-user", "none", "no-middleware"],
)
def test_a_user_is_their_identity_or_nobody_can_tell(
    connection: dict[str, Any], user: object
) -> None:
    assert find_user(connection) == user
