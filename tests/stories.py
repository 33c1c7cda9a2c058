"""Tell what arrived at Mixpanel, and who is who there, as text that a table can hold.

Letters are device IDs in the order in which they arrive.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tests.doors import World

UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
ID_NAMES = (
    "distinct_id",
    "$device_id",
    "$user_id",
    "$identified_id",
    "$anon_id",
    "alias",
    "$anon_distinct_id",
    "$distinct_ids",
    "$had_persisted_distinct_id",
)


class Story(NamedTuple):
    """What a journey leads to.

    Attributes:
        messages: `path name: IDs`, aliases first, then in the order of arrival.
        people: What each of them did, in Mixpanel's eyes.
    """

    messages: list[str]
    people: list[str]


def tell(world: World) -> Story:
    """Answer what arrived, and who is who."""
    people = tell_people(world.who_is_who())
    requests = world.standin.requests
    # An alias leaves at once: how many events it overtakes is chance.
    messages = [
        f"{request.path} {tell_ids(message)}"
        for request in sorted(requests, key=lambda request: request.path != "/track")
        for message in request.messages
    ]
    lines = name_devices("\n".join([*messages, *people])).splitlines()
    return Story(lines[: len(messages)], lines[len(messages) :])


def tell_people(people: Mapping[str, Sequence[str]]) -> list[str]:
    return [f"{who}: {', '.join(names)}" for who, names in people.items()]


def tell_ids(event: Mapping[str, Any]) -> str:
    properties = event["properties"]
    ids = [f"{name}={properties[name]}" for name in ID_NAMES if name in properties]
    return f"{event['event']}: {' '.join(ids)}"


def name_devices(text: str) -> str:
    """Answer the text with a letter for each device ID."""
    letters: dict[str, str] = {}
    return UUID.sub(lambda found: letters.setdefault(found[0], "ABC"[len(letters)]), text)
