"""Ask the app who this is and what they chose, once, when the response starts.

The app's code may fail: then the visitor stays unnamed, and unreadable consent means no.
"""

import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from .consent.choice import StoredConsent
from .consent.policy import AppAnswer
from .consent.signals import Said
from .core import Sink
from .identity import ANONYMOUS, Anonymous, read_user_id

_DENIED: Final = AppAnswer(Said.DENIED)


def ask_user(
    identify_from: Callable[[Any], object], connection: object, sink: Sink
) -> str | Anonymous | None:
    """Answer the user ID, ANONYMOUS (certainly nobody) or None (cannot tell)."""
    try:
        answer = identify_from(connection)
        return answer if answer is None or answer is ANONYMOUS else read_user_id(answer)
    except Exception as error:  # noqa: BLE001  # the app's code; its events go out unnamed
        sink.count("identify_from_failed")
        sink.warn(
            "identify_from",
            f"identify_from failed ({type(error).__name__}); events stay without a user",
        )
        return None


def ask_consent(consent_from: Callable[[Any], object], connection: object, sink: Sink) -> AppAnswer:
    """Answer what the app stored about this visitor's choice."""
    try:
        return _read_answer(consent_from(connection))
    except Exception as error:  # noqa: BLE001  # the app's code; unreadable means no
        sink.count("consent_from_failed")
        sink.warn(
            "consent_from",
            f"consent_from failed ({type(error).__name__}); nothing is sent for its visitors",
        )
        return AppAnswer(Said.UNREADABLE)


def _read_answer(answer: object) -> AppAnswer:
    if answer is None:
        return AppAnswer()
    if isinstance(answer, bool):
        return AppAnswer(Said.GRANTED) if answer else _DENIED
    if isinstance(answer, StoredConsent) and isinstance(answer.granted, bool):
        # A denial counts whatever its time, also one that cannot be read.
        return AppAnswer(Said.GRANTED, _read_time(answer.at)) if answer.granted else _DENIED
    raise TypeError("consent_from answers True, False, None or a StoredConsent")


def _read_time(at: object) -> float | None:
    if isinstance(at, datetime):
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    if at is None:
        return None
    if isinstance(at, bool) or not isinstance(at, (int, float)) or not math.isfinite(at):
        raise TypeError("the time of a StoredConsent is a datetime or seconds since the epoch")
    return at
