"""Rebuild who is who from the events that arrived. Pure: events in order in, people out.

Rules: reference/mixpanel.md section 3, and Mixpanel's documentation of its three ID merges. Which
event is taken at all is decided in `judge.py`.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from .judge import IDENTITY_EVENTS, Mode

DEVICE_PREFIX = "$device:"
MAX_IDS = 500  # of one person in Original

SAME_IDS = "errSameIDs"
NO_GUID = "errAnonDistinctIdNonGUIDForm"
ASSIGNED_ALREADY = "errAnonDistinctIdAssignedAlready"
MANY_IDS = "errManyIDs"
ALIAS_EXISTS = "errAliasAlreadyExists"

# The documentation asks for a UUID v4. The rest is inferred from what mixpanel-browser sends, which
# must have worked: its prefix, and the five hexadecimal groups of its IDs before 2.83.
_ANONYMOUS = re.compile(
    r"(?:\$device:)?"
    r"(?:[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
    r"|[0-9a-f]{12,}-(?:[0-9a-f]+-){3}[0-9a-f]{12,})",
    re.IGNORECASE,
)

Message = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Failure:
    """An event whose IDs were not joined.

    Attributes:
        event: As it was sent.
        field: The property in which Mixpanel says so.
        reason: What it says there.
    """

    event: Message
    field: str
    reason: str


@dataclass(frozen=True, slots=True)
class Cluster:
    """One person in Mixpanel's eyes.

    Attributes:
        canonical_id: The ID that stands for all. In Original Mixpanel chooses one of them, and not
            always this one.
        distinct_ids: All of them, first seen first. In Legacy one ID may be in two clusters: what
            came before its alias stays where it was.
        events: As they were sent, without `$identify`, `$create_alias` and `$merge`.
        failures: Of this person's events.
    """

    canonical_id: str
    distinct_ids: tuple[str, ...]
    events: tuple[Message, ...]
    failures: tuple[Failure, ...]


class Register:
    """Who is who, once the last of these events has had its effect.

    Args:
        events: Events that Mixpanel took, in the order of arrival.
        mode: The project's ID merge.
    """

    def __init__(self, events: Iterable[Message], mode: Mode) -> None:
        self._merge = _MERGES[mode]()
        filed = map(self._file, events)
        self._filed = [one for one in filed if one.owners]

    def failures(self) -> list[Failure]:
        """Answer the events whose IDs were not joined."""
        return [one.failure for one in self._filed if one.failure]

    def clusters(self) -> list[Cluster]:
        """Answer everybody, in the order in which they were first seen."""
        ids: dict[str, dict[str, None]] = defaultdict(dict)
        filed: dict[str, list[_Filed]] = defaultdict(list)
        for one in self._filed:
            for distinct_id, owner in one.owners.items():
                ids[self._settle(owner)][distinct_id] = None
            filed[self._settle(one.owner)].append(one)
        return [
            Cluster(
                canonical_id=person,
                distinct_ids=tuple(names),
                events=tuple(one.event for one in filed[person] if not _is_identity(one.event)),
                failures=tuple(one.failure for one in filed[person] if one.failure),
            )
            for person, names in ids.items()
        ]

    def who_is(self, who: str | Message) -> str:
        """Answer the canonical ID of a `distinct_id`, or of an event's person.

        Raises:
            LookupError: It did not arrive, or it is nobody's, so that two of those never pass for
                one person.
        """
        if isinstance(who, str):
            if any(who in one.owners for one in self._filed):
                return self._merge.find(who)
            raise LookupError(f"No event names {who!r}. In Simplified a device is '$device:<id>'.")
        for one in self._filed:
            if one.event == who:
                return self._settle(one.owner)
        raise LookupError(f"This event did not arrive, or it is nobody's: {who}.")

    def _file(self, event: Message) -> "_Filed":
        ids = tuple(filter(None, self._merge.read(event["event"], event["properties"])))
        # A single ID says nothing about another one.
        reason = self._merge.join(event["event"], *ids) if len(ids) == 2 else ""  # noqa: PLR2004
        failure = Failure(event, self._merge.failure_field, reason) if reason else None
        known = ids[:1] if failure else ids
        return _Filed(event, {name: self._merge.find(name) for name in known}, failure)

    def _settle(self, owner: str) -> str:
        return self._merge.find(owner) if self._merge.is_retroactive else owner


@dataclass(frozen=True, slots=True)
class _Filed:
    """An event, and whose the IDs that it names were when it came: first those of its person."""

    event: Message
    owners: Mapping[str, str]
    failure: Failure | None

    @property
    def owner(self) -> str:
        return next(iter(self.owners.values()))


class _Merge(Protocol):
    """How a project joins IDs.

    Attributes:
        failure_field: The property that says why IDs were not joined.
        is_retroactive: Whether joining moves the events that came before.
    """

    failure_field: str
    is_retroactive: bool

    def read(self, name: str, properties: Message) -> tuple[str, ...]:
        """Answer at most two IDs that an event names, first its person's; "" names nobody."""
        ...

    def join(self, name: str, first: str, second: str) -> str:
        """Learn that an event named two IDs. Return why they are not joined, empty if they are."""
        ...

    def find(self, distinct_id: str) -> str:
        """Answer whose an ID is by now."""
        ...


class _Simplified:
    """A device is its first user's; two users are never one. No event is special."""

    failure_field = "$identity_failure_reason"
    is_retroactive = True

    def __init__(self) -> None:
        self._users: dict[str, str] = {}

    def read(self, name: str, properties: Message) -> tuple[str, ...]:
        if name in IDENTITY_EVENTS:
            return ()
        device, user = _text(properties, "$device_id"), _text(properties, "$user_id")
        if not device and not user:
            return (_text(properties, "distinct_id"),)
        return user, DEVICE_PREFIX + device if device else ""

    def join(self, name: str, first: str, second: str) -> str:
        owner = self._users.setdefault(second, first)
        return "" if owner == first else ASSIGNED_ALREADY

    def find(self, distinct_id: str) -> str:
        return self._users.get(distinct_id, distinct_id)


class _Original:
    """`$identify` joins a device to a user; `$create_alias` and `$merge` join any two IDs."""

    failure_field = "$failure_reason"
    is_retroactive = True

    def __init__(self) -> None:
        self._members: dict[str, tuple[str, ...]] = {}
        self._identified: set[str] = set()
        self._aliases: dict[str, str] = {}

    def read(self, name: str, properties: Message) -> tuple[str, ...]:
        match name:
            case "$identify":
                user = _text(properties, "$identified_id", "distinct_id")
                return user, _text(properties, "$anon_id", "$anon_distinct_id")
            case "$create_alias":
                return _text(properties, "distinct_id"), _text(properties, "alias")
            case "$merge":
                return tuple(map(_as_text, properties["$distinct_ids"]))
            case _:
                return (_text(properties, "distinct_id"),)

    def join(self, name: str, first: str, second: str) -> str:
        if reason := self._refuse(name, first, second):
            return reason
        if name == "$identify":
            self._identified.add(first)
        if name == "$create_alias":
            self._aliases[second] = first
        mine, theirs = self._cluster(first), self._cluster(second)
        if mine != theirs:
            self._members.update(dict.fromkeys(mine + theirs, mine + theirs))
        return ""

    def find(self, distinct_id: str) -> str:
        members = self._cluster(distinct_id)
        return next((name for name in members if name in self._identified), members[0])

    def _refuse(self, name: str, first: str, second: str) -> str:
        mine, theirs = self._cluster(first), self._cluster(second)
        if name == "$identify":
            if first == second:
                return SAME_IDS
            if not _ANONYMOUS.fullmatch(second):
                return NO_GUID
            if mine != theirs and not self._identified.isdisjoint(theirs):
                return ASSIGNED_ALREADY
        if name == "$create_alias" and self._aliases.get(second, first) != first:
            return ALIAS_EXISTS
        is_full = mine != theirs and len(mine) + len(theirs) > MAX_IDS
        return MANY_IDS if is_full else ""

    def _cluster(self, distinct_id: str) -> tuple[str, ...]:
        return self._members.get(distinct_id, (distinct_id,))


class _Legacy:
    """An alias points to an ID from its `$create_alias` on; what came before stays apart."""

    failure_field = "$failure_reason"
    is_retroactive = False

    def __init__(self) -> None:
        self._aliases: dict[str, str] = {}

    def read(self, name: str, properties: Message) -> tuple[str, ...]:
        if name == "$create_alias":
            return _text(properties, "distinct_id"), _text(properties, "alias")
        return () if name in IDENTITY_EVENTS else (_text(properties, "distinct_id"),)

    def join(self, name: str, first: str, second: str) -> str:
        if self._aliases.get(second, first) != first:
            return ALIAS_EXISTS
        if self.find(first) != second:  # a ring of aliases would have no end
            self._aliases[second] = first
        return ""

    def find(self, distinct_id: str) -> str:
        while distinct_id in self._aliases:
            distinct_id = self._aliases[distinct_id]
        return distinct_id


_MERGES: Mapping[Mode, type[_Merge]] = {
    "simplified": _Simplified,
    "original": _Original,
    "legacy": _Legacy,
}


def _is_identity(event: Message) -> bool:
    return event["event"] in IDENTITY_EVENTS


def _text(properties: Message, *names: str) -> str:
    """Answer the first of these properties that names somebody; mixpanel-browser sends numbers."""
    return next((text for name in names if (text := _as_text(properties.get(name)))), "")


def _as_text(value: Any) -> str:
    return str(value) if isinstance(value, (str, int, float)) else ""
