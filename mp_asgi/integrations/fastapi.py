"""Offer the tracker as a FastAPI dependency."""

from typing import Annotated

try:
    from fastapi import Depends
except ImportError as error:
    raise ImportError('fastapi is missing. Run: pip install "mp-asgi[fastapi]"') from error

from starlette.requests import HTTPConnection

from mp_asgi.tracker import Tracker, get_tracker


def find_tracker(connection: HTTPConnection) -> Tracker:
    """Answer the tracker of an HTTP request or a websocket.

    Raises:
        LookupError: No middleware of ours serves this request.
    """
    return get_tracker(connection)


TrackerDep = Annotated[Tracker, Depends(find_tracker)]
"""Annotate a parameter with it: `def order(cart: Cart, mixpanel: TrackerDep): …`"""
