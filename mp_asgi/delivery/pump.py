"""Decide what leaves when, and what a reply means for what waits. A machine: no clock, no socket.

The driver asks `next_step`, obeys it, and reports with `receive` or `fail`. One batch is in
flight at a time, so that profile updates keep their order. An alias leaves at once and alone; what
its user does later waits in the outbox until the alias is acknowledged or given up, and what many
aliases let go gathers again.

How a refusal without a culprit ends (an unreadable 400, `status: 0` from `/engage`): the batch
is sent again in halves until one message remains, which is buried. Whether Mixpanel kept the
valid rest of such a batch is not documented, so nothing that would count twice takes part: what is
not repeatable travels without what is, in small batches, and all of such a batch is buried.

What Mixpanel refuses because it lies in the future by its own clock is our clock's fault: it is
kept until it does not any more.
"""

import math
import random as random_module
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Final

from mp_asgi.errors import OutboxUnavailable, Unavailable
from mp_asgi.events import MAX_BATCH_BYTES, Endpoint, Entry, Message
from mp_asgi.settings import Settings

from .complaints import Complaints
from .counters import Counters
from .lanes import MAX_DELAY_SECONDS, PROBE_SECONDS, Circuit, Lane, remaining
from .outbox.base import AWAITS_ALIASES, MAX_UNREPEATABLE, Backlog, Leased, Outbox, Refusal
from .replies import Judgement, Verdict, judge, printable, read_date
from .settlements import Settlements
from .transport import Reply

MAX_WAIT_SECONDS: Final = 60.0  # how long a driver may sleep when nothing is known to come
LEASE_SECONDS: Final = 120.0  # longer than any send takes: the transport gives up after 60 s
MIN_POLL_SECONDS: Final = 1.0  # of an outbox that others fill, too
EXPIRE_SECONDS: Final = 3600.0  # between looks for what is too old to be kept
GATHER_SECONDS: Final = 1.0  # or each of many sign-ups would be a request of a few events
FUTURE: Final = "must not be in the future"  # Mixpanel's words, reference/mixpanel.md section 2.3


@dataclass(frozen=True)
class Batch:
    """What travels in one request.

    Attributes:
        endpoint: Where it goes.
        leased: What it has.
        leased_at: When that was leased, in seconds since the epoch.
    """

    endpoint: Endpoint
    leased: tuple[Leased, ...]
    leased_at: float = field(default=math.inf, compare=False)

    @cached_property
    def messages(self) -> tuple[Message, ...]:
        """The messages in the order of the body."""
        return tuple(message for leased in self.leased for message in leased.entry.messages)

    @property
    def is_repeatable(self) -> bool:
        """Whether nothing in it would count twice."""
        return all(leased.entry.is_repeatable for leased in self.leased)

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
        self._complaints = Complaints(outbox, settings)
        self._settlements = Settlements(outbox, counters, self._complaints)
        self._settings = settings
        self._counters = counters
        self._random = random
        # In turn: the lane that was served goes behind the others.
        self._lanes = deque(Lane(endpoint, settings.batch_size) for endpoint in Endpoint)
        self._host = Circuit()
        self._expired_at = -math.inf

    @property
    def is_blocked(self) -> bool:
        """Whether Mixpanel refuses the credentials or the host, as far as its last answers tell."""
        return any(lane.trouble == "blocked" for lane in tuple(self._lanes))

    def next_step(self, now: float, *, is_flushing: bool = False) -> Send | Wait:
        """Decide what to do at `now`; when flushing, batches do not wait to fill.

        Raises:
            OutboxUnavailable: The storage failed; ask again.
        """
        self._settlements.store(now)
        rest = MAX_WAIT_SECONDS
        if self._outbox.is_shared:  # what other processes put wakes nobody here
            rest = min(rest, max(self._settings.flush_interval, MIN_POLL_SECONDS))
        if remaining(EXPIRE_SECONDS, self._expired_at, now) == 0:
            self._counters.echo("dropped", self._outbox.expire(now), "too_old")
            self._expired_at = now
        for lane in tuple(self._lanes):
            backlog = self._outbox.backlog(lane.endpoint, now)
            seconds = self._seconds_until_due(lane, backlog, now, is_flushing=is_flushing)
            if seconds > 0:
                rest = min(rest, seconds)
            elif leased := self._lease(lane, now):
                self._lanes.remove(lane)
                self._lanes.append(lane)
                batch = Batch(lane.endpoint, tuple(leased), now)
                if len(batch.messages) >= backlog.messages:
                    lane.emptied_at = now
                return Send(batch)
        return Wait(rest)

    def receive(self, batch: Batch, reply: Reply, now: float) -> None:
        """Settle a batch that was answered.

        Raises:
            OutboxUnavailable: The storage failed; the next step begins with what it missed.
        """
        self._host.close()
        self._complaints.compare_clocks(read_date(reply, now), now)
        secrets = (self._settings.token, self._settings.service_account_secret)
        judgement = judge(batch.endpoint, reply, batch.messages, now, secrets=secrets)
        if judgement.unimported:
            self._counters.count("unimported", judgement.unimported)
            self._complaints.miss(judgement.unimported, len(batch.messages))
        self._obey(batch, reply, judgement, now)
        self._settlements.store(now)

    def _obey(self, batch: Batch, reply: Reply, judgement: Judgement, now: float) -> None:
        lane = self._lane_of(batch.endpoint)
        match judgement.verdict:
            case Verdict.DELIVERED | Verdict.PARTLY:
                self._settle(lane, batch, reply, judgement.failed, now)
            case Verdict.REFUSED | Verdict.TOO_LARGE:
                self._narrow(lane, batch, judgement, now)
            case Verdict.BLOCKED:
                self._keep(lane, batch, reply, now)
            case Verdict.RETRY:
                self._complaints.fail(lane, "retry", f"status {reply.status}", now)
                self._retry(lane, batch, judgement.text, now, least=judgement.retry_after)
            case Verdict.LOST:
                self._complaints.fail(lane, "retry", f"status {reply.status}", now)
                least = judgement.retry_after
                self._retry_repeatable(lane, batch, judgement.text, now, least=least)
            case _:  # UNCLEAR
                text = f"status {reply.status} with a body that is not Mixpanel's"
                self._complaints.fail(lane, "unclear", text, now)
                self._retry_repeatable(lane, batch, judgement.text, now)

    def fail(self, batch: Batch, error: Unavailable, now: float) -> None:
        """Settle a batch that got no answer.

        Raises:
            OutboxUnavailable: The storage failed; the next step begins with what it missed.
        """
        lane = self._lane_of(batch.endpoint)
        text = printable(str(error))
        self._complaints.fail(lane, "unavailable", text, now)
        self._host.back_off(now, self._random())
        if error.is_sent:
            self._retry_repeatable(lane, batch, text, now)
        else:
            self._retry(lane, batch, text, now)
        self._settlements.store(now)

    def postpone(self, batch: Batch, now: float) -> None:
        """Give a batch back of which nobody can say now whether it may leave."""
        self._lane_of(batch.endpoint).circuit.back_off(now, self._random())
        self._give_back(batch.leased, now)
        self._settlements.store(now)

    def let_go_stale(self, batch: Batch, now: float) -> bool:
        """Give back a batch whose lease may end before its answer. Return whether it was one.

        Whoever was frozen for that long knows nothing of a stop that came meanwhile.

        Raises:
            OutboxUnavailable: The storage failed; nothing of the batch leaves now.
        """
        held_seconds = now - batch.leased_at
        if held_seconds <= LEASE_SECONDS / 2:
            return False
        if held_seconds < LEASE_SECONDS:  # after that it is another's
            self.postpone(batch, now)
        return True

    def leave_out_denied(self, batch: Batch, allowed: Sequence[bool], now: float) -> Batch | None:
        """Drop the entries that may not leave. Answer the rest, None if there is none.

        Raises:
            OutboxUnavailable: The storage failed; nothing of the batch leaves now.
        """
        pairs = list(zip(batch.leased, allowed, strict=True))
        denied = [leased for leased, is_allowed in pairs if not is_allowed]
        if not denied:
            return batch
        kept = tuple(leased for leased, is_allowed in pairs if is_allowed)
        self._settlements.drop(denied, "withdrawn")
        try:
            self._settlements.store(now)
        except OutboxUnavailable:
            self._give_back(kept, now)
            raise
        return replace(batch, leased=kept) if kept else None

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
            if not leased:
                return leased
            # Whoever held it ended without a word. First of all: a release forgets that.
            lost = [item for item in leased if item.is_overdue and _would_count_twice(item.entry)]
            if lost:
                text = "its sender ended before the answer"
                self._settlements.bury_whole(lost, "answer_lost", text, now)
                self._settlements.release([item for item in leased if item not in lost], now)
            elif self._must_split(lane, leased[0]):
                self._settlements.split(leased[0], now)
                self._settlements.release(leased[1:], now)
            else:
                return leased
            self._settlements.store(now)

    def _must_split(self, lane: Lane, leased: Leased) -> bool:
        entry = leased.entry
        most = lane.most_messages
        if not entry.is_repeatable:  # it cannot be halved once it was sent
            most = min(lane.max_messages, MAX_UNREPEATABLE)
        return len(entry.messages) > 1 and (
            len(entry.messages) > most or entry.size_bytes > MAX_BATCH_BYTES
        )

    def _settle(
        self, lane: Lane, batch: Batch, reply: Reply, failed: Mapping[int, str], now: float
    ) -> None:
        """Bury what `failed` names by its index in the batch; the rest is delivered."""
        self._complaints.recover(lane, now)
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
            if not refusals:
                delivered.append(leased)
            elif self._is_early(leased, refusals, read_date(reply, now)):
                self._give_back((leased,), now, hold_seconds=PROBE_SECONDS)
            else:
                self._settlements.bury(leased, refusals, now)
        self._settlements.ack(delivered)

    def _is_early(self, leased: Leased, refusals: Sequence[Refusal], their_now: float) -> bool:
        """Whether Mixpanel will take it later, all of it: our clock was ahead, as `Date` tells."""
        return (
            len(refusals) == len(leased.entry.messages)
            and all(FUTURE in refusal.reply for refusal in refusals)
            and 0 < leased.entry.tracked_at - their_now <= self._settings.retry_budget
        )

    def _narrow(self, lane: Lane, batch: Batch, judgement: Judgement, now: float) -> None:
        """Halve what goes next, down to the one message that is buried."""
        is_too_large = judgement.verdict is Verdict.TOO_LARGE
        count = len(batch.messages)
        if count == 1:
            reason = "too_large" if is_too_large else "rejected"
            self._settlements.bury_whole(batch.leased, reason, judgement.text, now)
            lane.lone_refusals += 1
            # Two culprits without a success between: perhaps it is not the messages' fault.
            if lane.lone_refusals > 1:
                lane.circuit.back_off(now, self._random())
            return
        if not is_too_large and not batch.is_repeatable:
            self._settlements.bury_whole(batch.leased, "answer_lost", judgement.text, now)
            lane.max_messages = 1  # the next culprit takes nobody along
            return
        if is_too_large:
            lane.max_bytes = max(1, batch.size_bytes // 2)
        else:
            lane.max_messages = max(1, count // 2)
        self._counters.count("retried", count)
        if len(batch.leased) == 1:
            self._settlements.split(batch.leased[0], now)
        else:
            self._settlements.release(batch.leased, now)

    def _keep(self, lane: Lane, batch: Batch, reply: Reply, now: float) -> None:
        """Keep everything, whatever its age, until somebody mends the settings."""
        self._complaints.block(lane, reply, now)
        lane.circuit.open(now, PROBE_SECONDS)
        self._give_back(batch.leased, now)

    def _retry_repeatable(
        self, lane: Lane, batch: Batch, text: str, now: float, *, least: float = 0.0
    ) -> None:
        """Retry after a lost answer what Mixpanel would not count twice; bury the rest."""
        lost = [leased for leased in batch.leased if not leased.entry.is_repeatable]
        self._settlements.bury_whole(lost, "answer_lost", text, now)
        if lost:
            lane.max_messages = 1  # the next answer that gets lost takes one along, not fifty
        self._retry(lane, batch, text, now, least=least, without=lost)

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
        expired = [leased for leased in rest if self._has_used_up(leased, now)]
        kept = [leased for leased in rest if not self._has_used_up(leased, now)]
        self._settlements.bury_whole(expired, "expired", text, now)
        self._give_back(kept, now)

    def _has_used_up(self, leased: Leased, now: float) -> bool:
        """Whether an entry is older than the retry budget and was tried for as long.

        Its age alone does not tell: the host may have been off, or others were tried before it.
        So there must have been as many tries as the budget has longest pauses.
        """
        budget = self._settings.retry_budget
        return leased.put_at < now - budget and leased.attempts >= budget / MAX_DELAY_SECONDS

    def _give_back(
        self, leased: Sequence[Leased], now: float, *, hold_seconds: float = 0.0
    ) -> None:
        # Ready at once as a rule: only the circuit waits, so a clock set back strands nothing.
        self._counters.count("retried", sum(len(item.entry.messages) for item in leased))
        self._settlements.release(leased, now, hold_seconds=hold_seconds)

    def _lane_of(self, endpoint: Endpoint) -> Lane:
        return next(lane for lane in self._lanes if lane.endpoint is endpoint)


def _would_count_twice(entry: Entry) -> bool:
    """Whether an entry that may have been sent must not be sent again. A larger one never left."""
    return not entry.is_repeatable and len(entry.messages) <= MAX_UNREPEATABLE
