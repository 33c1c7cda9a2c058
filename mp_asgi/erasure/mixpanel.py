"""Ask Mixpanel's GDPR API v3 for deletions and retrievals, at its pace, again where it helps.

Paths, limits and answers: reference/mixpanel.md section 5.1.
"""

import json
import re
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlencode, urlsplit

from mp_asgi._version import __version__
from mp_asgi.delivery.replies import read_error
from mp_asgi.delivery.transport import MAX_REPLY_BYTES, Reply
from mp_asgi.errors import MixpanelASGIError, SettingsError, Unavailable
from mp_asgi.settings import Settings
from mp_asgi.settings.fields import HOSTS

from .jobs import Compliance, JobKind, JobStatus, read_status, read_task_id
from .pace import MAX_TRIES, Pace

if TYPE_CHECKING:
    from urllib3.connection import HTTPConnection

MAX_IDS: Final = 1_999  # IDs a request (reference/gdpr-api); another page of the docs says 2000
CONNECT_SECONDS: Final = 5.0
READ_SECONDS: Final = 30.0
_READ_BYTES: Final = 8_192

# By ingestion host: docs privacy/eu-residency and privacy/in-residency.
_APPLICATIONS: Final = {
    HOSTS["us"]: "https://mixpanel.com",
    HOSTS["eu"]: "https://eu.mixpanel.com",
    HOSTS["in"]: "https://in.mixpanel.com",
}
_TOO_MANY: Final = 429
_ACCESS_DENIED: Final = frozenset({401, 403})
_STARTED: Final = 405


class PrivacyRefused(MixpanelASGIError):
    """Mixpanel's GDPR API answers, and says no.

    Attributes:
        status: HTTP status.
        is_access: Whether the OAuth token is at fault, so that nothing else will pass either.
    """

    def __init__(self, message: str, status: int) -> None:
        self.status = status
        self.is_access = status in _ACCESS_DENIED
        super().__init__(message)


class PrivacyAPI:
    """The GDPR API of one project. Used by one thread at a time.

    Args:
        settings: Says the host, the project token and the OAuth token.
        pace: When requests may start.

    Raises:
        SettingsError: The OAuth token cannot stand in a header.
    """

    def __init__(self, settings: Settings, pace: Pace) -> None:
        # Refused later, it would stand in the error's own text.
        if not re.fullmatch(r"[!-~]*", settings.oauth_token):
            raise SettingsError(
                ["MIXPANEL_OAUTH_TOKEN holds what no token has, such as a blank. Copy it again."]
            )
        self._settings = settings
        self._pace = pace
        self._url = find_application_url(settings)

    def create(
        self, kind: JobKind, distinct_ids: Sequence[str], compliance: Compliance = Compliance.GDPR
    ) -> str:
        """Ask for a job about these people. Return Mixpanel's task ID.

        It is asked again if an answer is lost; a job that is there twice does no harm.

        Args:
            kind: Deletion or retrieval.
            distinct_ids: At most `MAX_IDS`, all of users or all of devices.
            compliance: The law to cite.

        Raises:
            PrivacyRefused: Mixpanel says no.
            Unavailable: It gave no useful answer, several times.
        """
        body = {"distinct_ids": list(distinct_ids), "compliance_type": compliance.value}
        reply = self._ask("POST", self._target(kind), json.dumps(body).encode("ascii"))
        if not (task_id := read_task_id(reply.body)):
            raise PrivacyRefused(
                f"{self._url} took the request but names no task. Look for it in Mixpanel: "
                "Settings → Data & Privacy.",
                reply.status,
            )
        return task_id

    def status(self, kind: JobKind, task_id: str) -> JobStatus:
        """Ask how far a job is.

        Raises:
            PrivacyRefused: Mixpanel says no.
            Unavailable: It gave no useful answer, several times.
        """
        return read_status(self._ask("GET", self._target(kind, task_id)).body)

    def cancel(self, task_id: str) -> None:
        """Stop a deletion that has not started.

        Raises:
            PrivacyRefused: It has started, or Mixpanel says no.
            Unavailable: It gave no useful answer, several times.
        """
        try:
            self._ask("DELETE", self._target(JobKind.DELETION, task_id))
        except PrivacyRefused as error:
            if error.status != _STARTED:
                raise
            message = f"Task {task_id} has started; Mixpanel cannot cancel it any more."
            raise PrivacyRefused(message, error.status) from error

    def now(self) -> float:
        """Answer the time in seconds that never run backwards."""
        return self._pace.now()

    def pause(self, seconds: float) -> None:
        """Wait before the jobs are asked about again."""
        self._pace.pause(seconds)

    def _ask(self, method: str, target: str, body: bytes = b"") -> Reply:
        """Answer a success, asking again while there is no answer worth having."""
        failures = 0
        while True:
            try:
                return self._check(self._send(method, target, body))
            except Unavailable:
                failures += 1
                if failures == MAX_TRIES:
                    raise
            self._pace.back_off(failures)

    def _send(self, method: str, target: str, body: bytes) -> Reply:
        self._pace.wait()
        try:
            reply = self._exchange(method, target, body)
        finally:
            self._pace.note_end()
        if reply.status == _TOO_MANY or reply.status >= 500:  # noqa: PLR2004  # server errors
            problem = f"{self._url} answers with status {reply.status}, {MAX_TRIES} times in a row."
            raise Unavailable(f"{problem} Run this again later.", is_sent=True)
        return reply

    def _check(self, reply: Reply) -> Reply:
        if 200 <= reply.status < 300:  # noqa: PLR2004  # the class of successes
            return reply
        settings = self._settings
        said = read_error(reply.body, (settings.oauth_token, settings.token))
        message = f"{self._url} answers with status {reply.status}{f' ({said})' if said else ''}."
        if reply.status in _ACCESS_DENIED:
            message += (
                " Check MIXPANEL_OAUTH_TOKEN: the token of a project owner or admin (Mixpanel: "
                "Settings → Data & Privacy), which expires after a year. Check MIXPANEL_TOKEN "
                "and MIXPANEL_REGION, too."
            )
        raise PrivacyRefused(message, reply.status)

    def _target(self, kind: JobKind, task_id: str = "") -> str:
        query = urlencode({"token": self._settings.token})
        return f"/api/app/{kind.value}/v3.0/{quote(task_id, safe='')}?{query}"

    def _exchange(self, method: str, target: str, body: bytes) -> Reply:
        # No pool: it would log the target, which names the project token.
        from http.client import HTTPException  # noqa: PLC0415  # loads with the first request

        from urllib3.exceptions import HTTPError  # noqa: PLC0415

        connection = self._new_connection()
        try:
            connection.connect()
            connection.timeout = READ_SECONDS
            connection.request(
                method, target, body=body or None, headers=self._headers(), preload_content=False
            )
            response = connection.getresponse()
            read = bytearray()
            while len(read) < MAX_REPLY_BYTES and (part := response.read(_READ_BYTES)):
                read += part
            return Reply(response.status, bytes(read))
        except (HTTPError, HTTPException, OSError) as error:
            # The error's own text may quote an address; its type says enough.
            problem = f"{self._url} gave no reply ({type(error).__name__}). Run this again later."
            raise Unavailable(problem, is_sent=True) from error
        finally:
            connection.close()

    def _headers(self) -> dict[str, str]:
        return {
            "Authorization": f"Bearer {self._settings.oauth_token}",
            "Content-Type": "application/json",
            "User-Agent": f"mp-asgi/{__version__}",
        }

    def _new_connection(self) -> "HTTPConnection":
        from urllib3.connection import HTTPConnection, HTTPSConnection  # noqa: PLC0415

        url = urlsplit(self._url)
        host = url.hostname or ""
        if url.scheme == "http":
            return HTTPConnection(host, url.port, timeout=CONNECT_SECONDS)
        return HTTPSConnection(host, url.port, timeout=CONNECT_SECONDS, cert_reqs="CERT_REQUIRED")


def open_api(
    settings: Settings,
    monotonic: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> PrivacyAPI | None:
    """Answer the API of the project, in its pace; None without an OAuth token.

    Raises:
        SettingsError: The OAuth token cannot stand in a header.
    """
    return PrivacyAPI(settings, Pace(monotonic, sleep)) if settings.oauth_token else None


def find_application_url(settings: Settings) -> str:
    """Answer scheme and authority of Mixpanel's application API, without a trailing slash.

    Plain http is only allowed on this machine, so it is a stand-in, which has both APIs. One of
    Mixpanel's own ingestion hosts tells the region; any other host is somebody's proxy for
    events, and then the setting `region` tells it.
    """
    url = settings.api_url.lower()
    if url.startswith("http://"):
        return url
    return _APPLICATIONS.get(url, _APPLICATIONS[HOSTS[settings.region]])
