"""The shop on Flask. Run: gunicorn examples.flask_app.main:app.

Configured from the environment: MIXPANEL_TOKEN and MP_ASGI_SECRET_KEYS for tracking,
SESSION_SECRET for the shop's own login (needed as soon as there are several workers).
"""

import os
import secrets
from collections.abc import Callable
from functools import wraps

from flask import Flask, Response, jsonify, make_response, redirect, request, session
from flask.typing import ResponseReturnValue

from mp_asgi.integrations.flask import FlaskMixpanel, current_tracker

from .. import shop  # noqa: TID252 - the wheel carries this folder under another name

app = Flask(__name__)
app.secret_key = os.environ.get("SESSION_SECRET") or secrets.token_urlsafe(32)
app.config["SESSION_COOKIE_SAMESITE"] = "Lax"
app.config["MP_ASGI_MOUNT"] = "/_mp"  # serves the banner
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
            return jsonify(ok=True, **shop.describe(current_tracker))
        return redirect("/", 303)

    return view


@app.get("/")
def home() -> Response:
    """Show the shop. This tracks nothing: the visitor has done nothing yet."""
    page = shop.render_page(session.get("user"), current_tracker.consent, request.headers.get)
    response = make_response(page)
    response.headers["Cache-Control"] = "no-store"
    return response


@app.get("/whoami")
def whoami() -> Response:
    """Say who the visitor is to Mixpanel: nobody without consent."""
    return jsonify(shop.describe(current_tracker))


@app.post("/login")
@act
def login(fields: shop.Fields) -> None:
    """Log in; a real shop checks a password first."""
    user = shop.require(fields, "user")
    session["user"] = user
    current_tracker.identify(user)


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
    shop.recognise(current_tracker, session.get("user"))


@app.post("/track")
@act
def track(fields: shop.Fields) -> None:
    """Track what the visitor did; without consent this does nothing."""
    event = shop.require(fields, "event")
    shop.recognise(current_tracker, session.get("user"))
    current_tracker.track(event, shop.event_properties(fields))
