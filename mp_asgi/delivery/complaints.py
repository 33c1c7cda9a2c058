"""Say what goes wrong in delivery: each trouble once, until it has really ended. Decides nothing.

A host that flaps does not fill the log: a trouble ends with a minute in which nothing failed, and
each kind of failure is said at most every ten minutes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from mp_asgi.errors import OutboxUnavailable
from mp_asgi.events import Endpoint
from mp_asgi.settings import Settings

from .lanes import PROBE_SECONDS, Lane, remaining
from .log import logger
from .outbox.base import Leased, Outbox, Refusal
from .replies import printable, read_error
from .transport import Reply

MAX_BURIALS: Final = 100  # log lines about dead letters; what follows is only counted
MAX_SKEW_SECONDS: Final = 60.0  # between the clocks; `Date` has whole seconds, a reply takes some
QUIET_SECONDS: Final = 60.0  # without a failure end a trouble
REPEAT_SECONDS: Final = 600.0  # between two log lines of one kind


@dataclass(slots=True)
class _Trouble:
    """What goes wrong on one endpoint and has not ended.

    Attributes:
        failures: Requests that failed since it began.
        failed_at: When the last of them did, in seconds since the epoch.
        has_passed: Whether one succeeded since.
        said: Kinds of failure that were logged.
    """

    failures: int = 0
    failed_at: float = -math.inf
    has_passed: bool = False
    said: set[str] = field(default_factory=set)


class Complaints:
    """What was said of troubles that last. Names no property and no ID.

    Args:
        outbox: Tells who waits for an alias.
        settings: Hold the secrets that are masked.
    """

    def __init__(self, outbox: Outbox, settings: Settings) -> None:
        self._outbox = outbox
        self._settings = settings
        self._troubles: dict[Endpoint, _Trouble] = {}
        self._said_at: dict[tuple[Endpoint, str], float] = {}
        self._burials: set[tuple[str, str, str]] = set()
        self._is_skewed = False
        self._has_missed = False

    def fail(self, lane: Lane, kind: str, text: str, now: float) -> None:
        """Say why a request failed that is tried again."""
        if self._is_news(lane, kind, now):
            logger.warning(
                "Sending to %s failed and is tried again: %s.%s",
                lane.endpoint.value,
                text,
                self._tell_who_waits(lane),
            )

    def block(self, lane: Lane, reply: Reply, now: float) -> None:
        """Say that somebody must mend the settings."""
        if not self._is_news(lane, "blocked", now):
            return
        settings = self._settings
        error = read_error(reply.body, (settings.token, settings.service_account_secret))
        logger.error(
            "Mixpanel answers %s with status %d%s. Nothing is lost yet: it is tried again "
            "every %d seconds. Check MIXPANEL_TOKEN, MIXPANEL_REGION or MIXPANEL_API_HOST, "
            "and the service account if there is one.%s",
            lane.endpoint.value,
            reply.status,
            f" ({error})" if error else "",
            PROBE_SECONDS,
            self._tell_who_waits(lane),
        )

    def recover(self, lane: Lane, now: float) -> None:
        """Note that a request succeeded; say so if that ends a trouble."""
        lane.trouble = ""
        if trouble := self._troubles.get(lane.endpoint):
            trouble.has_passed = True
            self._end(lane.endpoint, trouble, now)

    def miss(self, count: int, sent: int) -> None:
        """Say once that Mixpanel took a batch and counted less than was sent."""
        if self._has_missed:
            return
        self._has_missed = True
        logger.warning(
            "Mixpanel took a batch of %d events, but counts %d of them less as imported. They are "
            "counted as delivered, and as `unimported`; more of the same are only counted.",
            sent,
            count,
        )

    def bury(self, leased: Leased, refusals: Sequence[Refusal]) -> None:
        """Say what became a dead letter, once of a kind."""
        messages, first = leased.entry.messages, refusals[0]
        burial = (leased.entry.endpoint.value, first.reason, messages[first.index].name)
        if burial in self._burials or len(self._burials) >= MAX_BURIALS:
            return
        self._burials.add(burial)
        path, reason, name = burial
        logger.warning(
            "Buried %d of %d messages on %s, the first %s: %s. The dead letters hold "
            "Mixpanel's reply; more of the same are only counted.",
            len(refusals),
            len(messages),
            path,
            printable(name),
            reason,
        )

    def compare_clocks(self, their_now: float, now: float) -> None:
        """Say that our clock is wrong; both times in seconds since the epoch."""
        skew = now - their_now
        if abs(skew) <= MAX_SKEW_SECONDS or self._is_skewed:
            return
        self._is_skewed = True
        logger.error(
            "The clock of this machine is %d seconds %s the time in Mixpanel's replies, so events "
            "bear a wrong time. What Mixpanel refuses because it is more than an hour ahead is "
            "kept until its time has come. Set the clock, for example by NTP.",
            abs(skew),
            "ahead of" if skew > 0 else "behind",
        )

    def _is_news(self, lane: Lane, kind: str, now: float) -> bool:
        """Note a failure. Return whether it is to be said."""
        lane.trouble = kind
        if trouble := self._troubles.get(lane.endpoint):
            self._end(lane.endpoint, trouble, now)
        trouble = self._troubles.setdefault(lane.endpoint, _Trouble())
        trouble.failures += 1
        trouble.failed_at, trouble.has_passed = now, False
        said_at = self._said_at.get((lane.endpoint, kind), -math.inf)
        if kind in trouble.said or remaining(REPEAT_SECONDS, said_at, now):
            return False
        trouble.said.add(kind)
        self._said_at[lane.endpoint, kind] = now
        return True

    def _end(self, endpoint: Endpoint, trouble: _Trouble, now: float) -> None:
        if not trouble.has_passed or remaining(QUIET_SECONDS, trouble.failed_at, now):
            return
        del self._troubles[endpoint]
        if trouble.said:
            logger.warning(
                "Mixpanel takes %s again, after %d failed requests.",
                endpoint.value,
                trouble.failures,
            )

    def _tell_who_waits(self, lane: Lane) -> str:
        if lane.endpoint is not Endpoint.ALIASES:
            return ""
        try:
            count = self._outbox.stats().behind_aliases
        except OutboxUnavailable:  # half a line less; what was decided must still be stored
            return ""
        return f" {count} messages of its users wait for it."
