"""Answer what is asked of our endpoints. Sans-IO: both doors ask the same object."""

from collections.abc import Callable, Mapping
from datetime import date
from typing import Final

from mp_asgi.consent.signals import has_one
from mp_asgi.errors import SettingsError
from mp_asgi.settings import Settings
from mp_asgi.tracker import Tracker

from .message import PRIVATE, Headers, Request, Response, render, say
from .notices import Notices
from .posted import Refusal, read_posted
from .script import Script
from .texts import check_notice

GPC_PATH: Final = "/.well-known/gpc.json"
"""Where a site says that it follows GPC (W3C GPC, section 4)."""

_READ: Final = ("GET", "HEAD")
_Answer = Callable[[Request, Tracker], Response]


class Mount:
    """The endpoints of one site.

    Args:
        settings: `mount` and `gpc_since` say which there are.

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
        self._routes: Mapping[str, Mapping[str, _Answer]] = {
            f"{settings.mount}/consent": {**_reads(self._tell_state), "POST": self._decide},
            f"{settings.mount}/banner.js": _script("banner.js", self._notices.render()),
            f"{settings.mount}/bridge.js": _script("bridge.js"),
            GPC_PATH: _reads(self._tell_support),
        }

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to serve."""
        return not self._under and self._gpc_path is None

    def owns(self, path: str) -> bool:
        """Whether a path inside the app is ours."""
        return path.startswith(self._under) or path == self._gpc_path

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
        return response._replace(body=bytes) if request.method == "HEAD" else response

    def _tell_state(self, request: Request, tracker: Tracker) -> Response:
        return self._show(200, request, tracker)

    def _decide(self, request: Request, tracker: Tracker) -> Response:
        posted = read_posted(request)
        if isinstance(posted, Refusal):
            if posted.status == 403:  # noqa: PLR2004  # Forbidden
                tracker.core.sink.count("cross_site")  # RULES section 2, rule 1
            return say(posted.status, {"error": posted.message})
        notice = self._notices.find(posted.language, posted.notice)
        if not posted.is_granted:
            tracker.consent.deny(notice=notice, source=posted.source)
        elif not tracker.consent.grant(
            override_gpc=posted.overrides_gpc, notice=notice, source=posted.source
        ):
            return self._show(409, request, tracker)
        if posted.return_to:
            location = (b"location", posted.return_to.encode("ascii"))
            return self._show(303, request, tracker, [location])
        return self._show(200, request, tracker)

    def _show(
        self, status: int, request: Request, tracker: Tracker, headers: Headers = ()
    ) -> Response:
        """Answer the state as it stands once the response has started."""
        consent = tracker.consent
        has_gpc = self._settings.honor_gpc and has_one(request.header(b"sec-gpc"))
        refused = {"needs_override": has_gpc} if status == 409 else {}  # noqa: PLR2004  # Conflict

        def tell() -> bytes:
            decision = consent.decision
            return render(
                {
                    "state": decision.state.value,
                    "reason": decision.reason.value,
                    "needs_prompt": decision.needs_prompt,
                    "gpc": has_gpc,
                    "version": self._settings.policy_version.name,
                    **refused,
                }
            )

        tell()  # a use before the start, so that the seam asks the app for its late answers
        return Response(status, [*PRIVATE, *headers], tell)

    def _tell_support(self, request: Request, tracker: Tracker) -> Response:
        del request, tracker
        since = date.fromisoformat(self._settings.gpc_since)
        return say(200, {"gpc": True, "lastUpdate": since.isoformat()})


def _reads(answer: _Answer) -> dict[str, _Answer]:
    return dict.fromkeys(_READ, answer)


def _script(name: str, notices: str = "") -> Mapping[str, _Answer]:
    script = Script(name, {'"@NOTICES@"': notices})
    return _reads(lambda request, _: script.answer(request.header))
