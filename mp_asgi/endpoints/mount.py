"""Answer what is asked of our endpoints. Sans-IO: both doors ask the same object."""

import json
from collections.abc import Mapping
from datetime import date
from types import MappingProxyType
from typing import Any, Final

from mp_asgi.consent.policy import Reason
from mp_asgi.consent.signals import has_one
from mp_asgi.errors import SettingsError
from mp_asgi.events import Notice
from mp_asgi.settings import Settings
from mp_asgi.tracker import Tracker

from .browser_wire import MAX_BATCH_BYTES
from .first_party import FirstParty
from .identity import agree_on_ids
from .message import MAX_BODY_BYTES, PRIVATE, Answer, Headers, Request, Response, render, say
from .metrics import Reports
from .notices import Notices
from .posted import Posted, Refusal, read_posted, refuse
from .script import Script
from .texts import check_notice

GPC_PATH: Final = "/.well-known/gpc.json"
"""Where a site says that it follows GPC (W3C GPC, section 4)."""

_READ: Final = ("GET", "HEAD")
_UNASKED: Final = frozenset({Reason.NO_CHOICE, Reason.OPT_OUT_DEFAULT, Reason.COOKIELESS})
"""Why a decision stands that no choice of the visitor's has led to."""
_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


class Mount:
    """The endpoints of one site.

    Args:
        settings: `mount`, `gpc_since`, `first_party`, `adopt_browser_id`, `share_id` and
            `metrics_token` say which there are.

    Raises:
        SettingsError: A text of `notice` is missing or wrong.
    """

    def __init__(self, settings: Settings) -> None:
        if remedy := check_notice(settings.notice):
            raise SettingsError([f"MP_ASGI_NOTICE (notice) cannot be shown. {remedy}"])
        self._settings = settings
        self._notices = Notices(settings.notice, settings.consent_scope)
        self._under = (f"{settings.mount}/",) if settings.mount else ()
        self._gpc_path = GPC_PATH if settings.gpc_since else None
        self._batches = FirstParty(settings).routes if settings.first_party else {}
        self._reports = Reports(settings)
        is_hybrid = settings.adopt_browser_id or settings.share_id
        self._routes: Mapping[str, Mapping[str, Answer]] = {
            **self._batches,
            **self._reports.routes,
            **({f"{settings.mount}/identity": {"POST": agree_on_ids}} if is_hybrid else {}),
            f"{settings.mount}/consent": {**_reads(self._tell_state), "POST": self._decide},
            f"{settings.mount}/banner.js": _script("banner.js", self._values()),
            f"{settings.mount}/bridge.js": _script("bridge.js", self._values()),
            GPC_PATH: _reads(self._tell_support),
        }

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to serve."""
        return not self._under and self._gpc_path is None

    def owns(self, path: str) -> bool:
        """Whether a path inside the app is ours."""
        return path.startswith(self._under) or path == self._gpc_path

    def max_body_bytes(self, path: str) -> int:
        """Answer how many bytes a body for a path of ours may have; a door reads one more."""
        return MAX_BATCH_BYTES if path in self._batches else MAX_BODY_BYTES

    def waits(self, path: str) -> bool:
        """Whether the answer for a path waits for a storage, so that no event loop may give it."""
        return path in self._reports.routes

    def answer(self, request: Request, tracker: Tracker) -> Response:
        """Answer a request for a path of ours."""
        answers = self._routes.get(request.path)
        if answers is None:
            return say(404, {"error": "There is no such endpoint."})
        answer = answers.get(request.method)
        if answer is None:
            allow = (b"allow", ", ".join(answers).encode())
            return say(405, {"error": "This endpoint knows no such method."}, allow)
        response = answer(request, tracker)
        if tracker.exchange is not None:
            tracker.exchange.is_at_mount = True
        return response._replace(body=bytes) if request.method == "HEAD" else response

    def _tell_state(self, request: Request, tracker: Tracker) -> Response:
        return self._show(200, request, tracker)

    def _decide(self, request: Request, tracker: Tracker) -> Response:
        posted = read_posted(request)
        if isinstance(posted, Refusal):
            return refuse(posted, tracker)
        if conflict := self._take(posted, request, tracker):
            return self._show(409, request, tracker, conflict=conflict)
        if posted.return_to:
            location = (b"location", posted.return_to.encode("ascii"))
            return self._show(303, request, tracker, [location])
        return self._show(200, request, tracker)

    def _take(self, posted: Posted, request: Request, tracker: Tracker) -> Mapping[str, Any]:
        """Record a decision, or answer what is missing for it to count."""
        notice = self._notices.find(posted.language, posted.notice)
        if not posted.is_granted:
            tracker.consent.deny(notice=notice, source=posted.source)
            return _NOTHING
        if posted.notice and notice is None:
            # An old tab or a cache showed words that do not tell what a grant means today.
            return {"needs_reload": True, "notices": self._notices.shown()}
        if posted.source and not posted.is_fresh:
            decision = tracker.consent.decision
            if decision.reason not in _UNASKED:
                return _NOTHING if decision.is_granted else {"needs_choice": True}
        return self._grant(posted, notice, request, tracker)

    def _grant(
        self, posted: Posted, notice: Notice | None, request: Request, tracker: Tracker
    ) -> Mapping[str, Any]:
        is_granted = tracker.consent.grant(
            override_gpc=posted.overrides_gpc, notice=notice, source=posted.source
        )
        return _NOTHING if is_granted else {"needs_override": self._has_gpc(request)}

    def _has_gpc(self, request: Request) -> bool:
        return self._settings.honor_gpc and has_one(request.header(b"sec-gpc"))

    def _show(
        self,
        status: int,
        request: Request,
        tracker: Tracker,
        headers: Headers = (),
        *,
        conflict: Mapping[str, Any] = _NOTHING,
    ) -> Response:
        """Answer the state as it stands once the response has started."""
        consent = tracker.consent

        def tell() -> bytes:
            decision = consent.decision
            return render(
                {
                    "state": decision.state.value,
                    "reason": decision.reason.value,
                    "needs_prompt": decision.needs_prompt,
                    "gpc": self._has_gpc(request),
                    "version": self._settings.policy_version.name,
                    **conflict,
                }
            )

        tell()  # a use before the start, so that the seam asks the app for its late answers
        return Response(status, [*PRIVATE, *headers], tell)

    def _values(self) -> Mapping[str, str]:
        """Answer the marks in our scripts with what this site makes of them."""
        return {
            '"@NOTICES@"': self._notices.render(),
            '"@HONORS_GPC@"': json.dumps(self._settings.honor_gpc),
            '"@MOUNT@"': json.dumps(self._settings.mount),
            '"@TOKEN@"': json.dumps(self._settings.token),
        }

    def _tell_support(self, request: Request, tracker: Tracker) -> Response:
        del request, tracker
        since = date.fromisoformat(self._settings.gpc_since)
        return say(200, {"gpc": True, "lastUpdate": since.isoformat()})


def _reads(answer: Answer) -> dict[str, Answer]:
    return dict.fromkeys(_READ, answer)


def _script(name: str, values: Mapping[str, str]) -> Mapping[str, Answer]:
    script = Script(name, values)
    return _reads(lambda request, _: script.answer(request.header))
