"""Show this process's own counts to OpenTelemetry, where the app uses it.

Nothing here imports the API first: whoever has not imported it has configured no provider, and
would pay 100 ms for nothing. It needs no extra of ours.
"""

import sys
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Final

from ._version import __version__
from .delivery.outbox.base import Counts
from .errors import OutboxUnavailable
from .metrics import COUNTERS, GAUGES, Gauge, Reading, samples

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, Observation

_API: Final = "opentelemetry.metrics"
_UNITS: Final = {"": "", "seconds": "s", "bytes": "By", "ratio": "1"}  # UCUM, as OTel wants


def is_in_use() -> bool:
    """Whether something in this process has imported the API. Costs a look into a dict."""
    return _API in sys.modules


def register(counts: Callable[[], Counts], read: Callable[[], Reading], project: str) -> None:
    """Make the instruments of the meter `mp_asgi`, once a process; a fork inherits them.

    Args:
        counts: Answers what this process counted itself, at each export.
        read: Answers what the gauges show; may raise `OutboxUnavailable`.
        project: Tells this project's meter from another's in the same process.
    """
    from opentelemetry.metrics import get_meter  # noqa: PLC0415  # imported by the app, or never

    meter = get_meter("mp_asgi", __version__, attributes={"mp_asgi.project": project})
    for name, text in COUNTERS.items():
        observe = partial(_observe_counter, counts, name)
        meter.create_observable_counter(f"mp_asgi.{name}", [observe], description=text)
    for name, gauge in GAUGES.items():
        meter.create_observable_gauge(
            f"mp_asgi.{name}",
            [partial(_observe_gauge, read, gauge)],
            unit=_UNITS[gauge.unit],
            description=gauge.text,
        )


def _observe_counter(
    counts: Callable[[], Counts], name: str, options: "CallbackOptions"
) -> Iterable["Observation"]:
    from opentelemetry.metrics import Observation  # noqa: PLC0415

    del options
    numbers = samples(counts(), name).items()
    return [Observation(n, {"reason": reason} if reason else {}) for reason, n in numbers]


def _observe_gauge(
    read: Callable[[], Reading], gauge: Gauge, options: "CallbackOptions"
) -> Iterable["Observation"]:
    from opentelemetry.metrics import Observation  # noqa: PLC0415

    del options
    try:
        return [Observation(gauge.read(read()))]
    except OutboxUnavailable:
        return []  # a gap in the line says so
