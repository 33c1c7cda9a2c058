"""Answer operators: what was counted, and how delivery fares. Nobody without the token."""

from collections.abc import Mapping
from hmac import compare_digest
from typing import Final

from mp_asgi.analytics import Analytics
from mp_asgi.errors import OutboxUnavailable
from mp_asgi.metrics import CONTENT_TYPE
from mp_asgi.settings import Settings
from mp_asgi.tracker import Tracker

from .message import Answer, Headers, Request, Response, render

_UNKEPT: Final[Headers] = [
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
]
_JSON: Final[Headers] = [(b"content-type", b"application/json"), *_UNKEPT]
_TEXT: Final[Headers] = [(b"content-type", CONTENT_TYPE.encode()), *_UNKEPT]
_CHALLENGE: Final = (b"www-authenticate", b'Bearer realm="mp-asgi"')


class Reports:
    """Where operators ask. The answers wait for the outbox's storage: not for an event loop.

    Attributes:
        routes: How to answer, by path and method; none without `metrics_token`.

    Args:
        settings: `mount` says where, `metrics_token` for whom.
    """

    def __init__(self, settings: Settings) -> None:
        self._token = settings.metrics_token.encode()
        answers: Mapping[str, Answer] = {"metrics": self._tell_metrics, "health": self._tell_health}
        self.routes: Mapping[str, Mapping[str, Answer]] = {
            f"{settings.mount}/{name}": dict.fromkeys(("GET", "HEAD"), answer)
            for name, answer in answers.items()
            if self._token
        }

    def _tell_metrics(self, request: Request, tracker: Tracker) -> Response:
        analytics = self._let_in(request, tracker)
        if isinstance(analytics, Response):
            return analytics
        try:
            text = analytics.metrics()
        except OutboxUnavailable as error:
            return _tell(503, {"error": str(error)})
        return Response(200, _TEXT, text.encode)

    def _tell_health(self, request: Request, tracker: Tracker) -> Response:
        analytics = self._let_in(request, tracker)
        if isinstance(analytics, Response):
            return analytics
        health = analytics.health()
        told = {"ok": health.is_ok, "problems": health.problems, "warnings": health.warnings}
        return _tell(200 if health.is_ok else 503, told)

    def _let_in(self, request: Request, tracker: Tracker) -> Analytics | Response:
        """Answer whom to ask, or why this asker may not."""
        scheme, _, token = (request.header(b"authorization") or b"").partition(b" ")
        is_known = compare_digest(token.strip(b" "), self._token)
        if not is_known or scheme.lower() != b"bearer":
            return _tell(401, {"error": "Send the metrics token as a bearer token."}, _CHALLENGE)
        # Of whoever delivers for this request: below an outer middleware of ours, that is it.
        sink = tracker.core.sink
        if not isinstance(sink, Analytics):
            return _tell(404, {"error": "Nothing is counted here."})
        return sink


def _tell(status: int, value: object, *headers: tuple[bytes, bytes]) -> Response:
    body = render(value)
    return Response(status, [*_JSON, *headers], lambda: body)
