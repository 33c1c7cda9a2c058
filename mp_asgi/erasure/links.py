"""Find the devices that a user was on. A device leads nowhere else: somebody else may share it."""

from collections.abc import Sequence
from typing import Protocol

from mp_asgi.events import Link, Subject

from .people import PeopleReader, Person


class Links(Protocol):
    """What remembers which users and devices met."""

    def links_of_user(self, user_key: bytes) -> Sequence[Link]:
        """Answer the links of the user with this keyed hash."""
        ...


def find_everybody(
    people: Sequence[Person], links: Links | None, reader: PeopleReader, until: float
) -> list[Person]:
    """Answer these people, and the devices that the users among them were on.

    Args:
        people: Who was named.
        links: What remembers; None if nothing does.
        reader: Makes people of device IDs.
        until: Seconds since the epoch; a device that came later is passed over.
    """
    found = {person.key: person for person in people}
    for person in people:
        if links is None or person.subject is not Subject.USER:
            continue
        for link in links.links_of_user(person.key):
            if link.at <= until:
                device = reader.device(link.device_id)
                found.setdefault(device.key, device)
    return list(found.values())
