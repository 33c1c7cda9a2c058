"""The shop on Starlette. Run: uvicorn examples.starlette_app.main:app.

Configured from the environment: MIXPANEL_TOKEN and MP_ASGI_SECRET_KEYS for tracking,
SESSION_SECRET for the shop's own login (needed as soon as there are several workers).
"""

import os
import secrets
from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from mp_asgi import MixpanelMiddleware

from .. import shop  # noqa: TID252 - the wheel carries this folder under another name


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
            return JSONResponse({"ok": True, **shop.describe(request.state.mixpanel)})
        return RedirectResponse("/", 303)

    return endpoint


async def home(request: Request) -> Response:
    """Show the shop. This tracks nothing: the visitor has done nothing yet."""
    consent = request.state.mixpanel.consent
    page = shop.render_page(request.session.get("user"), consent, request.headers.get)
    return HTMLResponse(page, headers={"Cache-Control": "no-store"})


async def whoami(request: Request) -> Response:
    """Say who the visitor is to Mixpanel: nobody without consent."""
    return JSONResponse(shop.describe(request.state.mixpanel))


@act
def login(request: Request, fields: shop.Fields) -> None:
    """Log in; a real shop checks a password first."""
    user = shop.require(fields, "user")
    request.session["user"] = user
    request.state.mixpanel.identify(user)


@act
def logout(request: Request, fields: shop.Fields) -> None:
    """Log out; whoever comes next on this browser is somebody else to Mixpanel."""
    request.session.clear()
    request.state.mixpanel.reset()


@act
def consent(request: Request, fields: shop.Fields) -> None:
    """Take a decision where the page has buttons of its own instead of the banner."""
    shop.decide(request.state.mixpanel.consent, fields)
    shop.recognise(request.state.mixpanel, request.session.get("user"))


@act
def track(request: Request, fields: shop.Fields) -> None:
    """Track what the visitor did; without consent this does nothing."""
    event = shop.require(fields, "event")
    shop.recognise(request.state.mixpanel, request.session.get("user"))
    request.state.mixpanel.track(event, shop.event_properties(fields))


session = Middleware(
    SessionMiddleware, secret_key=os.environ.get("SESSION_SECRET") or secrets.token_urlsafe(32)
)
app = Starlette(
    routes=[
        Route("/", home),
        Route("/whoami", whoami),
        Route("/login", login, methods=["POST"]),
        Route("/logout", logout, methods=["POST"]),
        Route("/consent", consent, methods=["POST"]),
        Route("/track", track, methods=["POST"]),
    ],
    # Outermost, so that it sees the response as it leaves; the banner is served at the mount.
    middleware=[Middleware(MixpanelMiddleware, mount="/_mp"), session],
)
