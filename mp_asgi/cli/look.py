"""Take one look at an outbox: what it holds, what was counted, and what in it needs a person."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from mp_asgi.delivery.counters import Stats
from mp_asgi.delivery.outbox.base import Outbox, OutboxStats
from mp_asgi.health import NEARLY_FULL, OLD_SECONDS
from mp_asgi.settings import Settings

from .leftovers import Leftovers, find_leftovers
from .letters import Letters
from .outbox import count_messages, render_bytes, render_seconds, render_waiting
from .people import count

RECENT_SECONDS: Final = 86_400.0  # what died before, somebody has seen or does not mind


@dataclass(frozen=True, slots=True)
class Look:
    """An outbox at one moment.

    Attributes:
        at: Seconds since the epoch.
        stats: How full it is.
        leftovers: What waits on this host outside of it.
        waiting_seconds: How long the longest has waited; 0 if nothing waits.
        dead: Dead letters by reason.
        recently_dead: How many of them died within `RECENT_SECONDS`.
        fullness: The larger share of its two bounds that is taken, 1.0 if it is full.
    """

    at: float
    stats: OutboxStats
    leftovers: Leftovers
    waiting_seconds: float
    dead: Mapping[str, int]
    recently_dead: int
    fullness: float

    @property
    def waiting(self) -> int:
        """How many messages wait, those of this host's spool included."""
        return self.stats.depth + self.leftovers.spool.depth

    @property
    def counts(self) -> Stats:
        """What was counted since the outbox was made."""
        return Stats.of(self.stats.totals, waiting=self.stats.depth)

    @property
    def replayed(self) -> int:
        """How many dead letters were put back."""
        return self.stats.totals.get(("replayed", ""), 0)

    @property
    def is_balanced(self) -> bool:
        """Whether every message is accounted for."""
        counts = self.counts
        settled = counts.delivered + counts.buried + sum(counts.dropped.values())
        return counts.accepted == settled + counts.waiting

    def worries(self) -> list[str]:
        """Answer what needs a person, the worst first; nothing if all is well."""
        left, worries = self.leftovers, []
        if self.waiting_seconds > OLD_SECONDS:
            worries.append(
                f"{render_waiting(self.waiting)}, the longest for "
                f"{render_seconds(self.waiting_seconds)}. Does a process run that sends, and what "
                f"does its log say?"
            )
        if left.journals:
            worries.append(
                f"{count(left.journals, 'journal')} ({render_bytes(left.journal_bytes)}) of ended "
                "processes may hold events that the outbox lacks. Start the app, or run `mp-asgi "
                "drain`."
            )
        worries += [stray.render() for stray in left.strays]
        if self.fullness > NEARLY_FULL:
            worries.append(
                f"The outbox is {self.fullness:.0%} full; behind 100% the newest are dropped."
            )
        if self.recently_dead:
            worries.append(
                f"{count_messages(self.recently_dead)} died within a day: `mp-asgi dead list`."
            )
        return worries

    def to_json(self) -> dict[str, Any]:
        """Answer everything, for a program."""
        stats, counts = self.stats, self.counts
        return {
            "at": self.at,
            "worries": self.worries(),
            "waiting": stats.depth,
            "waiting_bytes": stats.size_bytes,
            "waiting_seconds": round(self.waiting_seconds, 3),
            "spooled": self.leftovers.spool.depth,
            "spooled_bytes": self.leftovers.spool.size_bytes,
            "journals": self.leftovers.journals,
            "journal_bytes": self.leftovers.journal_bytes,
            "leased": stats.leased,
            "behind_aliases": stats.behind_aliases,
            "fullness": round(self.fullness, 4),
            "dead": dict(self.dead),
            "dead_bytes": stats.dead_bytes,
            "recently_dead": self.recently_dead,
            "accepted": counts.accepted,
            "replayed": self.replayed,
            "delivered": counts.delivered,
            "buried": counts.buried + self.replayed,
            "dropped": dict(counts.dropped),
            "retried": counts.retried,
            "is_balanced": self.is_balanced,
        }


def look_at(outbox: Outbox, letters: Letters, settings: Settings, now: float) -> Look:
    """Take a look.

    Args:
        outbox: At this.
        letters: Of the same.
        settings: With its bounds.
        now: Seconds since the epoch.

    Raises:
        OutboxUnavailable: It does not answer.
    """
    letters.read()
    stats = outbox.stats()
    left = find_leftovers(settings)
    found = letters.of(stats.dead)
    put_at = [at for at in (stats.oldest_put_at, left.spool.oldest_put_at) if at is not None]
    return Look(
        now,
        stats,
        left,
        max(0.0, now - min(put_at, default=now)),
        Counter(reason for reason, _ in found),
        sum(now - at <= RECENT_SECONDS for _, at in found),
        max(
            stats.depth / settings.outbox_max_messages,
            stats.size_bytes / settings.outbox_max_bytes,
        ),
    )
