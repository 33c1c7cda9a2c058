"""The shop on Starlette. Run: uvicorn examples.starlette_app.main:app.

Configured from the environment: MIXPANEL_TOKEN and MP_ASGI_SECRET_KEYS for tracking,
SESSION_SECRET for the shop's own login (needed as soon as there are several workers).
"""

import os
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import (
    FileResponse,
    HTMLResponse,
    JSONResponse,
    RedirectResponse,
    Response,
)
from starlette.routing import Route

from mp_asgi import ANONYMOUS, MixpanelMiddleware

from .. import shop  # noqa: TID252 - the wheel carries this folder under another name


def find_user(scope: dict[str, Any]) -> object:
    """Say who is logged in, once the request was answered: nobody calls `identify` here."""
    return scope["session"].get("user", ANONYMOUS)


def act(
    function: Callable[[Request, shop.Fields], None],
) -> Callable[[Request], Awaitable[Response]]:
    """Let visitors of this site act, and answer a page for a form and JSON for JSON."""

    async def endpoint(request: Request) -> Response:
        header = request.headers.get
        if shop.is_cross_site(header):
            return JSONResponse({"error": "This site takes no posts from other sites."}, 403)
        try:
            function(request, shop.parse_fields(header, await request.body()))
        except shop.BadInputError as error:
            return JSONResponse({"error": str(error)}, 400)
        if shop.wants_json(header):
            return JSONResponse({"ok": True, **describe(request)})
        return RedirectResponse("/", 303)

    return endpoint


def describe(request: Request) -> dict[str, Any]:
    """Say what Mixpanel may know about the visitor."""
    return shop.describe(request.state.mixpanel, request.session.get("user"))


async def home(request: Request) -> Response:
    """Show the shop. Its page view is tracked by the middleware."""
    user, tracker = request.session.get("user"), request.state.mixpanel
    page = shop.render_home(user, tracker, request.headers.get)
    return HTMLResponse(page, headers={"Cache-Control": "no-store"})


async def browser(request: Request) -> Response:
    """Show a page that tracks, too."""
    user, tracker = request.session.get("user"), request.state.mixpanel
    page = shop.render_browser(user, tracker, request.headers.get)
    return HTMLResponse(page, headers={"Cache-Control": "no-store"})


async def library(request: Request) -> Response:
    """Serve mixpanel-browser, if it is here."""
    if shop.LIBRARY is None:
        return Response(status_code=404)
    return FileResponse(shop.LIBRARY, media_type="text/javascript")


async def whoami(request: Request) -> Response:
    """Say who the visitor is to Mixpanel: nobody without consent."""
    return JSONResponse(describe(request))


@act
def login(request: Request, fields: shop.Fields) -> None:
    """Log in; a real shop checks a password first."""
    request.session["user"] = shop.require(fields, "user")


@act
def logout(request: Request, fields: shop.Fields) -> None:
    """Log out; whoever comes next on this browser is somebody else to Mixpanel."""
    request.session.clear()
    request.state.mixpanel.reset()


@act
def consent(request: Request, fields: shop.Fields) -> None:
    """Take a decision where the page has buttons of its own instead of the banner."""
    shop.decide(request.state.mixpanel.consent, fields)


@act
def track(request: Request, fields: shop.Fields) -> None:
    """Track what the visitor did; without consent this does nothing."""
    event = shop.require(fields, "event")
    request.state.mixpanel.track(event, shop.event_properties(fields))


session = Middleware(
    SessionMiddleware, secret_key=os.environ.get("SESSION_SECRET") or secrets.token_urlsafe(32)
)
app = Starlette(
    routes=[
        Route("/", home),
        Route("/browser", browser),
        Route("/mixpanel.js", library),
        Route("/whoami", whoami),
        Route("/login", login, methods=["POST"]),
        Route("/logout", logout, methods=["POST"]),
        Route("/consent", consent, methods=["POST"]),
        Route("/track", track, methods=["POST"]),
    ],
    middleware=[
        session,  # first, so that what answers at the mount knows who is logged in, too
        Middleware(
            MixpanelMiddleware,
            identify_from=find_user,
            mount="/_mp",  # the banner, and what the page in the browser sends
            share_id=True,
            first_party=True,
            track_pageviews=True,
            exclude_bots=False,  # only here, so that curl and headless browsers can try the shop
        ),
    ],
)
