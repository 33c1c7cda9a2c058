"""`mp-asgi explain`: say what one request would lead to under the current settings.

The request runs through the same exchange as a real one; its consequences go nowhere.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from mp_asgi.assembly import make_core, make_ledger
from mp_asgi.context.request import RequestContext
from mp_asgi.core import Core, Handover
from mp_asgi.errors import MixpanelASGIError
from mp_asgi.events import Act, Link
from mp_asgi.exchange import Exchange, Phase
from mp_asgi.head import RequestHead
from mp_asgi.identity import Visitor
from mp_asgi.place import Place, normalise_path
from mp_asgi.settings import Settings

from .heard import Heard, list_signals

_PAGE = "mixpanel-browser"
_WHAT_IT_MEANS = {
    "granted": "events are sent",
    "denied": "nothing is sent, waiting events are forgotten",
    "unknown": "nothing is sent",
}
_LEFT_OUT = {
    "excluded": "the path, by MP_ASGI_EXCLUDE",
    "bot": "a bot's user agent, by MP_ASGI_EXCLUDE_BOTS",
}


@dataclass(frozen=True, slots=True)
class Explanation:
    """What the request would lead to; the names are those of the JSON."""

    state: str
    reason: str
    source: str
    sends: bool
    sets_id_cookie: bool
    deletes_id_cookie: bool
    device_id: str | None
    user_id: str | None
    needs_prompt: bool
    signals: Sequence[Heard]
    adopted_from: str | None
    sets_page_cookies: Sequence[str]
    deletes_page_cookies: Sequence[str]
    left_out: str | None


class _Nowhere:
    """A sink that only notes whether something would leave."""

    def __init__(self) -> None:
        self.has_accepted = False

    def accept(self, handover: Handover) -> None:
        self.has_accepted = bool(handover.items)

    def stop(self, keys: Sequence[bytes], at: float) -> None:
        """Forget nothing."""

    def count(self, name: str, number: int = 1, reason: str = "") -> None:
        """Count nothing."""

    def warn(self, topic: str, message: str) -> None:
        """Log nothing."""

    def record(self, item: Act | Link) -> None:
        """Record nothing."""

    def ask(self, key: bytes) -> None:
        """Ask nobody."""


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "explain",
        help="say what one request would lead to, and why",
        description="Run one request that tracks one event through the current settings, and say "
        "what it would lead to. Nothing is sent. identify_from and consent_from belong to the "
        "app and are not called; --user stands in for the first.",
    )
    parser.add_argument(
        "--url", default="https://localhost/", type=_parse_url, help="default: %(default)s"
    )
    parser.add_argument(
        "--header",
        action="append",
        default=[],
        type=_parse_header,
        metavar="'NAME: VALUE'",
        help="a request header; may be repeated",
    )
    parser.add_argument("--user", metavar="ID", help="the user whom the app knows")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the explanation."""
    try:
        explanation = explain(Settings.from_env(), args.url, args.header, args.user)
    except (MixpanelASGIError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    if args.json:
        print(json.dumps(asdict(explanation)))
    else:
        print(_render(explanation))
    return 0


def explain(
    settings: Settings, url: str, headers: Sequence[tuple[bytes, bytes]], user: str | None
) -> Explanation:
    """Run one request that tracks one event.

    Args:
        settings: As configured.
        url: Of the request; https makes cookies secure.
        headers: Names in lower case.
        user: The answer of `identify_from`, if any.
    """

    def identify_from(_: object) -> str | None:
        return user

    is_asked = settings.identify_from is not None or user is not None
    settings = replace(
        settings, identify_from=identify_from if is_asked else None, consent_from=None
    )
    sink = _Nowhere()
    core = make_core(settings, sink, time.time, os.urandom)
    _learn_account(core, settings, user)
    parts = urlsplit(url)
    if not any(name == b"host" for name, _ in headers):
        headers = [*headers, (b"host", parts.netloc.encode("ascii", "replace"))]
    head = core.heads.read_asgi(core.clock(), parts.scheme, None, headers)
    exchange = Exchange(core, head, Phase.OPEN)
    exchange.track("Explained", None)
    place = Place("GET", parts.path or "/", parts.query)
    exchange.begin_response(None, place)
    headers = exchange.write_headers(200, []) or []
    exchange.close(None, place)

    name = core.id_style.name.encode("ascii")
    ids = [
        value for _, value in headers if value.startswith((name + b"=", b"__Host-" + name + b"="))
    ]
    is_deleted = any(b"; Max-Age=0;" in cookie for cookie in ids)
    known = core.jars.read(head.cookie, is_secure=core.schemes.is_secure(head)).visitor
    visitor, decision = exchange.visitor(), exchange.decision
    logged_in = user or (known.user_id if known is not None else None)
    is_kept = visitor is not None and known is not None and visitor.device_id == known.device_id
    adopted_from = None if visitor is None or is_kept else _find_source(core, head, visitor)
    page_cookies = _sort_page_cookies(core, headers)
    left_out = _find_left_out(core, head, place)
    return Explanation(
        state=decision.state.value,
        reason=decision.reason.value,
        source=decision.source,
        sends=sink.has_accepted and left_out is None,
        sets_id_cookie=bool(ids) and not is_deleted,
        deletes_id_cookie=is_deleted,
        device_id=visitor.device_id if visitor is not None and (is_kept or adopted_from) else None,
        user_id=None if visitor is None else visitor.user_id,
        needs_prompt=decision.needs_prompt,
        signals=list_signals(core, head, decision, logged_in),
        adopted_from=adopted_from,
        sets_page_cookies=page_cookies[True],
        deletes_page_cookies=page_cookies[False],
        left_out=left_out,
    )


def _find_left_out(core: Core, head: RequestHead, place: Place) -> str | None:
    """Answer why this request's events are left out whatever the visitor chose; None if not."""
    if core.excluded is not None and core.excluded.fullmatch(normalise_path(place.path)):
        return "excluded"
    # Whether it came by https says nothing of who asks.
    is_bot = core.contexts.is_bot(RequestContext(head, place, is_secure=False))
    return "bot" if is_bot else None


def _find_source(core: Core, head: RequestHead, visitor: Visitor) -> str | None:
    """Answer whose ID a visitor goes on with, the page's or the app's cookie; None if ours."""
    adopted = None if core.adopter is None else core.adopter.find(head.cookie)
    if adopted is None or adopted.device_id != visitor.device_id:
        return None
    page_ids = core.page_ids if core.settings.adopt_browser_id else None
    is_of_page = page_ids is not None and set(page_ids.find(head.cookie)) == {adopted}
    return _PAGE if is_of_page else core.settings.adopt_cookie


def _sort_page_cookies(
    core: Core, headers: Iterable[tuple[bytes, bytes]]
) -> Mapping[bool, Sequence[str]]:
    """Answer which of mixpanel-browser's cookies the response sets, and which it only deletes."""
    names = () if core.browser is None else (core.browser.id_name, core.browser.choice_name)
    sorted_names: dict[bool, list[str]] = {True: [], False: []}
    for name in names:
        found = [value for _, value in headers if value.startswith(f"{name}=".encode("ascii"))]
        if found:
            sorted_names[any(b"; Max-Age=0;" not in value for value in found)].append(name)
    return sorted_names


def _learn_account(core: Core, settings: Settings, user: str | None) -> None:
    """Let the ledger's answer about the user count, as a worker would have learned it."""
    ledger = make_ledger(settings) if user is not None else None
    if ledger is None or core.accounts is None:
        return
    key = core.keys.user_key(user)
    core.accounts.learn({key: ledger.standings([key]).get(key)})
    ledger.close()


def _render(explanation: Explanation) -> str:
    if explanation.deletes_id_cookie:
        cookie = "deleted"
    elif explanation.sets_id_cookie:
        cookie = "set"
    else:
        cookie = "left as it is"
    is_used = explanation.sends or explanation.sets_id_cookie
    device = explanation.device_id or ("a new one" if is_used else "not used")
    page = [f"{name} set" for name in explanation.sets_page_cookies]
    page += [f"{name} deleted" for name in explanation.deletes_page_cookies]
    rows: list[tuple[str, Any]] = [
        ("decision", f"{explanation.state}: {_tell_what_it_means(explanation)}"),
        ("because", f"{explanation.reason} (source: {explanation.source})"),
        *([("left out", _LEFT_OUT[explanation.left_out])] if explanation.left_out else ()),
        ("ID cookie", cookie),
        *([("page", ", ".join(page))] if page else ()),
        ("device ID", device + _render_source(explanation.adopted_from)),
        ("user ID", explanation.user_id or "none"),
        ("prompt", "ask the visitor" if explanation.needs_prompt else "not needed"),
    ]
    lines = [f"{name:<10} {value}" for name, value in rows]
    return "\n".join(
        [
            *lines,
            "",
            "what each signal said, the strongest first",
            *_render_signals(explanation.signals),
        ]
    )


def _tell_what_it_means(explanation: Explanation) -> str:
    if explanation.left_out and explanation.state == "granted":
        return "but nothing is sent"
    return _WHAT_IT_MEANS[explanation.state]


def _render_source(adopted_from: str | None) -> str:
    if adopted_from is None:
        return ""
    return f", adopted from {'' if adopted_from == _PAGE else 'the cookie '}{adopted_from}"


def _render_signals(signals: Sequence[Heard]) -> Iterator[str]:
    width = max(len(heard.source) for heard in signals)
    for heard in signals:
        about = ", ".join(filter(None, (heard.at, heard.detail)))
        mark = ">" if heard.decided else " "
        yield f"{mark} {heard.source:<{width}}  {heard.said:<10} {about}".rstrip()


def _parse_url(text: str) -> str:
    try:
        parts = urlsplit(text)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in {"http", "https"} or not parts.netloc:
        raise argparse.ArgumentTypeError(f"{text!r} is no URL; write https://host/path")
    return text


def _parse_header(text: str) -> tuple[bytes, bytes]:
    name, separator, value = text.partition(":")
    if not separator or not name.strip():
        raise argparse.ArgumentTypeError(f"{text!r} is no header; write 'Name: value'")
    encoded = value.strip().encode("latin-1", "replace")
    return name.strip().lower().encode("latin-1", "replace"), encoded
