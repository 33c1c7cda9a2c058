"""Compare what was tracked with what arrived. Pure: numbers in, verdict out."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Message = Mapping[str, Any]


@dataclass(frozen=True)
class Tally:
    """What became of the messages of one run.

    Attributes:
        accepted: Messages that the app was told are taken: events, and updates with `$add`.
        delivered: Those that arrived, each counted once.
        dead: Those that are dead letters, and did not arrive.
        lost: Those that did neither.
        doubled_raw: How often something arrived again under the key that Mixpanel deduplicates by.
        doubled: How often an event arrived again under another key.
        doubled_adds: How often an `$add` arrived again.
    """

    accepted: int
    delivered: int
    dead: int
    lost: int
    doubled_raw: int
    doubled: int
    doubled_adds: int


@dataclass(frozen=True)
class Tracked:
    """What the app was told is taken, by the numbers in it."""

    events: Collection[int]
    adds: Collection[int] = ()


def count(
    tracked: Tracked,
    events: Sequence[Message],
    people: Sequence[Message],
    dead: Iterable[Message] = (),
) -> Tally:
    """Answer what became of what was tracked.

    Args:
        tracked: What the app was told is taken.
        events: As they arrived, each time.
        people: Updates of people as they arrived, each time.
        dead: Events and updates among the dead letters.
    """
    # Several of one number have several keys, unless they are the same event again.
    keys = Counter(map(_key, events))
    numbers = Counter(key[0] for key in keys)
    adds = Counter(map(_number, people))
    wanted = {("event", number) for number in tracked.events}
    wanted |= {("add", number) for number in tracked.adds}
    arrived = {("event", number) for number in numbers} | {("add", number) for number in adds}
    given_up = {("add" if "$add" in item else "event", _number(item)) for item in dead} - arrived
    return Tally(
        accepted=len(wanted),
        delivered=len(wanted & arrived),
        dead=len(wanted & given_up),
        lost=len(wanted - arrived - given_up),
        doubled_raw=sum(keys.values()) - len(keys),
        doubled=sum(numbers.values()) - len(numbers),
        doubled_adds=sum(adds.values()) - len(adds),
    )


def _key(event: Message) -> tuple[int, Any, Any, Any]:
    """Answer the number, and by what Mixpanel deduplicates (docs reference/event-deduplication)."""
    properties = event["properties"]
    who = properties.get("distinct_id") or properties.get("$device_id")
    return properties["number"], properties["time"], who, properties["$insert_id"]


def _number(message: Message) -> int:
    if "properties" in message:
        return int(message["properties"]["number"])
    return int(message["$distinct_id"].removeprefix("user-"))
