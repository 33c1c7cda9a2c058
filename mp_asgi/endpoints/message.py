"""Carry one request to the endpoints and their response, without either door."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from mp_asgi.consent.signals import is_cross_site
from mp_asgi.tracker import Tracker

MAX_BODY_BYTES = 16_384  # a decision takes 300; a form may carry its framework's fields, too

ReadHeader = Callable[[bytes], bytes | None]
Headers = Sequence[tuple[bytes, bytes]]

PRIVATE: Headers = [
    (b"content-type", b"application/json"),
    (b"cache-control", b"private, no-store"),
    (b"vary", b"Cookie, Sec-GPC"),
    (b"x-content-type-options", b"nosniff"),
]
"""What is said about one visitor; no header here lets another origin read it."""


PLAIN: Headers = [(b"content-type", b"text/plain"), *PRIVATE[1:]]
"""The same for an answer that is no JSON."""


@dataclass(frozen=True, slots=True)
class Request:
    """What the core needs to know.

    Attributes:
        method: In capitals.
        path: Inside the app.
        header: Answers a header by its lower-case name; several are joined by a comma.
        body: Of a POST; longer than the path's limit if there was more than that.
        query: Raw, without its question mark.
    """

    method: str
    path: str
    header: ReadHeader
    body: bytes = b""
    query: bytes = b""


class Response(NamedTuple):
    """What a door sends.

    Attributes:
        status: Three digits.
        headers: Names in lower case.
        body: Asked for once the response has started: by then the app's late answers are in.
    """

    status: int
    headers: Headers
    body: Callable[[], bytes]


Answer = Callable[[Request, Tracker], Response]


def say(status: int, value: Any, *headers: tuple[bytes, bytes]) -> Response:
    """Answer a JSON response that nobody else may read or keep."""
    body = render(value)
    length = (b"content-length", b"%d" % len(body))
    return Response(status, [*PRIVATE, length, *headers], lambda: body)


def render(value: Any) -> bytes:
    """Render JSON."""
    return json.dumps(value, separators=(",", ":")).encode()


def is_same_origin(header: ReadHeader) -> bool:
    """Whether a page of this very origin sent the request; who says nothing is refused.

    Stricter than what the verbs of the tracker ask: those also hear clients that are no browser.
    """
    fetch_site = header(b"sec-fetch-site")
    if fetch_site is not None:
        return fetch_site.strip(b" \t") == b"same-origin"
    return header(b"origin") is not None and not is_cross_site(header)
