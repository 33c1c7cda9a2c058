"""Put the stand-in behind HTTP: Mixpanel's endpoints, its own under `/_mp/`, and its page."""

import base64
import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from email.utils import formatdate
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from .faults import Fault
from .misconduct import misbehave
from .privacy import DELETIONS, RETRIEVALS
from .records import Accepted, Received, Rejected
from .replies import Reply, json_reply, text_reply
from .wire import WireRequest

if TYPE_CHECKING:
    from .standin import StandIn

PAGE = Path(__file__).with_name("page.html")
# Nothing but what the page itself holds; a value that gets out of place can load nothing.
PAGE_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
FEED_LENGTH = 500  # what the page shows at most; the rest is under /_mp/events


def build_app(standin: "StandIn") -> ASGIApp:
    """Build the ASGI app of a stand-in."""
    routes = [
        Route(path + slash, partial(_ingest, standin), methods=methods)
        for path, methods in (
            ("/import", ["POST"]),
            ("/track", ["GET", "POST"]),
            ("/engage", ["GET", "POST"]),
            ("/groups", ["GET", "POST"]),
            (DELETIONS, ["POST"]),
            (DELETIONS + "/{id}", ["GET", "DELETE"]),
            (RETRIEVALS, ["POST"]),
            (RETRIEVALS + "/{id}", ["GET"]),
        )
        for slash in ("", "/")
    ]
    routes += [
        Route("/", partial(_page, PAGE.read_text(encoding="utf-8"))),
        Route("/_mp/{view}", partial(_view, standin), methods=["GET"]),
        Route("/_mp/misbehave", partial(_misbehave, standin), methods=["PUT"]),
        Route("/_mp/misbehave", partial(_behave, standin), methods=["DELETE"]),
        Route("/_mp/jobs/advance", partial(_advance, standin), methods=["POST"]),
        Route("/_mp/reset", partial(_reset, standin), methods=["POST"]),
    ]
    return _LoopbackOnly(Starlette(routes=routes))


class _LoopbackOnly:
    """Refuse a browser that another site sent here.

    The stand-in listens on loopback, yet a page can name it through DNS rebinding (then `Host` is
    the page's) or post to it (then `Origin` is the page's).
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (problem := _foreign(Request(scope))):
            await _respond(text_reply(403, problem))(scope, receive, send)
        else:
            await self.app(scope, receive, send)


def _foreign(request: Request) -> str:
    host = request.headers.get("host", "")
    if not _is_loopback(host):
        return f"The stand-in answers only as localhost or 127.0.0.1, not as {host!r}.\n"
    origin = request.headers.get("origin")
    is_write = request.method not in {"GET", "HEAD"} and request.url.path.startswith("/_mp/")
    if is_write and origin is not None and urlsplit(origin).netloc != host:
        return "Only the stand-in's own page may do this.\n"
    return ""


def _is_loopback(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


async def _ingest(standin: "StandIn", request: Request) -> Response:
    path = request.url.path.rstrip("/")
    order = standin.take_order(path)
    wire = WireRequest(
        method=request.method,
        path=path,
        query=request.url.query,
        headers=dict(request.headers),
        body=b"" if order and order.fault is Fault.RESET else await request.body(),
    )
    reply = standin.answer(wire, tuple(request.headers.items()), order)
    date = formatdate(standin.clock(), usegmt=True)
    response = _respond(replace(reply, headers={**reply.headers, "Date": date}))
    return response if order is None else await misbehave(order, request, response)


async def _view(standin: "StandIn", request: Request) -> Response:
    view = _VIEWS.get(request.path_params["view"])
    if view is None:
        return _respond(text_reply(404, "Not found.\n"))
    return _respond(json_reply(200, view(standin, request), {"Cache-Control": "no-store"}))


def _feed(standin: "StandIn", request: Request) -> dict[str, Any]:
    after, run = (_whole_number(request.query_params.get(key, "")) for key in ("after", "run"))
    run, items = standin.records.since(after, run)
    news = [_feed_content(item) for item in items[-FEED_LENGTH:]]
    return {"run": run, "items": news, "jobs": _jobs(standin)}


def _jobs(standin: "StandIn") -> list[dict[str, Any]]:
    return [job.content() for job in standin.privacy.jobs]


def _visitors(standin: "StandIn", _: Request) -> dict[str, Any]:
    visitors = [
        {
            "canonical_id": cluster.canonical_id,
            "distinct_ids": cluster.distinct_ids,
            "events": len(cluster.events),
            "failures": [failure.reason for failure in cluster.failures],
        }
        for cluster in standin.clusters()
    ]
    return {"mode": standin.mode, "visitors": visitors}


def _whole_number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else -1  # noqa: PLR2004


def _feed_content(item: Accepted | Rejected) -> dict[str, Any]:
    return {**asdict(item), "reason": item.reason if isinstance(item, Rejected) else ""}


def _request_content(item: Received) -> dict[str, Any]:
    content = asdict(item)
    content["body_b64"] = base64.b64encode(content.pop("body")).decode("ascii")
    return content


async def _misbehave(standin: "StandIn", request: Request) -> Response:
    try:
        order = await request.json()
        fault = Fault(order.pop("fault"))
        times = order.pop("times", 1)
        _check_order(times, order)
        standin.misbehave(fault, times, **order)
    except (ValueError, TypeError, KeyError, AttributeError):
        names = ", ".join(item.value for item in Fault)
        message = f"Send JSON with fault ({names}), times, endpoint, seconds, retry_after."
        return _respond(json_reply(400, {"error": message}))
    return _respond(json_reply(200, {"ok": True}))


def _check_order(times: object, order: dict[str, Any]) -> None:
    whole = (times, order.get("retry_after"))
    if any(value is not None and not (type(value) is int and value > 0) for value in whole):
        raise ValueError(whole)
    if not isinstance(order.get("endpoint", ""), str):
        raise TypeError(order)
    if not 0 <= float(order.get("seconds", 0)) <= 3_600:  # noqa: PLR2004 - an hour
        raise ValueError(order)


async def _behave(standin: "StandIn", request: Request) -> Response:
    standin.behave()
    return _respond(json_reply(200, {"ok": True}))


async def _advance(standin: "StandIn", request: Request) -> Response:
    standin.privacy.advance()
    return _respond(json_reply(200, {"ok": True}))


async def _reset(standin: "StandIn", request: Request) -> Response:
    standin.reset()
    return _respond(json_reply(200, {"ok": True}))


async def _page(page: str, request: Request) -> Response:
    headers = {"Content-Security-Policy": PAGE_POLICY, "Cache-Control": "no-store"}
    return HTMLResponse(page, headers=headers)


def _respond(reply: Reply) -> Response:
    headers = {**reply.headers, "X-Content-Type-Options": "nosniff"}
    return Response(reply.body, reply.status, headers=headers, media_type=reply.media_type)


_VIEWS: Mapping[str, Callable[["StandIn", Request], Any]] = {
    "events": lambda standin, _: standin.events,
    "people": lambda standin, _: standin.people,
    "groups": lambda standin, _: standin.groups,
    "visitors": _visitors,
    "requests": lambda standin, _: [_request_content(item) for item in standin.requests],
    "rejected": lambda standin, _: [asdict(item) for item in standin.rejected],
    "jobs": lambda standin, _: _jobs(standin),
    "feed": _feed,
}
