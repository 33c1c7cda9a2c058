"""Render the replies that Mixpanel is known to give. Decides nothing.

Shapes: Mixpanel's OpenAPI file (StrictReceived, StrictInvalid, StrictUnauthorized, StrictTooLarge,
RateLimitExceeded, Received) and replies that others recorded from the live service.
"""

import base64
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

NO_DATA = "data, missing or empty"
INVALID_RECORDS = "some data points in the request failed validation"
RATE_LIMITED = "Project exceeded rate limits. Please retry the request with exponential backoff."
UPSTREAM = "upstream connect error or disconnect/reset before headers"
PIXEL = base64.b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")

_CALLBACK = re.compile(r"[A-Za-z_$][A-Za-z0-9_$.]{0,100}")


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole HTTP reply, as values."""

    status: int
    body: bytes
    media_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


def json_reply(status: int, content: Any, headers: Mapping[str, str] | None = None) -> Reply:
    """Render JSON; ASCII, because what was refused may hold lone surrogates."""
    return Reply(status, json.dumps(content).encode("ascii"), headers=headers or {})


def text_reply(status: int, text: str, media_type: str = "text/plain") -> Reply:
    """Render text."""
    return Reply(status, text.encode(), media_type)


def imported(count: int, *, is_strict: bool) -> Reply:
    """Say that every record of an `/import` was kept."""
    status = "OK" if is_strict else 1
    return json_reply(200, {"code": 200, "num_records_imported": count, "status": status})


def import_failed(count: int, failed: Sequence[Mapping[str, Any]], *, is_strict: bool) -> Reply:
    """Say that some records were refused; the others are kept."""
    if not is_strict:
        content = {"code": 200, "error": INVALID_RECORDS, "num_records_imported": count}
        return json_reply(200, {**content, "status": 0})
    content = {"code": 400, "error": INVALID_RECORDS, "failed_records": list(failed)}
    return json_reply(400, {**content, "num_records_imported": count, "status": "Bad Request"})


def bad_request(error: str) -> Reply:
    """Refuse an `/import` as a whole."""
    return json_reply(400, {"code": 400, "error": error, "status": "Bad Request"})


def unauthorized(path: str, error: str = "Invalid credentials") -> Reply:
    """Refuse the credentials; only `/import` says `code`."""
    if path == "/import":
        return json_reply(401, {"code": 401, "error": error, "status": "Unauthorized"})
    return json_reply(401, {"error": error, "status": "error"})


def too_large(limit_bytes: int) -> Reply:
    """Refuse the size."""
    error = f"request exceeds max limit of {limit_bytes} bytes"
    return json_reply(413, {"code": 413, "error": error, "status": "Request Entity Too Large"})


def rate_limited(path: str, retry_after: int | None = None) -> Reply:
    """Refuse the rate. Mixpanel documents no `Retry-After`; it may still be tried out."""
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    if path == "/import":
        content = {"code": 429, "error": RATE_LIMITED, "status": "Too Many Requests"}
        return json_reply(429, content, headers)
    return json_reply(429, {"error": RATE_LIMITED, "status": 0}, headers)


def received(flags: Mapping[str, str], *, error: str = "", good: int | None = None) -> Reply:
    """Answer as `/track`, `/engage` and `/groups` do: 200, and the body tells."""
    if flags.get("img") == "1":
        return Reply(200, PIXEL, "image/gif")
    content: dict[str, Any] = {"error": error or None, "status": int(not error)}
    if good is not None:
        content["num_good_events"] = good
    is_json = flags.get("verbose") in {"1", "2"} or good is not None
    text = json.dumps(content) if is_json else str(content["status"])
    if _CALLBACK.fullmatch(flags.get("callback", "")):
        return text_reply(200, f"{flags['callback']}({text});", "text/javascript")
    return text_reply(200, text, "application/json" if is_json else "text/plain")
