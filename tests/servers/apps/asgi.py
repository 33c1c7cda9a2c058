"""A minimal ASGI app that refuses the lifespan, as Django does: `GET /NAME` tracks NAME."""

import json
import os
import threading
from typing import Any

from mp_asgi import MixpanelMiddleware, get_tracker


async def track(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        raise ValueError(f"Cannot handle {scope['type']}.")
    threads = [thread.name for thread in threading.enumerate()]
    get_tracker(scope).track(scope["path"].strip("/"))
    body = json.dumps({"pid": os.getpid(), "threads": threads}).encode()
    headers = [(b"content-type", b"application/json"), (b"x-kept", b"1")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


app = MixpanelMiddleware(track)
