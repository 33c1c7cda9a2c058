"""Agree with a page on one ID, where mixpanel-browser keeps its own in localStorage.

The page posts what it has and goes on with what it is told (docs/identity.md).
"""

from mp_asgi.adoption import read_browser_ids
from mp_asgi.sharing import find_browser_ids
from mp_asgi.tracker import Tracker

from .message import PRIVATE, Request, Response, render
from .posted import Refusal, read_fields, refuse


def agree_on_ids(request: Request, tracker: Tracker) -> Response:
    """Adopt the page's ID where nobody owns ours yet, and answer which one it goes on with.

    Without a grant the answer tells nothing.
    """
    fields = read_fields(request)
    if isinstance(fields, Refusal):
        return refuse(fields, tracker)
    exchange, core = tracker.open(), tracker.core
    adopted = read_browser_ids(fields) if core.settings.adopt_browser_id else None
    if adopted is not None:
        exchange.adopt(adopted)
    # Before the start: an ID that is minted later would be told and not kept.
    is_known = exchange.visitor() is not None

    def tell() -> bytes:
        visitor = exchange.visitor() if is_known else None
        if visitor is None:
            return render({"adopted": False})
        is_adopted = adopted is not None and adopted.device_id == visitor.device_id
        return render({"adopted": is_adopted, **find_browser_ids(visitor, core.mode)})

    return Response(200, PRIVATE, tell)
