"""Judge what Mixpanel answered. Pure: reply in, verdict out."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime
from enum import Enum, auto
from typing import Any, Final

from mp_asgi.events import Endpoint, Message

from .transport import Reply

MAX_TEXT = 500  # characters of a reply that a dead letter keeps
MAX_LOGGED_TEXT = 200
MAX_RETRY_AFTER_SECONDS = 3600.0  # a larger one is more likely a mistake than a wish

# reference/mixpanel.md section 7, last paragraph: what comes again may pass.
_RETRIED: Final = frozenset({408, 425, 429})
# The content is at fault. Any other status says that we talk to the wrong door.
_REFUSED: Final = frozenset({400, 422})
_TOO_LARGE: Final = 413
_TRANSIENT: Final = ("rate limit", "temporary failure")  # mixpanel-python #80


class Verdict(Enum):
    """What a reply means for its batch."""

    DELIVERED = auto()
    PARTLY = auto()  # the messages in `failed` are refused, the rest is in
    REFUSED = auto()  # something in the batch is refused, nothing says what
    TOO_LARGE = auto()
    RETRY = auto()
    UNCLEAR = auto()  # a success that is not Mixpanel's: whether it was stored is unknown
    BLOCKED = auto()  # credentials, region or host are wrong; nothing will pass until they change


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict with what it rests on.

    Attributes:
        verdict: What the reply means.
        text: What Mixpanel said, printable, at most `MAX_TEXT` characters.
        failed: For `PARTLY`: the index in the batch of each refused message, and why.
        retry_after: For `RETRY`: the least seconds to wait, 0 if the reply names none.
    """

    verdict: Verdict
    text: str = ""
    failed: Mapping[int, str] = field(default_factory=dict)
    retry_after: float = 0.0


def judge(endpoint: Endpoint, reply: Reply, messages: Sequence[Message], now: float) -> Judgement:
    """Tell what a reply to these messages means, by reference/mixpanel.md section 7."""
    text = printable(reply.body.decode("utf-8", "replace"))
    status = reply.status
    if status in _RETRIED or status >= 500:  # noqa: PLR2004  # the class of server errors
        return Judgement(Verdict.RETRY, text, retry_after=_read_retry_after(reply, now))
    if status == _TOO_LARGE:
        return Judgement(Verdict.TOO_LARGE, text)
    if status in _REFUSED:
        failed = _read_failed_records(reply.body, messages)
        return Judgement(Verdict.PARTLY if failed else Verdict.REFUSED, text, failed)
    if not 200 <= status < 300:  # noqa: PLR2004  # the class of successes
        return Judgement(Verdict.BLOCKED, text)
    answer = _parse(reply.body)
    if endpoint is Endpoint.EVENTS:
        return Judgement(_judge_import(answer), text)
    return Judgement(_judge_verbose(answer, text), text)


def printable(text: str) -> str:
    """Cut foreign text and take what could forge or colour a log line out of it."""
    return "".join(char if char.isprintable() else " " for char in text[:MAX_TEXT]).strip()


def read_error(body: bytes, secrets: Sequence[str]) -> str:
    """Answer the `error` of Mixpanel's JSON for a log line; empty if the body is anything else.

    Args:
        body: Of a reply, perhaps a stranger's that repeats what we sent.
        secrets: Masked where they occur.
    """
    answer = _parse(body)
    error = answer.get("error") if isinstance(answer, dict) else None
    if not isinstance(error, str):
        return ""
    for secret in filter(None, secrets):
        error = error.replace(secret, "***")  # before it is cut, or a part would stay
    return printable(error[:MAX_LOGGED_TEXT])


def _judge_import(answer: Any) -> Verdict:
    is_success = (
        isinstance(answer, dict)
        and answer.get("code") == 200  # noqa: PLR2004  # the body repeats the status
        and answer.get("status") != 0
        and not answer.get("error")
    )
    return Verdict.DELIVERED if is_success else Verdict.UNCLEAR


def _judge_verbose(answer: Any, text: str) -> Verdict:
    # With `verbose` an object; a proxy that drops the query gets the bare digit.
    status = answer.get("status") if isinstance(answer, dict) else answer
    # No set: what a stranger sends may be unhashable.
    if isinstance(status, bool) or status not in (0, 1):
        return Verdict.UNCLEAR
    if status == 1:
        return Verdict.DELIVERED
    is_transient = any(words in text.lower() for words in _TRANSIENT)
    return Verdict.RETRY if is_transient else Verdict.REFUSED


def _read_failed_records(body: bytes, messages: Sequence[Message]) -> dict[int, str]:
    """Read which messages a 400 names; empty unless all that it says agrees."""
    answer = _parse(body)
    records = answer.get("failed_records") if isinstance(answer, dict) else None
    if not isinstance(records, list):
        return {}
    failed: dict[int, str] = {}
    for record in records:
        index = record.get("index") if isinstance(record, dict) else None
        if type(index) is not int or not 0 <= index < len(messages):
            return {}
        insert_id = record.get("insert_id") or record.get("$insert_id")
        if insert_id and insert_id != messages[index].insert_id:
            return {}
        reason = printable(f"{record.get('field')}: {record.get('message')}")
        failed.setdefault(index, reason)
    imported = answer.get("num_records_imported", len(messages) - len(failed))
    return failed if imported == len(messages) - len(failed) else {}


def _parse(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _read_retry_after(reply: Reply, now: float) -> float:
    """Read `Retry-After`, seconds or a date (RFC 9110 section 10.2.3)."""
    text = reply.headers.get("retry-after", "")
    if re.fullmatch(r"[0-9]{1,9}", text):
        seconds = float(text)
    else:
        try:
            date = parsedate_to_datetime(text)
            seconds = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now
        except (ValueError, TypeError, OverflowError):
            return 0.0
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_SECONDS)
