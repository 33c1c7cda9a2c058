"""A minimal WSGI app: `GET /NAME` tracks NAME, and so does the variable TRACK_AT_IMPORT."""

import json
import os
import threading
from collections.abc import Iterable, Iterator
from typing import Any
from wsgiref.util import setup_testing_defaults

from mp_asgi import MixpanelWSGIMiddleware, get_tracker
from tests.servers.apps.ends import note_exit

COOKIES = [("Set-Cookie", "cart=3; Path=/"), ("Set-Cookie", "theme=dark")]


def track(environ: Any, start_response: Any) -> Iterable[bytes]:
    note_exit()
    threads = [thread.name for thread in threading.enumerate()]
    get_tracker(environ).track(environ["PATH_INFO"].strip("/"))
    body = json.dumps({"pid": os.getpid(), "threads": threads}).encode()
    is_sized = environ.get("QUERY_STRING") == "sized"
    length = [("Content-Length", str(len(body)))] if is_sized else []
    headers = [("Content-Type", "application/json"), ("X-Kept", "1"), *COOKIES, *length]
    start_response("200 OK", headers)
    return [body] if is_sized else stream(body)


def stream(body: bytes) -> Iterator[bytes]:
    # A generator without a length: what runs at its close must not delay the client.
    yield body


app = MixpanelWSGIMiddleware(track)

if name := os.environ.get("TRACK_AT_IMPORT"):
    environ: dict[str, Any] = {"PATH_INFO": f"/{name}", "HTTP_X_MP_CONSENT": "granted"}
    setup_testing_defaults(environ)
    answer: Any = app(environ, lambda *_: print)
    list(answer)
    answer.close()
