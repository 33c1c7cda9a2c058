"""Ask the app who this is and what they chose, once, when the response starts.

The app's code may fail: then the visitor stays unnamed, and unreadable consent means no.
"""

import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from .consent.choice import StoredConsent
from .consent.policy import AppAnswer
from .core import Sink
from .errors import InvalidEvent
from .identity import ANONYMOUS, Anonymous, read_user_id
from .readers import Said

_DENIED: Final = AppAnswer(Said.DENIED)


class _WrongAnswer(TypeError):
    """An answer that cannot be used; the message names its type, never its value."""


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
            f"identify_from failed ({_explain(error)}); events stay without a user",
        )
        return None


def ask_consent(consent_from: Callable[[Any], object], connection: object, sink: Sink) -> AppAnswer:
    """Answer what the app stored about this visitor's choice."""
    try:
        return read_answer(consent_from(connection))
    except Exception as error:  # noqa: BLE001  # the app's code; unreadable means no
        sink.count("consent_from_failed")
        sink.warn(
            "consent_from",
            f"consent_from failed ({_explain(error)}); nothing is sent for its visitors",
        )
        return AppAnswer(Said.UNREADABLE)


def read_answer(answer: object) -> AppAnswer:
    """Read what an app says of a stored choice: True, False, None or a `StoredConsent`.

    Raises:
        TypeError: It is none of these; the message names its type, never its value.
    """
    if answer is None:
        return AppAnswer()
    if isinstance(answer, bool):
        return AppAnswer(Said.GRANTED) if answer else _DENIED
    if isinstance(answer, StoredConsent) and isinstance(answer.granted, bool):
        # A denial counts whatever its time, also one that cannot be read.
        return AppAnswer(Said.GRANTED, _read_time(answer.at)) if answer.granted else _DENIED
    given = type(answer).__name__
    if isinstance(answer, StoredConsent):
        given = f"StoredConsent whose granted is of type {type(answer.granted).__name__}"
    raise _WrongAnswer(f"it answers True, False, None or a StoredConsent, not {given}")


def _read_time(at: object) -> float | None:
    if isinstance(at, datetime):
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    if at is None:
        return None
    if isinstance(at, bool) or not isinstance(at, (int, float)) or not math.isfinite(at):
        raise _WrongAnswer(
            "the time of a StoredConsent is a datetime or finite seconds since the epoch, "
            f"not {type(at).__name__}"
        )
    return at


def _explain(error: Exception) -> str:
    # Our own words hold no value; the app's may.
    is_ours = isinstance(error, (InvalidEvent, _WrongAnswer))
    return str(error) if is_ours else type(error).__name__
