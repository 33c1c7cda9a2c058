"""Answer mixpanel-browser under the site's own address, as Mixpanel would (`api_host: '/_mp'`).

Events and profile updates become the visitor's own. Session replay and flags get an empty
success and go nowhere. Nothing of the request but the decoded messages goes on: no cookie, no
header (RULES section 2, rule 5; reference/mixpanel.md section 4.4).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from mp_asgi.context.address import render_address
from mp_asgi.exchange import Exchange
from mp_asgi.head import TrustedProxies
from mp_asgi.settings import Settings
from mp_asgi.settings.parsing import parse_names
from mp_asgi.tracker import Tracker

from .browser_wire import Flags, TooLarge, Unreadable, read_flags, read_messages
from .intake import Intake
from .limiter import EACH, NETWORK, Limiter, Sender
from .message import PLAIN, PRIVATE, Answer, Request, Response, render, say
from .posted import Refusal, check_origin, refuse

_METHODS: Final = ("GET", "POST")
_NOTHING: Final = "data, missing or empty"  # Mixpanel's words

_Take = Callable[[Intake, Sequence[Any]], int]
_TAKERS: Final[Mapping[str, _Take]] = {
    "track": Intake.take_events,
    "engage": Intake.take_updates,
    "groups": Intake.take_group_updates,
}
_EMPTY: Final[Mapping[str, Any]] = {
    "record": {},
    "flags": {"flags": {}},
    # Recording would only load the page: what it sends goes nowhere.
    "settings": {"sdk_config": {"config": {"record_sessions_percent": 0}}},
    "decide": {},  # 2.29 and before
}
"""What mixpanel-browser reads without complaint (2.83, and 2.29 for `decide`), by kind."""


class FirstParty:
    """The endpoints of one site for mixpanel-browser.

    Args:
        settings: `first_party_names` may rename them; `trusted_proxies` tell who asks.

    Attributes:
        routes: Answers by path, with and without a slash at its end, and by method.
    """

    def __init__(self, settings: Settings) -> None:
        self._limiter = Limiter()
        self._proxies = TrustedProxies(settings.trusted_proxies)
        self.routes: Mapping[str, Mapping[str, Answer]] = {
            f"{settings.mount}/{name}{slash}": dict.fromkeys(_METHODS, self._answer_to(kind))
            for kind, name in parse_names(settings.first_party_names).items()
            for slash in ("", "/")
        }

    def _answer_to(self, kind: str) -> Answer:
        take = _TAKERS.get(kind)

        def answer(request: Request, tracker: Tracker) -> Response:
            refusal = check_origin(request)
            if refusal is None and take is not None:
                refusal = _check_script(request, is_tracking=kind == "track")
            if refusal is not None:
                return refuse(refusal, tracker)
            if take is None:
                return say(200, _EMPTY[kind])
            return self._take(take, request, tracker)

        return answer

    def _take(self, take: _Take, request: Request, tracker: Tracker) -> Response:
        flags, exchange, sink = read_flags(request.query), tracker.open(), tracker.core.sink
        if not exchange.may_take():
            reason = exchange.decision.reason.value
            return _reply(flags, lambda: reason)
        try:
            messages = read_messages(request)
        except TooLarge as error:
            return refuse(Refusal(413, str(error)), tracker)
        except Unreadable:
            sink.count("refused", 1, "unreadable")
            return _reply(flags, lambda: _NOTHING)
        if not self._has_room(len(messages), tracker):
            sink.count("refused", len(messages), "rate_limited")
            return refuse(Refusal(429, "Too much at once; try again later."), tracker)
        errors = [_NOTHING]

        def take_all() -> None:
            intake = Intake(exchange, tracker.core, flags.sent_at)
            number = take(intake, messages)
            self._charge(number, tracker)
            errors[0] = "" if number else _find_error(exchange, intake)

        exchange.when_settled(take_all)
        return _reply(flags, lambda: errors[0])

    def _has_room(self, number: int, tracker: Tracker) -> bool:
        sender, core = self._find_sender(tracker.open()), tracker.core
        with core.lock:
            return self._limiter.has_room(sender, number, core.clock())

    def _charge(self, number: int, tracker: Tracker) -> None:
        sender = self._find_sender(tracker.open())
        with tracker.core.lock:
            self._limiter.charge(sender, number)

    def _find_sender(self, exchange: Exchange) -> Sender:
        """Answer whose limit counts. An ID that is minted here is nobody's yet: whoever keeps no
        cookies would get a new one, and a new limit, with each request.
        """
        if device_id := exchange.known_device_id():
            return Sender(EACH, device_id)
        address = self._proxies.find_client(exchange.head)
        return Sender(NETWORK, render_address(address, is_coarse=True))


def _check_script(request: Request, *, is_tracking: bool) -> Refusal | None:
    """Refuse what no script has sent: an image or a link in a page may be a stranger's words.

    Profiles are not updated by a GET that does not say so (2.11 sends some).
    """
    target, mode = request.header(b"sec-fetch-dest"), request.header(b"sec-fetch-mode")
    is_silent = target is None and (is_tracking or request.method == "POST")
    if (is_silent or target == b"empty") and mode != b"navigate":
        return None
    return Refusal(403, "Only scripts of this origin may send.")


def _find_error(exchange: Exchange, intake: Intake) -> str:
    """Answer why nothing was taken."""
    decision = exchange.decision
    return (intake.refused or _NOTHING) if decision.is_granted else decision.reason.value


def _reply(flags: Flags, find_error: Callable[[], str]) -> Response:
    """Answer as Mixpanel does: always 200, and 0 for what it will never take.

    The SDK drops that quietly; it repeats after a 429 and sends less after a 413, and complains
    in the console about every other status (request-batcher.js, mixpanel-core.js).
    """
    if not flags.is_verbose:
        return Response(200, PLAIN, lambda: b"0" if find_error() else b"1")

    def tell() -> bytes:
        error = find_error()
        return render({"error": error or None, "status": 0 if error else 1})

    return Response(200, PRIVATE, tell)
