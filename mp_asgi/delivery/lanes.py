"""Remember how each endpoint fares: how much it takes at once, and when to pause."""

import math
from typing import Final

from mp_asgi.events import MAX_BATCH_BYTES, Endpoint

FIRST_DELAY_SECONDS: Final = 2.0  # Mixpanel's advice: 2 s doubling to 60 s
MAX_DELAY_SECONDS: Final = 60.0
PROBE_SECONDS: Final = 60.0  # between tries while credentials, host or clock are wrong
MIN_DELAY_SECONDS: Final = 0.5  # full jitter may draw 0, which is no pause at all
SET_BACK_SECONDS: Final = 1.0  # less is no clock set back, but two readings that crossed


class Circuit:
    """A pause after failures that grows with each and ends with a success.

    Attributes:
        failures: How many followed each other.
    """

    def __init__(self) -> None:
        self.failures = 0
        self._since = 0.0
        self._seconds = 0.0

    def back_off(self, now: float, jitter: float, *, least: float = 0.0) -> None:
        """Pause for a random part of 2, 4, 8 … 60 s (full jitter).

        Args:
            now: When the failure was seen.
            jitter: A random number in [0, 1).
            least: Seconds that the host asked for.
        """
        doublings = min(self.failures, 5)
        ceiling = min(FIRST_DELAY_SECONDS * 2**doublings, MAX_DELAY_SECONDS)
        self.open(now, max(jitter * ceiling, MIN_DELAY_SECONDS, least))

    def open(self, now: float, seconds: float) -> None:
        """Pause for so many seconds."""
        self.failures += 1
        self._since, self._seconds = now, seconds

    def close(self) -> None:
        """End the pause; the next failure is the first."""
        self.failures = 0
        self._seconds = 0.0

    def remaining(self, now: float) -> float:
        """Answer the seconds left; none if the clock was set back behind the failure."""
        return remaining(self._seconds, self._since, now)


class Lane:
    """What the pump remembers of one endpoint.

    Attributes:
        endpoint: Whose lane this is.
        circuit: The pause after failures.
        most_messages: Messages that a batch ever has.
        max_messages: Messages in the next batch; halved by refusals, doubled by successes.
        max_bytes: Bytes in the next batch; the same.
        trouble: The kind of the last failure, until a success; empty without one.
        lone_refusals: Single messages that were refused since the last success.
        emptied_at: When a batch last took all that was ready, in seconds since the epoch.
    """

    def __init__(self, endpoint: Endpoint, batch_size: int) -> None:
        self.endpoint = endpoint
        self.circuit = Circuit()
        # `/track` says 1 when one of several is valid (reference/mixpanel.md section 7): only of an
        # alias that travels alone is that an acknowledgement. So each is a full batch, which leaves
        # at once.
        self.most_messages = 1 if endpoint is Endpoint.ALIASES else batch_size
        self.max_messages = self.most_messages
        self.max_bytes = MAX_BATCH_BYTES
        self.trouble = ""
        self.lone_refusals = 0
        self.emptied_at = -math.inf

    def recover(self) -> None:
        """Widen what a refusal narrowed; end every pause."""
        self.circuit.close()
        self.lone_refusals = 0
        self.max_messages = min(self.max_messages * 2, self.most_messages)
        self.max_bytes = min(self.max_bytes * 2, MAX_BATCH_BYTES)


def remaining(seconds: float, since: float, now: float) -> float:
    """Answer what is left of so many seconds; none if the clock was set back behind `since`."""
    waited = now - since
    return seconds - max(waited, 0.0) if -SET_BACK_SECONDS <= waited < seconds else 0.0
