"""Read who is logged in from Flask-Login (`identify_from="flask-login"`)."""

try:
    from flask import has_request_context
    from flask_login import current_user  # type: ignore[import-untyped]  # it ships no types
except ImportError as error:
    raise ImportError("flask-login is missing. Run: pip install flask-login") from error

from mp_asgi.identity import ANONYMOUS


def find_user(connection: object) -> object:
    """Answer `get_id()` of the authenticated user, ANONYMOUS for any other.

    None, for "cannot tell", where Flask has left the request: a stream that is the first to track
    and runs without `stream_with_context` comes too late.

    Args:
        connection: WSGI environ; Flask-Login keeps the user in Flask's own context instead.
    """
    del connection
    if not has_request_context():
        return None
    return current_user.get_id() if current_user.is_authenticated else ANONYMOUS
