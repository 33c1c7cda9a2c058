"""Name the people whom an erasure or a retrieval is about. Pure: IDs in, people out.

What Mixpanel would refuse is refused here, before anything is sent: one invalid ID spoils the
whole request (RULES section 3).
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from mp_asgi.errors import InvalidEvent, MixpanelASGIError
from mp_asgi.events import Subject
from mp_asgi.identity import (
    DEVICE_PREFIX,
    MAX_ID_BYTES,
    IdentityMode,
    Origin,
    Visitor,
    read_user_id,
)
from mp_asgi.signing import CookieSigner
from mp_asgi.wire import KeyMaker

MAX_PROBLEMS: Final = 20  # lines that are named; a wrong file has thousands

_REFUSED: Final = "Mixpanel refuses this {}, or it names nobody"


@dataclass(frozen=True, slots=True)
class Person:
    """One user, or one device as a visitor's stand-in.

    Attributes:
        subject: Which of the two.
        id: Raw: the user ID or the device ID.
        key: Its keyed hash, as in outbox and ledger.
        distinct_ids: As Mixpanel knows it; at least one.
    """

    subject: Subject
    id: str = field(repr=False)
    key: bytes
    distinct_ids: tuple[str, ...] = field(repr=False)


class UnreadablePeople(MixpanelASGIError, ValueError):
    """A list of people cannot be used; the message names lines, never IDs."""


class PeopleReader:
    """Read IDs as the people of one project.

    Args:
        keys: Hashes the IDs.
        mode: The project's ID merge, which decides how Mixpanel knows a device.
        signer: Verifies ID cookies.
    """

    def __init__(self, keys: KeyMaker, mode: IdentityMode, signer: CookieSigner) -> None:
        self._keys = keys
        self._mode = mode
        self._signer = signer

    def user(self, user_id: object) -> Person:
        """Answer the person with this user ID.

        Raises:
            UnreadablePeople: Mixpanel refuses the ID.
        """
        text = _read(user_id, "user ID")
        return Person(Subject.USER, text, self._keys.user_key(text), (text,))

    def device(self, device_id: object, origins: Collection[Origin] = ()) -> Person:
        """Answer the person with this device ID, with or without Mixpanel's `$device:`.

        In original and legacy mode its origin decides whether Mixpanel knows it with the prefix
        (reference/mixpanel.md section 3). Where nobody tells, it is named both ways, so that
        nothing survives. Where the origin is known, only as it was sent: a page may call its
        device by another user's ID, and only the prefix tells the two apart.

        Args:
            device_id: Who passes one without an origin vouches that it is no user's.
            origins: Where the ID comes from; none if nobody tells.

        Raises:
            UnreadablePeople: Mixpanel refuses the ID.
        """
        bare = device_id.removeprefix(DEVICE_PREFIX) if isinstance(device_id, str) else device_id
        text = _read(bare, "device ID")
        visitors = [Visitor(text, 0, origin=origin) for origin in origins or Origin]
        known_as = dict.fromkeys(visitor.anonymous_id(self._mode) for visitor in visitors)
        # One that is too long would spoil the whole request.
        distinct_ids = tuple(item for item in known_as if len(item.encode()) <= MAX_ID_BYTES)
        if not distinct_ids:
            raise UnreadablePeople(_REFUSED.format("device ID"))
        return Person(Subject.DEVICE, text, self._keys.device_key(text), distinct_ids)

    def cookie(self, value: str) -> Person:
        """Answer the device that an ID cookie names; not its user, as a device may be shared.

        Args:
            value: Of the cookie, with or without its name.

        Raises:
            UnreadablePeople: None of our keys signed it.
        """
        token = value.rpartition("=")[2].strip(' "').encode("utf-8", "replace")
        unsigned = self._signer.unsign(token)
        visitor = None if unsigned is None else Visitor.parse(unsigned.value)
        if visitor is None:
            raise UnreadablePeople("this is no ID cookie that MP_ASGI_SECRET_KEYS signed")
        return self.device(visitor.device_id, [visitor.origin])

    def parse(self, lines: Iterable[str]) -> list[Person]:
        """Read one person a line: an ID, or `user:ID`, `device:ID`, `cookie:VALUE`.

        A bare ID is a user's. Blank lines and lines that start with `#` are passed over, and
        repetitions count once.

        Raises:
            UnreadablePeople: Names the lines that cannot be used, or that there is none.
        """
        people: list[Person] = []
        problems = []
        for number, line in enumerate(lines, 1):
            text = line.strip()
            if not text or text.startswith("#"):
                continue
            try:
                people.append(self._parse_line(text))
            except UnreadablePeople as error:
                problems.append(f"line {number}: {error}")
        if problems:
            raise UnreadablePeople(_list_problems(problems))
        if not people:
            raise UnreadablePeople("There is no ID. Write one a line.")
        return unite(people)

    def _parse_line(self, text: str) -> Person:
        kind, _, rest = text.partition(":")
        match kind:
            case "user":
                return self.user(rest.strip())
            case "device" | "$device":
                return self.device(rest.strip())
            case "cookie":
                return self.cookie(rest)
            case _:
                return self.user(text)


def unite(people: Iterable[Person]) -> list[Person]:
    """Answer each person once, known to Mixpanel by all that the repetitions say."""
    united: dict[bytes, Person] = {}
    for person in people:
        before = united.get(person.key, person)
        distinct_ids = dict.fromkeys((*before.distinct_ids, *person.distinct_ids))
        united[person.key] = replace(person, distinct_ids=tuple(distinct_ids))
    return list(united.values())


def _read(value: object, what: str) -> str:
    try:
        return read_user_id(value)
    except InvalidEvent as error:
        raise UnreadablePeople(_REFUSED.format(what)) from error


def _list_problems(problems: Sequence[str]) -> str:
    more = len(problems) - MAX_PROBLEMS
    shown = [*problems[:MAX_PROBLEMS], *([f"and {more} more lines"] if more > 0 else ())]
    return "Nothing was done, as these lines cannot be used:\n  " + "\n  ".join(shown)
