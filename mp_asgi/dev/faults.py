"""Say how the stand-in may misbehave, and which misbehaviour is next."""

from dataclasses import dataclass, replace
from enum import Enum


class Fault(Enum):
    """A way to misbehave. The value is its name over HTTP.

    What ends a connection at another place than between two parts of a body needs
    `mp_asgi.dev.run_in_thread`.
    """

    UNAVAILABLE = "unavailable"  # 503 in plain text, as the proxy before Mixpanel does
    RATE_LIMITED = "rate_limited"  # 429
    TOO_LARGE = "too_large"  # 413
    UNAUTHORIZED = "unauthorized"  # 401
    BAD_REQUEST = "bad_request"  # 400 for the whole request, no failed records named
    SLOW = "slow"  # kept, and the answer comes late
    DROP = "drop"  # kept, and the answer is cut off
    REFUSE = "refuse"  # not kept, and the answer is cut off
    GARBAGE = "garbage"  # 200 with HTML, as a captive portal does; not kept
    CUT_HEADERS = "cut_headers"  # kept, and the answer ends within its headers
    HANG_UP = "hang_up"  # kept, and the connection ends without an answer
    RESET = "reset"  # not kept: the connection is reset before the body was read
    HANG = "hang"  # not kept, and no answer ever comes
    DRIP = "drip"  # kept, and the answer comes byte by byte

    @property
    def keeps_messages(self) -> bool:
        """Whether the messages count although the client cannot know."""
        return self in _KEEPING


_KEEPING = frozenset({Fault.SLOW, Fault.DROP, Fault.CUT_HEADERS, Fault.HANG_UP, Fault.DRIP})


@dataclass(frozen=True, slots=True)
class Misbehaviour:
    """One order to misbehave.

    Attributes:
        times: How many requests it is for; None without an end.
        endpoint: The path it is for, as in `/import`; empty for all.
        seconds: How late a `SLOW` answer comes, or how long a `DRIP` takes.
        retry_after: Seconds in a `Retry-After` header of `RATE_LIMITED`; None without one.
    """

    fault: Fault
    times: int | None = 1
    endpoint: str = ""
    seconds: float = 1.0
    retry_after: int | None = None


class Orders:
    """The orders that wait. Not thread-safe: its owner holds the lock."""

    def __init__(self) -> None:
        self._waiting: list[Misbehaviour] = []

    def add(self, order: Misbehaviour) -> None:
        """Put an order behind the others."""
        self._waiting.append(order)

    def clear(self) -> None:
        """Behave from now on."""
        self._waiting.clear()

    def take(self, path: str) -> Misbehaviour | None:
        """Answer the first order for a path, and count it down."""
        for index, order in enumerate(self._waiting):
            if order.endpoint not in ("", path):
                continue
            if order.times is not None:
                rest = [replace(order, times=order.times - 1)] if order.times > 1 else []
                self._waiting[index : index + 1] = rest
            return order
        return None
