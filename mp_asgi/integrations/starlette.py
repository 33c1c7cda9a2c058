"""Read who is logged in from Starlette's AuthenticationMiddleware (`identify_from="starlette"`)."""

from collections.abc import Mapping
from typing import Any

from mp_asgi.identity import ANONYMOUS


def find_user(connection: Mapping[str, Any]) -> object:
    """Answer the `identity` of an authenticated user, ANONYMOUS for any other.

    None, for "cannot tell", where no such middleware has run, and for a user class that leaves
    `identity` out. A display name is none: it is written to be shown, and may be an e-mail
    address.

    Args:
        connection: ASGI scope.
    """
    user = connection.get("user")
    if user is None:
        return None
    if not user.is_authenticated:
        return ANONYMOUS
    try:
        return user.identity
    except (AttributeError, NotImplementedError):  # BaseUser's own raises the latter
        return None
