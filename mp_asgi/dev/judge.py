"""Decide whether Mixpanel would take a message. Pure: message and time in, problem out.

Rules and texts are those of Mixpanel's documentation and of replies that others recorded. A text
that nobody recorded is ours; tests name those.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Mode = Literal["simplified", "original", "legacy"]

HOUR_SECONDS = 3_600
TRACK_MAX_AGE_SECONDS = 5 * 86_400  # reference/track-event: older events are dropped
OLDEST_SECONDS = 365 * 86_400  # reference/import-events: from 1971 on
MILLISECONDS_FROM = 1e11  # as seconds this is the year 5138
MAX_INSERT_ID = 36  # reference/import-events
MAX_PROPERTIES = 255  # also keys of a nested object and elements of a list
MAX_DEPTH = 3
MAX_EVENT_BYTES = 1_000_000
# reference/import-events, "invalid distinct_ids"; no case rule is documented: any case is refused
FORBIDDEN_IDS = frozenset(
    {
        *("00000000-0000-0000-0000-000000000000", "anon", "anonymous", "nil", "none", "null"),
        *("n/a", "na", "undefined", "unknown", "<nil>", "0", "-1", "true", "false", "[]", "{}"),
    }
)
IDENTITY_EVENTS = frozenset({"$identify", "$create_alias", "$merge"})
PROFILE_VERBS = frozenset(
    {"$set", "$set_once", "$add", "$append", "$union", "$remove", "$unset", "$delete"}
)

_INSERT_ID = re.compile(r"[A-Za-z0-9-]+")
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a message is not kept.

    Attributes:
        field: Where it is wrong, as Mixpanel names it.
        text: Mixpanel's own message.
        is_silent: Whether Mixpanel answers as if the message were kept.
    """

    field: str
    text: str
    is_silent: bool = False


def judge_import(message: Any, *, now: float, mode: Mode) -> Problem | None:
    """Answer what `/import` has against an event."""
    event = message.get("event") if isinstance(message, dict) else None
    if not isinstance(event, str) or not event.strip():
        return Problem("event", "'event' must not be missing or blank")
    properties = message.get("properties")
    if not isinstance(properties, dict):
        return _invalid("properties", "must not be missing")
    if event == "$merge":
        return _judge_merge(properties, mode)
    return (
        _judge_time(properties, now)
        or _judge_ids(event, properties, mode)
        or _judge_insert_id(properties)
        or _judge_shape(message, properties)
        or _judge_text(message)
        or _judge_ignore(properties)
    )


def judge_track(message: Any, *, now: float) -> Problem | None:
    """Answer what `/track` has against an event: little, and some of it silently."""
    event = message.get("event") if isinstance(message, dict) else None
    properties = message.get("properties") if isinstance(message, dict) else None
    if not isinstance(properties, dict):
        properties = {}
    if not event or not isinstance(event, str):
        return Problem("event", "event, missing")
    if not properties.get("token"):
        return Problem("properties.token", "token, missing or empty")
    if event == "$merge":  # accepted only by /import
        return Problem("event", "event, $merge is not accepted here")
    if event in IDENTITY_EVENTS and not properties.get("distinct_id"):
        return Problem("properties.distinct_id", "distinct_id, missing or empty")
    time = properties.get("time", now)
    if _is_number(time) and _as_seconds(time) < now - TRACK_MAX_AGE_SECONDS:
        return Problem("properties.time", "older than 5 days", is_silent=True)
    return _judge_ignore(properties)


def judge_person(message: Any, *, now: float) -> Problem | None:
    """Answer what `/engage` has against a profile update."""
    return _judge_profile(message, ("$distinct_id",))


def judge_group(message: Any, *, now: float) -> Problem | None:
    """Answer what `/groups` has against a group update."""
    return _judge_profile(message, ("$group_key", "$group_id"))


def _judge_profile(message: Any, keys: tuple[str, ...]) -> Problem | None:
    update: Mapping[str, Any] = message if isinstance(message, dict) else {}
    if not update.get("$token"):
        return Problem("$token", "$token, missing or empty")
    for key in keys:
        if not update.get(key):
            return Problem(key, f"Engage API error: {key}, missing or empty")
    verbs = PROFILE_VERBS & update.keys()
    if len(verbs) != 1:
        return Problem("", f"Engage API error: one operation expected, found {len(verbs)}")
    for field, text in _strings(update, ""):
        if _SURROGATE.search(text):
            return Problem(field, f"Engage API error: {field}: string should be valid utf8")
    return None


def _judge_merge(properties: Mapping[str, Any], mode: Mode) -> Problem | None:
    ids = properties.get("$distinct_ids")
    if mode == "original" and (not isinstance(ids, list) or len(ids) != 2):  # noqa: PLR2004 - a pair
        return _invalid("properties.$distinct_ids", "must hold exactly two ids")
    return None


def _judge_time(properties: Mapping[str, Any], now: float) -> Problem | None:
    if "time" not in properties:
        return _invalid("properties.time", "must not be missing")
    time = properties["time"]
    if not _is_number(time) or _as_seconds(time) < OLDEST_SECONDS:
        return _invalid("properties.time", "must be specified as seconds since epoch")
    if _as_seconds(time) > now + HOUR_SECONDS:
        return _invalid("properties.time", "must not be in the future")
    return None


def _judge_ids(event: str, properties: Mapping[str, Any], mode: Mode) -> Problem | None:
    distinct_id = properties.get("distinct_id")
    others = ("$device_id", "$user_id") if mode == "simplified" else ()
    # The reference infers the distinct_id of an $identify that names the identified one.
    stand_ins = (*others, "$identified_id") if event == "$identify" else others
    # "" is a documented value: an event of no user.
    is_named = isinstance(distinct_id, (str, int)) or any(map(properties.get, stand_ins))
    if not is_named:
        return _invalid("properties.distinct_id", "must not be missing")
    for key in ("distinct_id", *others):
        if key in properties and str(properties[key]).lower() in FORBIDDEN_IDS:
            return _invalid(f"properties.{key}", "must not be a placeholder")
    return None


def _judge_insert_id(properties: Mapping[str, Any]) -> Problem | None:
    if "$insert_id" not in properties:
        return None
    insert_id = properties["$insert_id"]
    if not isinstance(insert_id, str) or not _INSERT_ID.fullmatch(insert_id):
        return _invalid("$insert_id", "must only contain alphanumeric or hyphen '-' characters")
    if len(insert_id) > MAX_INSERT_ID:
        return _invalid("$insert_id", f"must not be longer than {MAX_INSERT_ID} characters")
    if insert_id.lower() in FORBIDDEN_IDS:
        return _invalid("$insert_id", "must not be a placeholder")
    return None


def _judge_shape(message: Mapping[str, Any], properties: Mapping[str, Any]) -> Problem | None:
    if len(properties) > MAX_PROPERTIES:
        return _invalid("properties", f"must not hold more than {MAX_PROPERTIES} properties")
    for name, value in properties.items():
        if not _is_small(value, MAX_DEPTH):
            return _invalid(
                f"properties.{name}",
                f"must not nest deeper than {MAX_DEPTH} or hold more than {MAX_PROPERTIES} values",
            )
    text = json.dumps(message, ensure_ascii=False, separators=(",", ":"))
    if len(text.encode("utf-8", "surrogatepass")) >= MAX_EVENT_BYTES:
        return _invalid("event", "must be smaller than 1MB")
    return None


def _judge_text(message: Mapping[str, Any]) -> Problem | None:
    for field, text in _strings(message, ""):
        if _SURROGATE.search(text):
            return Problem(field, f"{field} is invalid: string should be valid utf8")
    return None


def _judge_ignore(properties: Mapping[str, Any]) -> Problem | None:
    if properties.get("$ignore"):
        return Problem("properties.$ignore", "asked to be ignored", is_silent=True)
    return None


def _strings(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield path or "event", key
            yield from _strings(inner, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner, path)


def _is_small(value: Any, depth: int) -> bool:
    if isinstance(value, (dict, list)):
        inner = value.values() if isinstance(value, dict) else value
        is_deeper = isinstance(value, dict)
        return (
            len(value) <= MAX_PROPERTIES
            and (depth > 0 or not is_deeper)
            and all(_is_small(item, depth - is_deeper) for item in inner)
        )
    return True


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _as_seconds(time: float) -> float:
    return time / 1_000 if time >= MILLISECONDS_FROM else time


def _invalid(field: str, rule: str) -> Problem:
    return Problem(field, f"'{field}' is invalid: {rule}")


JUDGES: Mapping[str, Callable[..., Problem | None]] = {
    "/track": judge_track,
    "/engage": judge_person,
    "/groups": judge_group,
}
