"""Name the metrics, and render them for Prometheus (text format 0.0.4).

Counters are the outbox's totals: they only grow, and in each answer `accepted + replayed` is
`delivered + waiting + buried + dropped`, because an outbox counts together with the change.
`docs/operations.md` says how to add up several processes.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from .delivery.outbox.base import Counts, OutboxStats

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

COUNTERS: Final[Mapping[str, str]] = {
    "accepted": "Messages (events and profile updates) handed over for delivery.",
    "delivered": "Messages that Mixpanel confirmed.",
    "buried": "Messages that became dead letters, by reason.",
    "replayed": "Dead letters that were put back to be sent again.",
    "dropped": "Accepted messages that were given up, by reason.",
    "refused": "Messages that were never accepted, by reason.",
    "retried": "How often a message was put back to be sent again.",
    "unimported": "Delivered messages that Mixpanel did not count as imported.",
    "unpersisted": "IDs and choices that no cookie of a response could keep.",
    "cross_site": "What another site's page attempted.",
    "cookie_invalid": "Cookies of ours that did not verify.",
    "identify_from_failed": "Calls of identify_from that answered no user ID.",
    "consent_from_failed": "Calls of consent_from that answered no choice.",
    "policy_failed": "Calls of policy that answered nothing known.",
    "ledger_failed": "Times the consent ledger gave no answer.",
    "recorded": "Choices that the consent ledger took.",
    "unrecorded": "Choices that the consent ledger did not get.",
    "stop_lost": "Denials that the outbox did not take.",
    "outbox_failed": "Times the outbox's storage failed and memory took over.",
    "marks_lost": "Stop marks that were given up because there were too many.",
    "letters_lost": "Dead letters that were given up because there were too many.",
    "quarantined": "Damaged files of the outbox that were put aside.",
    "journal_failed": "Hand-overs that the journal did not take.",
    "flush_failed": "Responses after which flush_on_response could not deliver.",
}
"""What is counted, and what it means. `docs/operations.md` says what to do about it."""

REASONS: Final[Mapping[str, tuple[str, ...]]] = {
    "buried": ("rejected", "too_large", "expired", "answer_lost"),
    "dropped": ("overflow", "shutdown", "too_large", "too_old", "unrenderable", "unstored"),
    "refused": (),
}
"""Counters with a reason; those that want an alert are there from the start, as 0: a rate does not
see a series appear (Prometheus docs: practices/instrumentation, avoid missing metrics).
"""


@dataclass(frozen=True, slots=True)
class Reading:
    """What the gauges show at one moment.

    Attributes:
        outbox: How full the outbox is.
        used_ratio: The same by the tighter of its bounds; 1 is full.
        age_seconds: For how long the oldest message waits; 0 without one.
        is_healthy: Whether this process should get requests.
        is_blocked: Whether Mixpanel refuses this process's credentials.
    """

    outbox: OutboxStats
    used_ratio: float
    age_seconds: float
    is_healthy: bool
    is_blocked: bool


@dataclass(frozen=True, slots=True)
class Gauge:
    """A metric that goes up and down.

    Attributes:
        text: What it means.
        read: Answers its value.
        unit: As Prometheus appends it to a name; empty for a count of messages or a yes or no.
    """

    text: str
    read: Callable[[Reading], float]
    unit: str = ""


GAUGES: Final[Mapping[str, Gauge]] = {
    "waiting": Gauge("Messages whose fate is open.", lambda reading: reading.outbox.depth),
    "leased": Gauge(
        "Messages among them that are being sent.", lambda reading: reading.outbox.leased
    ),
    "dead": Gauge("Dead letters that are kept.", lambda reading: reading.outbox.dead),
    "oldest_age": Gauge(
        "For how long the oldest message waits; 0 without one.",
        lambda reading: reading.age_seconds,
        "seconds",
    ),
    "outbox": Gauge(
        "Size of the messages that wait.", lambda reading: reading.outbox.size_bytes, "bytes"
    ),
    "outbox_used": Gauge(
        "How full the outbox is, by the tighter of its bounds; 1 is full.",
        lambda reading: reading.used_ratio,
        "ratio",
    ),
    "blocked": Gauge(
        "1 while Mixpanel refuses the credentials of the process that answers.",
        lambda reading: reading.is_blocked,
    ),
    "healthy": Gauge(
        "1 while the process that answers has no problem (GET {mount}/health).",
        lambda reading: reading.is_healthy,
    ),
}
"""What a moment shows."""


def samples(counts: Counts, name: str) -> Mapping[str, int]:
    """Answer a counter's numbers by reason; without reasons there is one, under the empty text."""
    if name not in REASONS:
        return {"": sum(number for (found, _), number in counts.items() if found == name)}
    return dict.fromkeys(REASONS[name], 0) | {
        reason: number for (found, reason), number in sorted(counts.items()) if found == name
    }


def render(reading: Reading, labels: Mapping[str, str]) -> str:
    """Render everything for a scraper.

    Args:
        reading: What is known now.
        labels: What `mp_asgi_info` tells of this process, by label.
    """
    lines = [*_family("info", "gauge", "What answers.", [(labels, 1)])]
    for name, text in COUNTERS.items():
        numbers = samples(reading.outbox.totals, name).items()
        labelled = [({"reason": reason} if reason else {}, number) for reason, number in numbers]
        lines += _family(f"{name}_total", "counter", text, labelled)
    for name, gauge in GAUGES.items():
        full_name = f"{name}_{gauge.unit}" if gauge.unit else name
        lines += _family(full_name, "gauge", gauge.text, [({}, gauge.read(reading))])
    return "\n".join([*lines, ""])


def _family(
    name: str, kind: str, text: str, numbers: Iterable[tuple[Mapping[str, str], float]]
) -> Iterator[str]:
    yield f"# HELP mp_asgi_{name} {text}"
    yield f"# TYPE mp_asgi_{name} {kind}"
    for labels, number in numbers:
        told = ",".join(f'{label}="{_escape(value)}"' for label, value in labels.items())
        yield f"mp_asgi_{name}{{{told}}} {float(number):.15g}"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
