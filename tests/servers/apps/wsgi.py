"""A minimal WSGI app: `GET /NAME` tracks NAME, and so does the variable TRACK_AT_IMPORT."""

import json
import os
import threading
from collections.abc import Iterator
from typing import Any
from wsgiref.util import setup_testing_defaults

from mp_asgi import MixpanelWSGIMiddleware, get_tracker


def track(environ: Any, start_response: Any) -> Iterator[bytes]:
    threads = [thread.name for thread in threading.enumerate()]
    get_tracker(environ).track(environ["PATH_INFO"].strip("/"))
    start_response("200 OK", [("Content-Type", "application/json"), ("X-Kept", "1")])
    # A generator without a length: what runs at its close must not delay the client.
    yield json.dumps({"pid": os.getpid(), "threads": threads}).encode()


app = MixpanelWSGIMiddleware(track)

if name := os.environ.get("TRACK_AT_IMPORT"):
    environ: dict[str, Any] = {"PATH_INFO": f"/{name}", "HTTP_X_MP_CONSENT": "granted"}
    setup_testing_defaults(environ)
    body: Any = app(environ, lambda *_: print)
    list(body)
    body.close()
