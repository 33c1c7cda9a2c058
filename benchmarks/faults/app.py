"""Be a site for either door: `GET /?first=0&count=3` tracks, and answers which process did."""

import os
from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qs

from mp_asgi import MixpanelMiddleware, MixpanelWSGIMiddleware, Tracker, get_tracker

from .producer import EVENT


def answer(tracker: Tracker, query: str) -> bytes:
    values = {name: int(value[0]) for name, value in parse_qs(query).items()}
    first = values.get("first", 0)
    for number in range(first, first + values.get("count", 0)):
        tracker.track(EVENT, {"number": number})
    return str(os.getpid()).encode("ascii")


async def serve(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        raise ValueError(f"Cannot handle {scope['type']}.")
    body = answer(get_tracker(scope), scope["query_string"].decode())
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def serve_wsgi(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    body = answer(get_tracker(environ), environ["QUERY_STRING"])
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


asgi = MixpanelMiddleware(serve)
wsgi = MixpanelWSGIMiddleware(serve_wsgi)
