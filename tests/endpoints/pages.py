"""Pages of a site that run mixpanel-browser: what they send, with and without a door."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from mp_asgi import Tracker
from mp_asgi.core import Handover
from mp_asgi.endpoints.message import Request, Response
from mp_asgi.endpoints.mount import Mount
from mp_asgi.head import RequestHead
from mp_asgi.place import RawPlace
from mp_asgi.wire import Item
from tests.probes import cookie_header
from tests.support import NOW, FakeClock, RecordingSink, make_core

TOKEN = "0123456789abcdef0123456789abcdef"
HERE = [
    (b"host", b"shop.test"),
    (b"sec-fetch-site", b"same-origin"),
    (b"sec-fetch-mode", b"cors"),
    (b"sec-fetch-dest", b"empty"),
]
GRANTED = (b"x-mp-consent", b"granted")
TRACKING: RawPlace = ("POST", b"/_mp/track/", b"")


FIXTURES = Path(__file__).parents[1] / "fixtures"


def read_lines(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (FIXTURES / name).read_text("utf-8").splitlines()]


def read_attacks(where: str) -> list[Any]:
    """Answer the exact bytes of hostile inputs, one parameter each."""
    return [
        pytest.param(base64.b64decode(row["b64"]), id=f"{row['id']}-{row['why']}")
        for row in read_lines("attacks.jsonl")
        if row["where"] == where
    ]


ROWS = [
    pytest.param(row, id=f"{row['sdk_version']}-{row['scenario']}")
    for row in read_lines("mixpanel_browser.jsonl")
]
"""What real mixpanel-browsers sent, one parameter a recorded session."""


def event(name: Any = "Seen", **properties: Any) -> dict[str, Any]:
    return {"event": name, "properties": {"time": NOW, "token": TOKEN, **properties}}


def update(**operations: Any) -> dict[str, Any]:
    return {"$token": TOKEN, **{f"${name}": values for name, values in operations.items()}}


class Page:
    """A page of a consenting visitor, and the mount that it posts to."""

    def __init__(self, *headers: tuple[bytes, bytes], here: Any = HERE, **settings: Any) -> None:
        self.sink = RecordingSink()
        self.clock = FakeClock()
        self.core = make_core(
            self.clock,
            self.sink,
            **{"mount": "/_mp", "token": TOKEN, "first_party": True} | settings,
        )
        self.mount = Mount(self.core.settings)
        self.headers = [*here, *headers]
        self.client = ("203.0.113.7", 50_000)
        self.open()

    def open(self) -> None:
        """Begin another request."""
        self.tracker = Tracker((self.core, RequestHead, NOW, "https", self.client, self.headers))

    def grant(self, at: float) -> None:
        """Let the visitor agree at that time, in a request before this one."""
        self.clock.now = at
        self.tracker.consent.grant()
        self.keep()
        self.clock.now = NOW

    def keep(self) -> None:
        """End the request; the next one brings the cookies that its response set."""
        self.tracker.open().begin_response(None, TRACKING)
        written = self.tracker.open().write_headers(200, [])
        assert written is not None
        kept = [header for header in written if b"Max-Age=0" not in header[1]]
        self.tracker.open().close(None, TRACKING)
        self.headers = [*self.headers, cookie_header(kept)]
        self.open()

    def ask(self, method: str, path: str, body: bytes = b"", query: bytes = b"") -> Response:
        request = Request(method, f"/_mp/{path}", dict(self.headers).get, body, query)
        return self.mount.answer(request, self.tracker)

    def post(self, path: str, *messages: Any, query: bytes = b"verbose=1") -> Any:
        """Post a batch. Answer the reply, once the response has started."""
        response = self.ask("POST", path, json.dumps(messages).encode(), query)
        self.tracker.open().begin_response(None, TRACKING)
        self.tracker.open().write_headers(200, [])
        return json.loads(response.body())

    @property
    def handovers(self) -> list[Handover]:
        self.tracker.open().end_response()
        return self.sink.accepted

    @property
    def items(self) -> list[Item]:
        """What the requests so far have handed over."""
        return [item for handover in self.handovers for item in handover.items]

    @property
    def names(self) -> list[str]:
        return [item[1] for item in self.items]
