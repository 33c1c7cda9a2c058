"""Read a posted decision. Whatever is not clearly one is refused and never a grant."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl, quote

from mp_asgi.tracker import Tracker

from .message import MAX_BODY_BYTES, Request, Response, is_same_origin, say
from .texts import LANGUAGE

MAX_FIELDS: Final = 64
MAX_PATH: Final = 2_000  # characters; servers and proxies take longer ones apart

# A single slash, and nothing that a browser takes for one or leaves out (WHATWG URL, 4.4).
_PATH: Final = re.compile(r"/(?![/\\])[^\\\x00-\x1f\x7f]*")
_URL_CHARACTERS: Final = "/?#[]@!$&'()*+,;=:%~-._"
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_BANNER: Final = "banner"
_SOURCE: Final = re.compile(r"banner|cmp:[a-z0-9-]{1,40}")
_TRUTHS: Final = frozenset({"override_gpc", "fresh", "$had_persisted_distinct_id"})
_FORM_TRUTH: Final = {"true": True, "1": True, "on": True, "false": False, "0": False}


class Posted(NamedTuple):
    """A decision as it was posted.

    Attributes:
        is_granted: Grant or denial.
        overrides_gpc: The visitor was told that this overrides their browser's signal.
        language: Of the notice; empty if the page did not say.
        notice: SHA-256 of the notice's text in hexadecimal digits; empty if it did not say.
        source: `cmp:NAME` of the manager that the bridge heard; empty for our own banner.
        is_fresh: The visitor told that manager so in this page view. Without it, the manager may
            only be saying again what it was told long ago.
        return_to: Path to answer a form with; empty without a safe one.
    """

    is_granted: bool
    overrides_gpc: bool = False
    language: str = ""
    notice: str = ""
    source: str = ""
    is_fresh: bool = False
    return_to: str = ""


class Refusal(NamedTuple):
    """Why what was posted does not count: an HTTP status and a sentence."""

    status: int
    message: str


def refuse(refusal: Refusal, tracker: Tracker) -> Response:
    """Answer a refusal; what came from elsewhere is counted (RULES section 2, rule 1)."""
    if refusal.status == 403:  # noqa: PLR2004  # Forbidden
        tracker.core.sink.count("cross_site")
    return say(refusal.status, {"error": refusal.message})


def check_origin(request: Request) -> Refusal | None:
    """Refuse what no page of this origin has sent."""
    if is_same_origin(request.header):
        return None
    return Refusal(403, "Only pages of this origin may ask.")


def read_fields(request: Request) -> Mapping[str, Any] | Refusal:
    """Read the fields of a posted form or JSON object, or say why there are none."""
    if refusal := check_origin(request):
        return refusal
    if len(request.body) > MAX_BODY_BYTES:
        return Refusal(413, f"At most {MAX_BODY_BYTES} bytes may be posted.")
    media_type = (request.header(b"content-type") or b"").partition(b";")[0].strip().lower()
    parse = _PARSERS.get(media_type)
    if parse is None:
        return Refusal(415, "Post application/json or application/x-www-form-urlencoded.")
    try:
        return parse(request.body)
    except (ValueError, RecursionError):
        return Refusal(400, "The body cannot be read, or names a field twice.")


def read_posted(request: Request) -> Posted | Refusal:
    """Read a decision, or say why it is none."""
    fields = read_fields(request)
    return fields if isinstance(fields, Refusal) else _read_decision(fields)


def _parse_json(body: bytes) -> Mapping[str, Any]:
    fields = json.loads(body.decode(), object_pairs_hook=_unique)
    if not isinstance(fields, dict):
        raise ValueError("no object")  # noqa: TRY004  # caught above, with what json raises
    # Only a form is answered with another page.
    return {name: value for name, value in fields.items() if name != "return_to"}


def _parse_form(body: bytes) -> Mapping[str, Any]:
    pairs = parse_qsl(
        body.decode(), keep_blank_values=True, max_num_fields=MAX_FIELDS, errors="strict"
    )
    fields: dict[str, Any] = {name: value for name, value in _unique(pairs).items() if value}
    for name in _TRUTHS.intersection(fields):
        fields[name] = _FORM_TRUTH.get(fields[name])
    return fields


_PARSERS: Final[Mapping[bytes, Callable[[bytes], Mapping[str, Any]]]] = {
    b"application/json": _parse_json,
    b"application/x-www-form-urlencoded": _parse_form,
}


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError("a field is there twice")
    return fields


def _matches(pattern: re.Pattern[str]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and pattern.fullmatch(value) is not None


def _is_truth(value: object) -> bool:
    return isinstance(value, bool)


_FIELDS: Final[Mapping[str, Callable[[Any], bool]]] = {
    "analytics": _matches(re.compile("granted|denied")),
    "override_gpc": _is_truth,
    "language": _matches(LANGUAGE),
    "notice": _matches(_DIGEST),
    "source": _matches(_SOURCE),
    "fresh": _is_truth,
}


def _read_decision(fields: Mapping[str, Any]) -> Posted | Refusal:
    """Check the fields we know; any other is the page's own, such as a token of its framework."""
    for name, is_valid in _FIELDS.items():
        if name in fields and not is_valid(fields[name]):
            return Refusal(400, f"The value of {name} is unknown.")
    if "analytics" not in fields:
        return Refusal(400, "The field analytics is missing: granted or denied.")
    posted = Posted(
        is_granted=fields["analytics"] == "granted",
        overrides_gpc=fields.get("override_gpc", False),
        language=fields.get("language", ""),
        notice=fields.get("notice", ""),
        source=fields.get("source", _BANNER).removeprefix(_BANNER),
        is_fresh=fields.get("fresh", False),
        return_to=read_return_path(fields.get("return_to", "")),
    )
    # A manager's banner does not say that agreeing overrides the browser's signal.
    if posted.overrides_gpc and (posted.source or not posted.is_granted):
        return Refusal(400, "Only a grant from our own banner can override GPC.")
    return posted


def read_return_path(text: str) -> str:
    """Answer a path of this origin, ready for a Location header; empty if it is none."""
    if len(text) > MAX_PATH or not _PATH.fullmatch(text):
        return ""
    return quote(text, safe=_URL_CHARACTERS)
