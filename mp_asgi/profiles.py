"""Offer the verbs that update profiles of people and of groups, in a request and in a job.

None of them raises into a request unless `strict` is set.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

from .core import Core, refuse
from .errors import InvalidEvent
from .identity import read_id_text

_NO_GROUPS: Final = frozenset(
    {"", "null", "none", "nil", "<nil>", "undefined", "[]", "{}", '""', "[object object]"}
)


class Updates(Protocol):
    """Where profile updates go."""

    def update_people(self, operation: str, values: object) -> bool:
        """Take an update of the user's profile. Return whether consent allows it."""
        ...

    def update_group(self, group: tuple[str, str], operation: str, values: object) -> bool:
        """Take an update of a group's profile. Return whether consent allows it."""
        ...


class Opener(Protocol):
    """Whoever has profiles to update: the tracker of a request or of a job."""

    @property
    def core(self) -> Core:
        """The rules of the process."""
        ...

    def open(self) -> Updates:
        """Answer where updates go."""
        ...


class People:
    """Updates of the visitor's profile (Mixpanel docs: reference/profile-set and following)."""

    __slots__ = ("_tracker",)

    def __init__(self, tracker: Opener) -> None:
        self._tracker = tracker

    def set(self, properties: Mapping[str, Any]) -> None:
        """Set properties."""
        self._update("$set", properties)

    def set_once(self, properties: Mapping[str, Any]) -> None:
        """Set properties that are not set yet."""
        self._update("$set_once", properties)

    def increment(self, properties: Mapping[str, float]) -> None:
        """Add numbers. Not repeated when Mixpanel's answer is lost."""
        self._update("$add", properties)

    def append(self, properties: Mapping[str, Any]) -> None:
        """Append one value to each list. Not repeated when Mixpanel's answer is lost."""
        self._update("$append", properties)

    def union(self, properties: Mapping[str, Sequence[Any]]) -> None:
        """Add values to lists where they are missing."""
        self._update("$union", properties)

    def remove(self, properties: Mapping[str, Any]) -> None:
        """Remove a value from each list."""
        self._update("$remove", properties)

    def unset(self, names: Sequence[str]) -> None:
        """Remove properties."""
        self._update("$unset", names)

    def delete(self) -> None:
        """Delete the profile; the events stay."""
        self._update("$delete", "")

    def _update(self, operation: str, values: object) -> None:
        try:
            check_values(operation, values)
            self._tracker.open().update_people(operation, values)
        except Exception as error:  # noqa: BLE001  # a request never fails for its analytics
            refuse(self._tracker.core, error, f"people {operation}")


class Group:
    """Updates of a group's profile (Mixpanel docs: reference/group-set-property and following)."""

    __slots__ = ("_group_id", "_key", "_tracker")

    def __init__(self, tracker: Opener, key: str, group_id: object) -> None:
        self._tracker = tracker
        self._key = key
        self._group_id = group_id

    def set(self, properties: Mapping[str, Any]) -> None:
        """Set properties."""
        self._update("$set", properties)

    def set_once(self, properties: Mapping[str, Any]) -> None:
        """Set properties that are not set yet."""
        self._update("$set_once", properties)

    def union(self, properties: Mapping[str, Sequence[Any]]) -> None:
        """Add values to lists where they are missing."""
        self._update("$union", properties)

    def remove(self, properties: Mapping[str, Any]) -> None:
        """Remove a value from each list."""
        self._update("$remove", properties)

    def unset(self, names: Sequence[str]) -> None:
        """Remove properties."""
        self._update("$unset", names)

    def delete(self) -> None:
        """Delete the group's profile."""
        self._update("$delete", "")

    def _update(self, operation: str, values: object) -> None:
        try:
            group = read_group_key(self._key), read_group_id(self._group_id)
            check_values(operation, values)
            self._tracker.open().update_group(group, operation, values)
        except Exception as error:  # noqa: BLE001  # a request never fails for its analytics
            refuse(self._tracker.core, error, f"group {operation}")


def check_values(operation: str, values: object) -> None:
    """Check what a profile operation is given.

    Raises:
        InvalidEvent: `invalid_update`.
    """
    if operation == "$delete":
        return
    if operation == "$unset":
        _check_names(values)
        return
    if not isinstance(values, Mapping):
        raise InvalidEvent("invalid_update", f"{operation} takes a mapping of properties.")
    for value in values.values():
        if operation == "$add" and not _is_addable(value):
            raise InvalidEvent("invalid_update", "$add takes finite numbers.")
        if operation == "$union" and not isinstance(value, (list, tuple, set, frozenset)):
            raise InvalidEvent("invalid_update", "$union takes lists.")


def _check_names(values: object) -> None:
    if isinstance(values, (str, bytes)) or not isinstance(values, Sequence):
        raise InvalidEvent("invalid_update", "$unset takes a list of names.")
    if not all(isinstance(name, str) for name in values):
        raise InvalidEvent("invalid_update", "$unset takes names that are text.")


def _is_addable(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool)


def read_groups(key: object, ids: object) -> dict[str, list[str]]:
    """Answer the groups that somebody belongs to, as a property.

    Raises:
        InvalidEvent: `invalid_update` or `forbidden_id`.
    """
    return {read_group_key(key): _read_group_ids(ids)}


def read_group_key(key: object) -> str:
    """Answer the key of a group.

    Raises:
        InvalidEvent: `invalid_update`.
    """
    if not isinstance(key, str) or not key.strip():
        raise InvalidEvent("invalid_update", "A group key is text, and not empty.")
    return str.__str__(key)


def _read_group_ids(ids: object) -> list[str]:
    if not isinstance(ids, (list, tuple, set, frozenset)):
        return [read_group_id(ids)]
    texts = [read_group_id(item) for item in ids]
    return texts if isinstance(ids, (list, tuple)) else sorted(texts)


def read_group_id(group_id: object) -> str:
    """Answer a group ID as it is sent. More is allowed than to a user ID: 0 and "NA" are groups."""
    text = read_id_text(group_id, "group ID")
    if text.strip().lower() in _NO_GROUPS:
        raise InvalidEvent("forbidden_id", "This group ID names no group.")
    return text
