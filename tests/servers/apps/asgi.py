"""A minimal ASGI app that refuses the lifespan, as Django does: `GET /NAME` tracks NAME."""

import json
import os
import threading
from typing import Any

from mp_asgi import MixpanelMiddleware, get_tracker
from tests.servers.apps.ends import note, note_exit

COOKIES = [(b"set-cookie", b"cart=3; Path=/"), (b"set-cookie", b"theme=dark")]


async def track(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        raise ValueError(f"Cannot handle {scope['type']}.")
    note_exit()
    threads = [thread.name for thread in threading.enumerate()]
    get_tracker(scope).track(scope["path"].strip("/"))
    body = json.dumps({"pid": os.getpid(), "threads": threads}).encode()
    length = [(b"content-length", b"%d" % len(body))] if scope["query_string"] == b"sized" else []
    headers = [(b"content-type", b"application/json"), (b"x-kept", b"1"), *COOKIES, *length]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


served = MixpanelMiddleware(track)


async def app(scope: Any, receive: Any, send: Any) -> None:
    async def receive_and_note() -> Any:
        message = await receive()
        if message["type"] == "lifespan.shutdown":
            note("lifespan")
        return message

    await served(scope, receive_and_note if scope["type"] == "lifespan" else receive, send)
