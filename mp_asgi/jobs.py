"""Track for somebody outside of their request: in a job, a command, a webhook.

Each call is handed over at once, if its mandate holds.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from .consent.choice import StoredConsent
from .consent.policy import Reason
from .core import Core, Handover, refuse
from .errors import InvalidEvent
from .identity import DEVICE_PREFIX, Origin, Visitor, read_id_text, read_user_id
from .leaving import tell_links
from .mandate import (
    NO_CONSENT,
    LookUp,
    Mandate,
    read_consent,
    refuse_all,
    trust_app,
    trust_token,
)
from .profiles import Group, People, read_groups
from .properties import Properties, freeze
from .tokens import read_token
from .wire import Item, What, check_name, freeze_event

if TYPE_CHECKING:
    from .analytics import Analytics

# What a deployment, not a visitor, does wrong.
_WARNINGS: Final = {
    "token_invalid": "has every process the same MP_ASGI_SECRET_KEYS and MIXPANEL_TOKEN?",
    "token_expired": "it ran after the token's max_age, the grant's end or MP_ASGI_OUTBOX_MAX_AGE, "
    "or MP_ASGI_CONSENT_VERSION has changed since",
}

NOBODY: Final = Visitor("", 0)
"""Who is spoken for where a token names nobody, or a message only a group."""


class JobTracker:
    """Track what somebody does outside of their request.

    Made by `Analytics.visitor` and `tracker_from_token`. The verbs are the tracker's, but for those
    that need a browser: there is nobody to identify, to reset or to ask. None raises unless
    `strict` is set.

    A job that runs twice tracks twice.
    """

    __slots__ = ("_job", "core")

    def __init__(self, core: Core, job: "Job") -> None:
        self.core = core
        self._job = job

    def track(self, event_name: str, properties: Mapping[str, Any] | None = None) -> str | None:
        """Track an event.

        Args:
            event_name: At most 255 bytes.
            properties: At most 243, copied at once; what has no JSON form refuses the event.

        Returns:
            The event's `$insert_id`, or None where consent or Mixpanel's rules refuse it.
        """
        try:
            return self._job.track(event_name, properties)
        except Exception as error:  # noqa: BLE001  # a job never fails for its analytics
            refuse(self.core, error, "track", event_name)
            return None

    def register(self, properties: Mapping[str, Any]) -> None:
        """Put properties on every later event of this job; an event's own win."""
        try:
            self._job.register(properties)
        except Exception as error:  # noqa: BLE001  # a job never fails for its analytics
            refuse(self.core, error, "register")

    @property
    def device_id(self) -> str | None:
        """The device, if it was named."""
        return self._job.visitor.device_id or None

    @property
    def user_id(self) -> str | None:
        """The user, if they were named."""
        return self._job.visitor.user_id

    @property
    def distinct_id(self) -> str | None:
        """Mixpanel's ID of the events' user; None where a token named nobody."""
        visitor = self._job.visitor
        return None if visitor is NOBODY else visitor.distinct_id(self.core.mode)

    @property
    def people(self) -> People:
        """Update the user's profile."""
        return People(self)

    def group(self, key: str, group_id: object) -> Group:
        """Update the profile of a group.

        Args:
            key: The group key of the project, for example `company`.
            group_id: Which one: text, a number or a UUID.
        """
        return Group(self, key, group_id)

    def set_group(self, key: str, ids: object) -> None:
        """Count this job's later events, and the user's profile, to groups.

        Args:
            key: The group key of the project.
            ids: One group ID or a list of them: text, numbers or UUIDs.
        """
        try:
            groups = read_groups(key, ids)
        except Exception as error:  # noqa: BLE001  # a job never fails for its analytics
            refuse(self.core, error, "set_group")
            return
        self.register(groups)
        self.people.set(groups)

    def open(self) -> "Job":
        """Answer what is behind the verbs, which raises."""
        return self._job


def track_for(
    core: Core,
    *,
    user_id: object,
    device_id: object,
    consent: bool | StoredConsent | None,
    look_up: LookUp | None = None,
) -> JobTracker:
    """Answer the tracker of somebody whom the app names; where that is wrong, it refuses all.

    Args:
        core: The rules of the process.
        user_id: As for `identify`; None without one.
        device_id: With or without `$device:`; None without one.
        consent: What the app knows; None asks the ledger.
        look_up: Asks the ledger for what this process does not remember; None where nobody may
            wait for it.
    """
    try:
        visitor, app = read_person(user_id, device_id), read_consent(consent)
    except InvalidEvent as error:
        if core.settings.strict:
            raise
        core.sink.warn(f"{error.reason} visitor", f"refused a visitor ({error.reason}): {error}")
        return JobTracker(core, Job(core, NOBODY, refuse_all(core, error.reason)))
    return JobTracker(core, Job(core, visitor, trust_app(core, visitor, app, look_up)))


def tracker_from_token(token: str, analytics: "Analytics") -> JobTracker:
    """Answer the tracker of the visitor for whom `Tracker.to_token` made a token.

    It tracks on their grant of then. What is expired, forged or of another project, or was
    withdrawn since, drops and counts; the first two are also logged, once each; nothing raises.

    Args:
        token: Empty where there was no grant.
        analytics: Of this process, with the same keys and project.
    """
    core = analytics.core
    carried = read_token(core, token)
    if carried is None:
        return JobTracker(core, Job(core, NOBODY, refuse_all(core, _find_why_unread(core, token))))
    return JobTracker(core, Job(core, carried.visitor, trust_token(core, carried)))


def _find_why_unread(core: Core, token: str) -> str:
    if not token:
        return NO_CONSENT
    return "token_invalid" if core.settings.enabled else Reason.DISABLED.value


class Job:
    """What a job sends of one person. May be used by several threads.

    Attributes:
        visitor: Who it is.
    """

    __slots__ = ("_core", "_mandate", "_registered", "visitor")

    def __init__(self, core: Core, visitor: Visitor, mandate: Mandate) -> None:
        self._core = core
        self._mandate = mandate
        self._registered: Properties = {}
        self.visitor = visitor

    def track(self, name: str, properties: Mapping[str, Any] | None) -> str | None:
        """Send an event. Return its insert ID, or None where consent forbids it.

        Raises:
            InvalidEvent: The event cannot be sent.
        """
        insert_id = self._core.random_bytes(16).hex()
        given = {**self._registered, **(properties or {})}
        is_kept = self.take_event(name, given, at=self._core.clock(), insert_id=insert_id)
        return insert_id if is_kept else None

    def take_event(
        self,
        name: str,
        properties: Mapping[str, Any],
        *,
        at: float,
        insert_id: str,
        what: What = What.EVENT,
    ) -> bool:
        """Send an event that somebody else made. Return whether consent allows it.

        Args:
            name: As for `track`.
            properties: Names that only we write are left out when it is rendered.
            at: Seconds since the epoch, not in the future.
            insert_id: Minted if empty.
            what: `EVENT`.

        Raises:
            InvalidEvent: The event cannot be sent.
        """
        check_name(name, self._core.known_names)
        frozen = freeze_event(properties)
        insert_id = insert_id or self._core.random_bytes(16).hex()
        return self._send((what, name, insert_id, at, self.visitor, frozen, None, 0))

    def update_people(self, operation: str, values: object) -> bool:
        """Send a profile update. Return whether consent allows it.

        Raises:
            InvalidEvent: The values cannot be sent, or no user is named: Mixpanel carries nothing
                over from a device.
        """
        if self.visitor.user_id is None:
            raise InvalidEvent("anonymous_profile", "Profiles are users'; name the user_id.")
        frozen, now = freeze({"": values})[""], self._core.clock()
        return self._send((What.PEOPLE, operation, "", now, self.visitor, frozen, None, 0))

    def update_group(self, group: tuple[str, str], operation: str, values: object) -> bool:
        """Send a group update. Return whether consent allows it.

        Raises:
            InvalidEvent: The values cannot be sent.
        """
        frozen, now = freeze({"": values})[""], self._core.clock()
        return self._send((What.GROUP, operation, "", now, self.visitor, frozen, group, 0))

    def create_alias(self) -> bool:
        """Make the user the device's alias (legacy ID merge). Return whether consent allows it.

        Raises:
            InvalidEvent: `forbidden_id` if one of the two is not named.
        """
        if self.visitor.user_id is None or not self.visitor.device_id:
            raise InvalidEvent("forbidden_id", "An alias joins a user_id and a device_id.")
        insert_id, now = self._core.random_bytes(16).hex(), self._core.clock()
        return self._send((What.ALIAS, "$create_alias", insert_id, now, self.visitor, "", None, 0))

    def register(self, properties: Mapping[str, Any]) -> None:
        """Put properties on every later event of this job.

        Raises:
            InvalidEvent: A value cannot be sent.
        """
        self._registered = {**self._registered, **freeze(properties)}

    def _send(self, item: Item) -> bool:
        """Hand over, unless something forbids it. Return whether it is."""
        core, mandate = self._core, self._mandate
        with core.lock:  # whoever denies holds it, too: theirs comes before this or after it
            why_not = mandate.find_refusal(core, self.visitor)
            if not why_not:
                core.sink.accept(Handover(mandate.decision, [item], None, mandate.at))
                if core.accounts is not None:
                    tell_links(core, core.accounts, [item])
        if why_not:
            core.sink.count("refused", 1, why_not)
        if why_not in _WARNINGS:
            core.sink.warn(why_not, f"refused a job ({why_not}): {_WARNINGS[why_not]}")
        return not why_not


def read_person(user_id: object, device_id: object) -> Visitor:
    """Answer whom an app names, with IDs as they are sent.

    Raises:
        InvalidEvent: `forbidden_id` for what `identify` refuses, and if both are None.
    """
    if user_id is None and device_id is None:
        raise InvalidEvent("forbidden_id", "Name a user_id, a device_id, or both.")
    user = None if user_id is None else read_user_id(user_id)
    if device_id is None:
        return Visitor("", 0, user_id=user)
    text = read_id_text(device_id, "device ID")
    origin = Origin.BROWSER if text.startswith(DEVICE_PREFIX) else Origin.LITERAL
    device = read_user_id(text.removeprefix(DEVICE_PREFIX))
    return Visitor(device, 0, user_id=user, origin=origin)
