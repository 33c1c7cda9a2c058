"""Name what is delivered: messages, the entries that carry them, the stops that forget them, and
the acts of visitors that the ledger records.

The request tower makes these, the delivery tower carries them; neither imports the other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from hashlib import sha256
from typing import Final, NamedTuple

MAX_BATCH_MESSAGES = 2000  # messages a request, Mixpanel docs reference/import-events
MAX_BATCH_BYTES = 1_900_000  # uncompressed; stays below the 2 MiB that a live 413 names
MAX_MESSAGE_BYTES = 1_000_000  # "less than 1 MB", reference/import-events


class Endpoint(Enum):
    """Where a message goes. The value is the path on Mixpanel's ingestion host."""

    ALIASES = "/track"
    """`$create_alias` of the legacy ID merge, which `/import` does not take
    (identity.openapi.yaml)."""
    EVENTS = "/import"
    PEOPLE = "/engage"
    GROUPS = "/groups"


@dataclass(frozen=True, slots=True)
class Message:
    """One event or one profile update, frozen as the bytes of one JSON object.

    A retry repeats these bytes, so that event, time, distinct_id and `$insert_id` stay
    equal and Mixpanel counts once (docs reference/event-deduplication).

    Attributes:
        name: The event's name or the profile operation, for logs and dead letters.
        body: UTF-8 JSON of one object, below `MAX_MESSAGE_BYTES`.
        insert_id: The dedupe key; empty for profile updates, which have none.
    """

    name: str
    body: bytes
    insert_id: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """What one hand-over holds of one visitor for one endpoint: the unit of the outbox.

    Attributes:
        endpoint: Where the messages go.
        messages: At least one, in the order of the calls.
        device_key: Keyed hash of the visitor's device ID.
        user_key: Keyed hash of the visitor's user ID; empty without one.
        tracked_at: Seconds since the epoch of the earliest message, or of the promise that it was
            made under, if that is older. A stop mark at or after this time stops the entry.
        is_repeatable: False if a message would count twice when it is sent twice
            (`$add`, `$append`): it is not repeated after a lost answer.
        is_identity: True if it carries an identity event, which is never dropped when full.
    """

    endpoint: Endpoint
    messages: tuple[Message, ...]
    device_key: bytes
    user_key: bytes
    tracked_at: float
    is_repeatable: bool = True
    is_identity: bool = False

    @property
    def size_bytes(self) -> int:
        """Bytes that the messages take in a batch, separators included."""
        return sum(len(message.body) + 1 for message in self.messages)


@dataclass(frozen=True, slots=True)
class Stop:
    """A denial on its way to the outbox: forget what waits under these keys.

    Attributes:
        keys: Keyed hashes of device and user IDs, none of them empty.
        at: Seconds since the epoch; nothing tracked at or before it may leave.
    """

    keys: Sequence[bytes]
    at: float


class Notice(NamedTuple):
    """The text that a visitor saw when they chose.

    Attributes:
        language: BCP 47 tag, such as `en` or `pt-BR`; empty if unknown.
        text: All of it, as shown.
    """

    language: str
    text: str

    @property
    def digest(self) -> str:
        """SHA-256 of the text, in hexadecimal digits."""
        return sha256(self.text.encode("utf-8", "surrogatepass")).hexdigest()


class Asked(NamedTuple):
    """How a visitor came to choose.

    Attributes:
        notice: What they saw, if the app said so.
        source: Who asked them, such as `cmp:NAME`; empty for the app itself.
    """

    notice: Notice | None = None
    source: str = ""


UNTOLD: Final = Asked()


class ActState(Enum):
    """What an act makes of a subject's consent (reference/consent.md section 5)."""

    GRANTED = "granted"
    DENIED = "denied"
    LIFTED = "lifted"
    """An account's denial ends, and each device's own choice counts again (RULES section 2, 1:
    a grant goes to the account only with `MP_ASGI_CONSENT_SCOPE=account`)."""
    ERASED = "erased"
    """A tombstone: a denial that only a later explicit grant of that person ends."""


class Subject(Enum):
    """Whose consent it is."""

    USER = "user"
    DEVICE = "device"


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """What one visitor chose, for one subject, on its way to the ledger.

    Attributes:
        key: Keyed hash of the user ID or the device ID, as in the outbox; never empty.
        subject: Which of the two.
        state: What holds from now on.
        at: Seconds since the epoch.
        version: Name of the notice's version; empty without one.
        notice: What the visitor saw, if the app said so.
        basis: Legal basis of a grant, such as `consent`; empty for a denial.
        model: `opt-in`, `opt-out`, `deny` or `minor`: what held without a choice.
        region: As the policy saw it, such as `DE`; empty if unknown.
        source: `own`, `gpc-override`, `sec-gpc`, `dnt`, `header`, `app`, `cmp:NAME`, `operator`.
        evidence: Name of the cookie and SHA-256 of its raw value, `NAME:HEX`; empty without one.
        is_act: Whether somebody chose now. What is only read again ends no denial and no
            tombstone (RULES section 3).
    """

    key: bytes
    subject: Subject
    state: ActState
    at: float
    version: str = ""
    notice: Notice | None = None
    basis: str = ""
    model: str = ""
    region: str = ""
    source: str = "own"
    evidence: str = ""
    is_act: bool = True

    @property
    def is_denial(self) -> bool:
        """Whether nothing may leave after it."""
        return self.state in {ActState.DENIED, ActState.ERASED}

    def is_news(self, standing: "Standing | None") -> bool:
        """Whether it says something new of a subject that stands so.

        Repeating an answer records nothing (RULES section 2, rule 1); what was never denied
        cannot be lifted; and a browser's signal takes nothing from a grant that overrides it,
        which is why such a grant is noted before anything was denied. What a person says after
        their browser is news: only that holds when the signal ends.
        """
        if standing is None:
            return self.state is not ActState.LIFTED or self.source == OVERRIDE
        if self.is_denial:
            return self._is_new_denial(standing)
        # What is only read again ends nothing.
        return (self.is_act or standing.denied_at is None) and self._is_new_grant(standing)

    def _is_new_denial(self, standing: "Standing") -> bool:
        if self.source in SIGNALS:
            return not standing.is_denied and standing.source != OVERRIDE
        is_said = standing.is_denied and standing.source not in SIGNALS
        return self.state is ActState.ERASED or not is_said

    def _is_new_grant(self, standing: "Standing") -> bool:
        has_overridden = standing.source == OVERRIDE and not standing.is_denied
        if self.state is ActState.LIFTED:
            return standing.is_denied or (self.source == OVERRIDE and not has_overridden)
        is_old = self.at - standing.at >= RENEWAL_SECONDS
        if is_old or (self.state, self.version) != (standing.state, standing.version):
            return True
        return standing.source != self.source and not has_overridden

    def standing(self) -> "Standing":
        """Answer where the subject stands after it, until the ledger says it better."""
        if self.is_denial:
            return Standing(self.state, self.at, self.at, None, self.version, self.source)
        return Standing(self.state, self.at, None, self.at, self.version, self.source)


@dataclass(frozen=True, slots=True)
class Link:
    """A user and a device that met, on its way to the ledger, which keeps both encrypted: an
    erasure must name every device ID to Mixpanel.

    Attributes:
        user_id: Raw.
        device_id: Raw.
        user_key: Keyed hash of the user ID, as in the outbox.
        device_key: Keyed hash of the device ID.
        at: Seconds since the epoch.
        origins: Where the device ID comes from, as the letter in the ID cookie, or several where
            that changed: they tell how Mixpanel knows the device. Empty if nobody said.
    """

    user_id: str
    device_id: str
    user_key: bytes
    device_key: bytes
    at: float
    origins: str = ""


RENEWAL_SECONDS: Final = 30 * 86_400.0
"""When the same answer is worth recording again: a grant counts from its newest record."""

SIGNALS: Final = frozenset({"sec-gpc", "dnt"})
"""Sources of acts that a browser said, not a person."""
OVERRIDE: Final = "gpc-override"
"""Source of a grant that a person made although their browser objected."""


class Standing(NamedTuple):
    """Where a subject stands in the ledger now.

    Attributes:
        state: Of its newest act.
        at: Seconds since the epoch of the newest act.
        denied_at: Of its newest denial or erasure; None if there is none.
        since: Of the first act after that one; None if the newest act is a denial. Nothing
            tracked before it may leave.
        version: Of the newest act.
        source: Of the newest act.
    """

    state: ActState
    at: float
    denied_at: float | None = None
    since: float | None = None
    version: str = ""
    source: str = ""

    @property
    def is_denied(self) -> bool:
        """Whether nothing may leave now."""
        return self.state in {ActState.DENIED, ActState.ERASED}

    def allows(self, tracked_at: float) -> bool:
        """Whether something tracked at that time (seconds since the epoch) may leave now.

        A later grant does not lift a stop (RULES section 2, rule 3).
        """
        if self.is_denied:
            return False
        return self.denied_at is None or (
            tracked_at > self.denied_at and tracked_at >= (self.since or 0.0)
        )
