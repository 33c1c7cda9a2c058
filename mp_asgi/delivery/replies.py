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

MAX_TEXT = 500  # characters of foreign text
MAX_ERROR_TEXT = 200  # characters of Mixpanel's `error` that a log line or a dead letter keeps
MAX_RETRY_AFTER_SECONDS = 3600.0  # a larger one is more likely a mistake than a wish

# reference/mixpanel.md section 7, last paragraph: what comes again may pass. With these nothing
# was taken; any other failure of a server may come after it has.
_UNTAKEN: Final = frozenset({408, 425, 429, 503})
# Envoy's 503, which Mixpanel is known to answer, leaves it open unless it names a reason of before
# (envoyproxy.io, "Response flags": UC also answers 503). Where it "retried", that is only the last.
_RESET: Final = "disconnect/reset"
_RESET_BEFORE: Final = re.compile(
    r"headers\. reset reason: [a-z ]*(connection failure|timeout|overflow)"
)
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
    LOST = auto()  # the server failed, and may have taken it before
    UNCLEAR = auto()  # a success that is not Mixpanel's: whether it was stored is unknown
    BLOCKED = auto()  # credentials, region or host are wrong; nothing will pass until they change


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict with what it rests on.

    Attributes:
        verdict: What the reply means.
        text: What a dead letter keeps: Mixpanel's `error`, or how long the reply is.
        failed: For `PARTLY`: the index in the batch of each refused message, and why.
        retry_after: For `RETRY` and `LOST`: the least seconds to wait, 0 if the reply names none.
        unimported: For `DELIVERED`: how many messages Mixpanel's own count lacks.
    """

    verdict: Verdict
    text: str = ""
    failed: Mapping[int, str] = field(default_factory=dict)
    retry_after: float = 0.0
    unimported: int = 0


def judge(
    endpoint: Endpoint,
    reply: Reply,
    messages: Sequence[Message],
    now: float,
    *,
    secrets: Sequence[str] = (),
) -> Judgement:
    """Tell what a reply to these messages means, by reference/mixpanel.md section 7.

    Args:
        endpoint: Where the messages went.
        reply: To them, perhaps a stranger's that repeats what we sent.
        messages: In the order of the body.
        now: In seconds since the epoch.
        secrets: Masked in every text.
    """
    text = _quote(reply, secrets)
    status = reply.status
    # Servers' errors; and interim answers, which say nothing of the final one.
    if status in _UNTAKEN or not 200 <= status < 500:  # noqa: PLR2004  # classes of statuses
        return Judgement(_judge_failure(reply), text, retry_after=_read_wish(reply, now))
    if status == _TOO_LARGE:
        return Judgement(Verdict.TOO_LARGE, text)
    if status in _REFUSED:
        failed = _read_failed_records(reply.body, messages, secrets)
        return Judgement(Verdict.PARTLY if failed else Verdict.REFUSED, text, failed)
    if status >= 300:  # noqa: PLR2004  # behind the class of successes
        return Judgement(Verdict.BLOCKED, text)
    answer = _parse(reply.body)
    if endpoint is Endpoint.EVENTS:
        return Judgement(
            _judge_import(answer), text, unimported=_count_unimported(answer, len(messages))
        )
    return Judgement(_judge_verbose(answer, reply), text)


def printable(text: str) -> str:
    """Cut foreign text and take what could forge or colour a log line out of it."""
    return "".join(char if char.isprintable() else " " for char in text[:MAX_TEXT]).strip()


def read_error(body: bytes, secrets: Sequence[str]) -> str:
    """Answer the `error` of Mixpanel's JSON; empty if the body is anything else.

    Args:
        body: Of a reply, perhaps a stranger's that repeats what we sent.
        secrets: Masked where they occur.
    """
    answer = _parse(body)
    error = answer.get("error") if isinstance(answer, dict) else None
    return printable(_mask(error, secrets)[:MAX_ERROR_TEXT]) if isinstance(error, str) else ""


def read_date(reply: Reply, now: float) -> float:
    """Answer when the reply was made by the clock of its host, in seconds since the epoch.

    Args:
        reply: Of anybody.
        now: Answered if the reply does not say.
    """
    date = _parse_date(reply.headers.get("date", ""))
    return now if date is None else date


def _quote(reply: Reply, secrets: Sequence[str]) -> str:
    """Answer what may be kept of a reply: Mixpanel's words, nothing that a stranger repeats."""
    if reply.body == b"0":  # what an endpoint says without `verbose`
        return "0"
    stranger = f"status {reply.status}, not Mixpanel's: {len(reply.body)} bytes"
    return read_error(reply.body, secrets) or stranger


def _mask(text: str, secrets: Sequence[str]) -> str:
    """Take secrets out of a text; before it is cut, or a part would stay."""
    for secret in filter(None, secrets):
        text = text.replace(secret, "***")
    return text


def _judge_failure(reply: Reply) -> Verdict:
    text = reply.body.decode("utf-8", "replace")
    is_open = _RESET in text and not _RESET_BEFORE.search(text)
    return Verdict.LOST if reply.status not in _UNTAKEN or is_open else Verdict.RETRY


def _judge_import(answer: Any) -> Verdict:
    is_success = (
        isinstance(answer, dict)
        and answer.get("code") == 200  # noqa: PLR2004  # the body repeats the status
        and answer.get("status") != 0
        and not answer.get("error")
    )
    return Verdict.DELIVERED if is_success else Verdict.UNCLEAR


def _count_unimported(answer: Any, sent: int) -> int:
    imported = answer.get("num_records_imported") if isinstance(answer, dict) else None
    # Clamped on both sides: a foreign number enters a total that a storage must be able to hold.
    return min(max(0, sent - imported), sent) if type(imported) is int else 0


def _judge_verbose(answer: Any, reply: Reply) -> Verdict:
    # With `verbose` an object; a proxy that drops the query gets the bare digit.
    status = answer.get("status") if isinstance(answer, dict) else answer
    # No set: what a stranger sends may be unhashable.
    if isinstance(status, bool) or status not in (0, 1):
        return Verdict.UNCLEAR
    if status == 1:
        return Verdict.DELIVERED
    text = reply.body.decode("utf-8", "replace").lower()
    is_transient = any(words in text for words in _TRANSIENT)
    return Verdict.RETRY if is_transient else Verdict.REFUSED


def _read_failed_records(
    body: bytes, messages: Sequence[Message], secrets: Sequence[str]
) -> dict[int, str]:
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
        reason = _mask(f"{record.get('field')}: {record.get('message')}", secrets)
        failed.setdefault(index, printable(reason))
    imported = answer.get("num_records_imported", len(messages) - len(failed))
    return failed if imported == len(messages) - len(failed) else {}


def _parse(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _read_wish(reply: Reply, now: float) -> float:
    """Read `Retry-After`, seconds or a date of the host's clock (RFC 9110 section 10.2.3)."""
    text = reply.headers.get("retry-after", "")
    if re.fullmatch(r"[0-9]{1,9}", text):
        seconds = float(text)
    else:
        date = _parse_date(text)
        seconds = 0.0 if date is None else date - read_date(reply, now)
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_SECONDS)


def _parse_date(text: str) -> float | None:
    try:
        date = parsedate_to_datetime(text)
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
