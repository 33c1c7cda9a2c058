"""The shop on Flask. Run: gunicorn examples.flask_app.main:app.

Configured from the environment: MIXPANEL_TOKEN and MP_ASGI_SECRET_KEYS for tracking,
SESSION_SECRET for the shop's own login (needed as soon as there are several workers).
"""

import os
import secrets
from collections.abc import Callable
from functools import wraps
from typing import Any

from flask import (
    Flask,
    Response,
    abort,
    has_request_context,
    jsonify,
    make_response,
    redirect,
    request,
    send_file,
    session,
)
from flask.typing import ResponseReturnValue

from mp_asgi import ANONYMOUS
from mp_asgi.integrations.flask import FlaskMixpanel, current_tracker

from .. import shop  # noqa: TID252 - the wheel carries this folder under another name


def find_user(environ: dict[str, Any]) -> object:
    """Say who is logged in, once the request was answered: nobody calls `identify` here."""
    del environ
    # What answers at the mount stands above Flask, and cannot tell.
    return session.get("user", ANONYMOUS) if has_request_context() else None


app = Flask(__name__)
app.secret_key = os.environ.get("SESSION_SECRET") or secrets.token_urlsafe(32)
app.config["SESSION_COOKIE_SAMESITE"] = "Lax"
app.config.update(
    MP_ASGI_IDENTIFY_FROM=find_user,
    MP_ASGI_MOUNT="/_mp",  # the banner, and what the page in the browser sends
    MP_ASGI_SHARE_ID=True,
    MP_ASGI_FIRST_PARTY=True,
    MP_ASGI_TRACK_PAGEVIEWS=True,
    MP_ASGI_EXCLUDE_BOTS=False,  # only here, so that curl and headless browsers can try the shop
)
FlaskMixpanel(app)


def act(function: Callable[[shop.Fields], None]) -> Callable[[], ResponseReturnValue]:
    """Let visitors of this site act, and answer a page for a form and JSON for JSON."""

    @wraps(function)
    def view() -> ResponseReturnValue:
        header = request.headers.get
        if shop.is_cross_site(header):
            return jsonify(error="This site takes no posts from other sites."), 403
        try:
            function(shop.parse_fields(header, request.get_data()))
        except shop.BadInputError as error:
            return jsonify(error=str(error)), 400
        if shop.wants_json(header):
            return jsonify(ok=True, **describe())
        return redirect("/", 303)

    return view


def describe() -> dict[str, Any]:
    """Say what Mixpanel may know about the visitor."""
    return shop.describe(current_tracker, session.get("user"))


def show(page: str) -> Response:
    """Answer a page that is no cache's business."""
    response = make_response(page)
    response.headers["Cache-Control"] = "no-store"
    return response


@app.get("/")
def home() -> Response:
    """Show the shop. Its page view is tracked by the middleware."""
    return show(shop.render_home(session.get("user"), current_tracker, request.headers.get))


@app.get("/browser")
def browser() -> Response:
    """Show a page that tracks, too."""
    return show(shop.render_browser(session.get("user"), current_tracker, request.headers.get))


@app.get("/mixpanel.js")
def library() -> Response:
    """Serve mixpanel-browser, if it is here."""
    if shop.LIBRARY is None:
        abort(404)
    return send_file(shop.LIBRARY, mimetype="text/javascript")


@app.get("/whoami")
def whoami() -> Response:
    """Say who the visitor is to Mixpanel: nobody without consent."""
    return jsonify(describe())


@app.post("/login")
@act
def login(fields: shop.Fields) -> None:
    """Log in; a real shop checks a password first."""
    session["user"] = shop.require(fields, "user")


@app.post("/logout")
@act
def logout(fields: shop.Fields) -> None:
    """Log out; whoever comes next on this browser is somebody else to Mixpanel."""
    session.clear()
    current_tracker.reset()


@app.post("/consent")
@act
def consent(fields: shop.Fields) -> None:
    """Take a decision where the page has buttons of its own instead of the banner."""
    shop.decide(current_tracker.consent, fields)


@app.post("/track")
@act
def track(fields: shop.Fields) -> None:
    """Track what the visitor did; without consent this does nothing."""
    event = shop.require(fields, "event")
    current_tracker.track(event, shop.event_properties(fields))
