"""Decide what leaves when, and what a reply means for what waits. A machine: no clock, no socket.

The driver asks `next_step`, obeys it, and reports with `receive` or `fail`. One batch is in
flight at a time, so that profile updates keep their order. An alias leaves at once and alone; what
its user does later waits in the outbox until the alias is acknowledged or given up, and what many
aliases let go gathers again.

How a refusal without a culprit ends (an unreadable 400, `status: 0` from `/engage`): the batch
is sent again in halves until one message remains, which is buried. Whether Mixpanel kept the
valid rest of such a batch is not documented, so nothing that would count twice takes part: a
message that is not repeatable always travels alone.
"""

import logging
import random as random_module
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from mp_asgi.errors import Unavailable
from mp_asgi.events import MAX_BATCH_BYTES, Endpoint, Message
from mp_asgi.settings import Settings

from .counters import Counters
from .lanes import Circuit, Lane, remaining
from .outbox.base import AWAITS_ALIASES, Backlog, Leased, Outbox, Refusal
from .replies import Judgement, Verdict, judge, printable, read_error
from .transport import Reply

MAX_WAIT_SECONDS: Final = 60.0  # how long a driver may sleep when nothing is known to come
LEASE_SECONDS: Final = 120.0  # longer than any send takes: 5 s to connect, 30 s to read
PROBE_SECONDS: Final = 60.0  # between tries while credentials or host are wrong
GATHER_SECONDS: Final = 1.0  # or each of many sign-ups would be a request of a few events
MAX_COMPLAINTS: Final = 100  # log lines about dead letters; what follows is only counted

logger = logging.getLogger("mp_asgi.delivery")


@dataclass(frozen=True)
class Batch:
    """What travels in one request."""

    endpoint: Endpoint
    leased: tuple[Leased, ...]

    @cached_property
    def messages(self) -> tuple[Message, ...]:
        """The messages in the order of the body."""
        return tuple(message for leased in self.leased for message in leased.entry.messages)

    @property
    def size_bytes(self) -> int:
        """Bytes of the messages, separators included."""
        return sum(leased.entry.size_bytes for leased in self.leased)

    def body(self) -> bytes:
        """Render the JSON array that Mixpanel reads."""
        return b"[" + b",".join(message.body for message in self.messages) + b"]"


@dataclass(frozen=True, slots=True)
class Send:
    """Send this batch, then report."""

    batch: Batch


@dataclass(frozen=True, slots=True)
class Wait:
    """Ask again after this many seconds, or when something was put."""

    seconds: float


class Pump:
    """The rules of delivery (DESIGN section 5, reference/mixpanel.md section 7).

    Args:
        outbox: Where entries wait.
        settings: Batch size, flush interval and retry budget.
        counters: Where every outcome is counted.
        random: Answers a number in [0, 1) for jitter.
    """

    def __init__(
        self,
        outbox: Outbox,
        settings: Settings,
        counters: Counters,
        random: Callable[[], float] = random_module.random,
    ) -> None:
        self._outbox = outbox
        self._settings = settings
        self._counters = counters
        self._random = random
        # In turn: the lane that was served goes behind the others.
        self._lanes = deque(Lane(endpoint, settings.batch_size) for endpoint in Endpoint)
        self._host = Circuit()
        self._complaints: set[tuple[Endpoint, str, str]] = set()

    def next_step(self, now: float, *, is_flushing: bool = False) -> Send | Wait:
        """Decide what to do at `now`; when flushing, batches do not wait to fill."""
        rest = MAX_WAIT_SECONDS
        for lane in tuple(self._lanes):
            backlog = self._outbox.backlog(lane.endpoint, now)
            seconds = self._seconds_until_due(lane, backlog, now, is_flushing=is_flushing)
            if seconds > 0:
                rest = min(rest, seconds)
            elif leased := self._lease(lane, now):
                self._lanes.remove(lane)
                self._lanes.append(lane)
                batch = Batch(lane.endpoint, tuple(leased))
                if len(batch.messages) >= backlog.messages:
                    lane.emptied_at = now
                return Send(batch)
        return Wait(rest)

    def receive(self, batch: Batch, reply: Reply, now: float) -> None:
        """Settle a batch that was answered."""
        self._host.close()
        lane = self._lane_of(batch.endpoint)
        judgement = judge(batch.endpoint, reply, batch.messages, now)
        match judgement.verdict:
            case Verdict.DELIVERED | Verdict.PARTLY:
                self._settle(lane, batch, judgement.failed, now)
            case Verdict.REFUSED | Verdict.TOO_LARGE:
                self._narrow(lane, batch, judgement, now)
            case Verdict.BLOCKED:
                self._keep(lane, batch, reply, now)
            case Verdict.RETRY:
                self._complain(lane, "retry", f"status {reply.status}")
                self._retry(lane, batch, judgement.text, now, least=judgement.retry_after)
            case _:  # UNCLEAR
                self._complain(
                    lane, "unclear", f"status {reply.status} with a body that is not Mixpanel's"
                )
                self._retry_repeatable(lane, batch, judgement.text, now)

    def fail(self, batch: Batch, error: Unavailable, now: float) -> None:
        """Settle a batch that got no answer."""
        lane = self._lane_of(batch.endpoint)
        text = printable(str(error))
        self._complain(lane, "unavailable", text)
        self._host.back_off(now, self._random())
        if error.is_sent:
            self._retry_repeatable(lane, batch, text, now)
        else:
            self._retry(lane, batch, text, now)

    def postpone(self, batch: Batch, now: float) -> None:
        """Give a batch back of which nobody can say now whether it may leave."""
        self._lane_of(batch.endpoint).circuit.back_off(now, self._random())
        self._counters.count("retried", len(batch.messages))
        self._release(batch.leased, now)

    def leave_out_denied(self, batch: Batch, allowed: Sequence[bool]) -> Batch | None:
        """Drop the entries that may not leave. Answer the rest, None if there is none."""
        pairs = list(zip(batch.leased, allowed, strict=True))
        denied = [leased.id for leased, is_allowed in pairs if not is_allowed]
        if not denied:
            return batch
        self._counters.count("dropped", self._outbox.ack(denied), "withdrawn")
        kept = tuple(leased for leased, is_allowed in pairs if is_allowed)
        return Batch(batch.endpoint, kept) if kept else None

    def _seconds_until_due(
        self, lane: Lane, backlog: Backlog, now: float, *, is_flushing: bool
    ) -> float:
        if not backlog.messages:
            return MAX_WAIT_SECONDS
        if pause := max(self._host.remaining(now), lane.circuit.remaining(now)):
            return pause
        if backlog.messages >= lane.max_messages or backlog.size_bytes >= lane.max_bytes:
            return 0.0
        gathering = remaining(GATHER_SECONDS, lane.emptied_at, now)
        if gathering and self._has_alias_to_send(lane, now):
            return gathering
        if is_flushing:
            return 0.0
        return remaining(self._settings.flush_interval, backlog.waiting_since, now)

    def _has_alias_to_send(self, lane: Lane, now: float) -> bool:
        """Whether an alias can leave now that may let somebody go on this lane."""
        aliases = self._lane_of(Endpoint.ALIASES)
        return (
            lane.endpoint in AWAITS_ALIASES
            and not aliases.circuit.remaining(now)
            and self._outbox.backlog(Endpoint.ALIASES, now).messages > 0
        )

    def _lease(self, lane: Lane, now: float) -> list[Leased]:
        while True:
            leased = self._outbox.lease(
                lane.endpoint,
                now,
                max_messages=lane.max_messages,
                max_bytes=lane.max_bytes,
                seconds=LEASE_SECONDS,
            )
            if not leased or not self._must_split(lane, leased[0]):
                return leased
            self._outbox.split(leased[0].id)

    def _must_split(self, lane: Lane, leased: Leased) -> bool:
        entry = leased.entry
        return len(entry.messages) > 1 and (
            not entry.is_repeatable
            or len(entry.messages) > lane.most_messages
            or entry.size_bytes > MAX_BATCH_BYTES
        )

    def _settle(self, lane: Lane, batch: Batch, failed: Mapping[int, str], now: float) -> None:
        """Bury what `failed` names by its index in the batch; the rest is delivered."""
        if lane.trouble:
            logger.warning(
                "Mixpanel takes %s again, after %d failed requests.",
                lane.endpoint.value,
                lane.circuit.failures,
            )
            lane.trouble = ""
        lane.recover()
        delivered = []
        start = 0
        for leased in batch.leased:
            count = len(leased.entry.messages)
            refusals = [
                Refusal(index, "rejected", failed[start + index])
                for index in range(count)
                if start + index in failed
            ]
            start += count
            if refusals:
                self._bury(leased, refusals, now)
            else:
                delivered.append(leased.id)
        self._counters.count("delivered", self._outbox.ack(delivered))

    def _narrow(self, lane: Lane, batch: Batch, judgement: Judgement, now: float) -> None:
        """Halve what goes next, down to the one message that is buried."""
        is_too_large = judgement.verdict is Verdict.TOO_LARGE
        count = len(batch.messages)
        if count == 1:
            reason = "too_large" if is_too_large else "rejected"
            self._bury_whole(batch.leased, reason, judgement.text, now)
            lane.lone_refusals += 1
            # Two culprits without a success between: perhaps it is not the messages' fault.
            if lane.lone_refusals > 1:
                lane.circuit.back_off(now, self._random())
            return
        if is_too_large:
            lane.max_bytes = max(1, batch.size_bytes // 2)
        else:
            lane.max_messages = max(1, count // 2)
        self._counters.count("retried", count)
        if len(batch.leased) == 1:
            self._outbox.split(batch.leased[0].id)
        else:
            self._release(batch.leased, now)

    def _keep(self, lane: Lane, batch: Batch, reply: Reply, now: float) -> None:
        """Keep everything, whatever its age, until somebody mends the settings."""
        if lane.trouble != "blocked":
            lane.trouble = "blocked"
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
        lane.circuit.open(now, PROBE_SECONDS)
        self._counters.count("retried", len(batch.messages))
        self._release(batch.leased, now)

    def _retry_repeatable(self, lane: Lane, batch: Batch, text: str, now: float) -> None:
        """Retry after a lost answer what Mixpanel would not count twice; bury the rest."""
        lost = [leased for leased in batch.leased if not leased.entry.is_repeatable]
        self._bury_whole(lost, "answer_lost", text, now)
        self._retry(lane, batch, text, now, without=lost)

    def _retry(
        self,
        lane: Lane,
        batch: Batch,
        text: str,
        now: float,
        *,
        least: float = 0.0,
        without: Collection[Leased] = (),
    ) -> None:
        lane.circuit.back_off(now, self._random(), least=least)
        rest = [leased for leased in batch.leased if leased not in without]
        oldest_tried = now - self._settings.retry_budget
        expired = [leased for leased in rest if leased.put_at < oldest_tried]
        kept = [leased for leased in rest if leased.put_at >= oldest_tried]
        self._bury_whole(expired, "expired", text, now)
        self._counters.count("retried", sum(len(leased.entry.messages) for leased in kept))
        self._release(kept, now)

    def _release(self, leased: Sequence[Leased], now: float) -> None:
        # Ready at once: only the circuit waits, so a clock set back strands nothing.
        self._outbox.release([item.id for item in leased], now)

    def _bury_whole(self, leased: Sequence[Leased], reason: str, text: str, now: float) -> None:
        for item in leased:
            indexes = range(len(item.entry.messages))
            self._bury(item, [Refusal(index, reason, text) for index in indexes], now)

    def _bury(self, leased: Leased, refusals: Sequence[Refusal], now: float) -> None:
        messages = leased.entry.messages
        if not self._outbox.bury(leased.id, refusals, now):
            return  # forgotten meanwhile, and counted there
        reason = refusals[0].reason
        self._counters.count("buried", len(refusals), reason)
        self._counters.count("delivered", len(messages) - len(refusals))
        name = messages[refusals[0].index].name
        complaint = (leased.entry.endpoint, reason, name)
        if complaint not in self._complaints and len(self._complaints) < MAX_COMPLAINTS:
            self._complaints.add(complaint)
            logger.warning(
                "Buried %d of %d messages on %s, the first %s: %s. The dead letters hold "
                "Mixpanel's reply; more of the same are only counted.",
                len(refusals),
                len(messages),
                leased.entry.endpoint.value,
                printable(name),
                reason,
            )

    def _complain(self, lane: Lane, trouble: str, text: str) -> None:
        if lane.trouble != trouble:
            lane.trouble = trouble
            logger.warning(
                "Sending to %s failed and is tried again: %s.%s",
                lane.endpoint.value,
                text,
                self._tell_who_waits(lane),
            )

    def _tell_who_waits(self, lane: Lane) -> str:
        if lane.endpoint is not Endpoint.ALIASES:
            return ""
        return f" {self._outbox.stats().behind_aliases} messages of its users wait for it."

    def _lane_of(self, endpoint: Endpoint) -> Lane:
        return next(lane for lane in self._lanes if lane.endpoint is endpoint)
