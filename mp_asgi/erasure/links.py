"""Find the devices that a user was on. A device leads nowhere else: somebody else may share it."""

from collections.abc import Sequence
from typing import Protocol

from mp_asgi.events import Link, Subject
from mp_asgi.identity import Origin

from .people import PeopleReader, Person, unite


class Links(Protocol):
    """What remembers which users and devices met."""

    def links_of_user(self, user_key: bytes) -> Sequence[Link]:
        """Answer the links of the user with this keyed hash."""
        ...


def find_everybody(
    people: Sequence[Person], links: Links | None, reader: PeopleReader, until: float
) -> list[Person]:
    """Answer these people, and the devices that the users among them were on, each once.

    Args:
        people: Who was named.
        links: What remembers; None if nothing does.
        reader: Makes people of device IDs.
        until: Seconds since the epoch; a device that came later is passed over.
    """
    if links is None:
        return unite(people)
    users = [person for person in people if person.subject is Subject.USER]
    met = [link for user in users for link in links.links_of_user(user.key) if link.at <= until]
    devices = [reader.device(link.device_id, [*map(Origin, link.origins)]) for link in met]
    return unite([*people, *devices])
