"""What docs/identity.md and the README show beside whole apps does what they say."""

from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from mp_asgi import ANONYMOUS, Analytics, MixpanelMiddleware
from mp_asgi.dev import StandIn
from tests.docs.test_snippets import GRANTED, SNIPPETS, served, standin

__all__ = ["served", "standin"]  # fixtures

CLOSE_SECONDS = 10.0


def run(page: str, mark: str) -> dict[str, Any]:
    """Answer the names of the one snippet of a page that has this mark."""
    (found,) = [item for item in SNIPPETS if item.page.name == page and mark in item.code]
    names: dict[str, Any] = {"__name__": "snippet"}
    exec(found.compile(), names)
    return names


@pytest.mark.parametrize(
    ("scope", "answer"),
    [
        pytest.param({"session": {"user_id": "17"}}, "17", id="logged in"),
        pytest.param({"session": {}}, ANONYMOUS, id="nobody"),
        pytest.param({}, None, id="no session was opened"),
    ],
)
def test_the_callable_tells_who_is_logged_in(scope: Any, answer: object) -> None:
    find_user = run("identity.md", "def find_user")["find_user"]

    assert find_user(scope) == answer


@pytest.mark.parametrize(
    ("properties", "left"),
    [
        pytest.param({"plan": "internal"}, None, id="a colleague"),
        pytest.param({"account_number": 7, "n": 1}, {"n": 1}, id="an account number"),
    ],
)
def test_the_hook_keeps_at_home_what_it_says(properties: Any, left: object) -> None:
    before_send = run("identity.md", "def before_send")["before_send"]

    event = before_send({"event": "A", "properties": properties})

    assert (event and event["properties"]) == left


def visit(analytics: Analytics, use: Any) -> str:
    """Answer what a consenting visitor's request makes of its tracker."""

    async def endpoint(request: Request) -> Response:
        return PlainTextResponse(use(request.state.mixpanel))

    middleware = [Middleware(MixpanelMiddleware, analytics=analytics)]
    client = TestClient(Starlette(routes=[Route("/", endpoint)], middleware=middleware))
    return client.get("/", headers=GRANTED).text


@pytest.mark.parametrize("page", ["README.md", "identity.md"])
def test_jobs_track_for_the_visitor_and_for_whom_the_app_knows(page: str, standin: StandIn) -> None:
    names = run(page, "def run_job")
    # The README makes its own; where a page's functions take one, they are given it.
    analytics = names.get("analytics") or Analytics()
    given = [] if "analytics" in names else [analytics]

    token = visit(analytics, names["send_invoice"])
    names["run_job"](*given, token)
    names["renew"](*given, "17")

    assert analytics.close(CLOSE_SECONDS)
    sent, renewed = sorted(standin.events, key=lambda event: event["event"])
    assert (sent["event"], renewed["event"]) == ("Invoice Sent", "Renewed")
    assert sent["properties"]["distinct_id"].startswith("$device:")
    assert renewed["properties"]["distinct_id"] == "17"


def test_mixpanels_own_client_sends_by_our_delivery(standin: StandIn) -> None:
    names = run("README.md", "Consumer(analytics)")

    visit(names["analytics"], lambda tracker: names["mixpanel"].track("", "Paid") or "")

    assert names["analytics"].close(CLOSE_SECONDS)
    assert [event["event"] for event in standin.events] == ["Paid"]
