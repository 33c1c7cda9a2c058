"""Say who a visitor is, in the three ID-merge modes, and hold it in the ID cookie.

A wrong merge in Mixpanel cannot be undone: every rule here is RULES section 1.
"""

import hashlib
import math
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from enum import Enum
from typing import Final
from uuid import UUID

from .errors import InvalidEvent

MAX_ID_BYTES: Final = 255
MAX_SKEW_SECONDS: Final = 60  # two web hosts are never exactly together
FORBIDDEN_IDS: Final = frozenset(
    # Mixpanel docs reference/import-events, "invalid IDs"; then what broken clients send.
    {
        "00000000-0000-0000-0000-000000000000",
        "anon",
        "anonymous",
        "nil",
        "none",
        "null",
        "n/a",
        "na",
        "undefined",
        "unknown",
        "<nil>",
        "0",
        "-1",
        "true",
        "false",
        "[]",
        "{}",
        "nan",
        "nobody",
        "guest",
        "id",
        "$device_id",
        "_",
        "lmy47d",
        "",
        '""',
        "[object object]",
    }
)

DEVICE_PREFIX: Final = "$device:"  # before an anonymous ID in a `distinct_id`
_VARIANTS: Final = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}


class Anonymous(Enum):
    """The type of `ANONYMOUS`."""

    ANONYMOUS = "anonymous"


ANONYMOUS: Final = Anonymous.ANONYMOUS
"""What `identify_from` answers for "certainly nobody"; None means "cannot tell"."""


class IdentityMode(Enum):
    """The ID merge of the Mixpanel project, which data cannot reveal."""

    SIMPLIFIED = "simplified"
    ORIGINAL = "original"
    LEGACY = "legacy"


class Origin(Enum):
    """Where a device ID comes from, which tells how Mixpanel knows it (RULES section 1, rule 1).

    The value is the letter in the ID cookie.
    """

    MINTED = "m"
    SUCCESSOR = "s"
    """Minted for a browser that had an ID before, which nothing may bring back: after a logout, a
    denial, an expiry."""
    BROWSER = "d"
    """Of mixpanel-browser, whose `distinct_id` was `$device:` and the ID."""
    LITERAL = "l"
    """Of the app, or of a mixpanel-browser whose `distinct_id` was the ID itself."""
    PERSISTED = "h"
    """As LITERAL, and mixpanel-browser says `$had_persisted_distinct_id` with it."""


_ORIGINS: Final = {origin.value: origin for origin in Origin}
_OURS: Final = frozenset({Origin.MINTED, Origin.SUCCESSOR})


class Visitor:
    """Who made a request: a device ID and maybe a user ID. Immutable by habit.

    Attributes:
        device_id: UUID v4 if minted here, any text if adopted.
        issued: Seconds since the epoch of the mint; never changes.
        owner_mark: 8 bytes of SHA-256(device ID, user ID) from the first `identify` on.
        user_id: The user, while known.
        login_at: Seconds since the epoch of the last `identify` that the cookie keeps.
        origin: Where the device ID comes from.
        first_touch: How this device was first found, as JSON; empty if unknown or sent.
    """

    __slots__ = (
        "device_id",
        "first_touch",
        "issued",
        "login_at",
        "origin",
        "owner_mark",
        "user_id",
    )

    def __init__(
        self,
        device_id: str,
        issued: int,
        owner_mark: bytes = b"",
        user_id: str | None = None,
        login_at: int = 0,
        *,
        origin: Origin = Origin.MINTED,
        first_touch: str = "",
    ) -> None:
        self.device_id = device_id
        self.issued = issued
        self.owner_mark = owner_mark
        self.user_id = user_id
        self.login_at = login_at
        self.origin = origin
        self.first_touch = first_touch

    def is_owned_by(self, user_id: str) -> bool:
        """Whether this device may speak for the user: unmarked, or marked by them."""
        return not self.owner_mark or self.owner_mark == make_owner_mark(self.device_id, user_id)

    def with_user(self, user_id: str, login_at: int) -> "Visitor":
        """Answer this device with the user and their mark. How it was found is told by then."""
        mark = make_owner_mark(self.device_id, user_id)
        return Visitor(self.device_id, self.issued, mark, user_id, login_at, origin=self.origin)

    def without_user(self) -> "Visitor":
        """Answer this device without its user; the mark stays as long as the device ID."""
        return Visitor(
            self.device_id,
            self.issued,
            self.owner_mark,
            origin=self.origin,
            first_touch=self.first_touch,
        )

    def with_first_touch(self, first_touch: str) -> "Visitor":
        """Answer this device, knowing how it was found; only before it met a user."""
        return Visitor(self.device_id, self.issued, origin=self.origin, first_touch=first_touch)

    def anonymous_id(self, mode: IdentityMode) -> str:
        """Answer the `distinct_id` of the device (reference/mixpanel.md section 3)."""
        is_prefixed = mode is IdentityMode.SIMPLIFIED or self.origin is Origin.BROWSER
        return DEVICE_PREFIX + self.device_id if is_prefixed else self.device_id

    def distinct_id(self, mode: IdentityMode) -> str:
        """Answer the `distinct_id` of the visitor's events."""
        return self.anonymous_id(mode) if self.user_id is None else self.user_id

    def render(self, *, keeps_user: bool) -> bytes:
        """Render the value to sign: `1.<device_id>.<issued>.<origin>.<mark>.<login_at>.<user>`.

        A device ID that is not ours, the user and the first touch (behind one more dot, if there is
        one) are in base64url.

        Args:
            keeps_user: Whether the raw user ID goes in; not if the app tells it every time.
        """
        user, login_at = "", 0
        if keeps_user and self.user_id is not None:
            user, login_at = _encode(self.user_id), self.login_at
        device = self.device_id
        if self.origin not in _OURS:
            device = _encode(device)
        touch = f".{_encode(self.first_touch)}" if self.first_touch else ""
        text = f"1.{device}.{self.issued}.{self.origin.value}.{self.owner_mark.hex()}"
        return f"{text}.{login_at}.{user}{touch}".encode("ascii")

    @classmethod
    def parse(cls, value: bytes) -> "Visitor | None":
        """Read an unsigned value; None if we did not write it."""
        try:
            form, device, issued, letter, mark, login_at, user, *touch = value.split(b".")
            origin = _ORIGINS[letter.decode("ascii")]
            if form != b"1" or len(touch) > 1:
                return None
            return cls(
                device.decode("ascii") if origin in _OURS else _decode(device),
                int(issued),
                bytes.fromhex(mark.decode("ascii")) if mark else b"",
                _decode(user) if user else None,
                int(login_at),
                origin=origin,
                first_touch=_decode(touch[0]) if touch else "",
            )
        except (ValueError, KeyError):
            return None


def mint(
    random_bytes: Callable[[int], bytes], now: float, origin: Origin = Origin.MINTED
) -> Visitor:
    """Answer a visitor with a new UUID v4, the only form that Original ID merge accepts."""
    digits = random_bytes(16).hex()
    # RFC 9562 section 5.4: version 4, variant 10.
    device_id = (
        f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-"
        f"{_VARIANTS[digits[16]]}{digits[17:20]}-{digits[20:]}"
    )
    return Visitor(device_id, int(now), origin=origin)


def make_owner_mark(device_id: str, user_id: str) -> bytes:
    """Answer the 8 bytes that tie a device ID to its first user without naming them."""
    text = f"{device_id}\0{user_id}".encode("utf-8", "surrogatepass")
    return hashlib.sha256(text).digest()[:8]


def read_user_id(value: object) -> str:
    """Answer a user ID as it is sent: text as given, numbers and UUIDs as text.

    Raises:
        InvalidEvent: `forbidden_id` for what Mixpanel refuses or would merge strangers by.
    """
    text = read_id_text(value, "user ID")
    if text.strip().lower() in FORBIDDEN_IDS or text.startswith(DEVICE_PREFIX):
        raise InvalidEvent("forbidden_id", "Mixpanel refuses this user ID, or it names nobody.")
    try:
        size = len(text.encode("utf-8"))
    except UnicodeEncodeError as error:
        raise InvalidEvent("forbidden_id", "A user ID must be valid Unicode.") from error
    if size > MAX_ID_BYTES:
        raise InvalidEvent("forbidden_id", f"A user ID has at most {MAX_ID_BYTES} bytes.")
    return text


def read_id_text(value: object, what: str) -> str:
    """Answer an ID as text: text as given, numbers and UUIDs printed.

    Args:
        value: What the app passed.
        what: What the ID is of, for the message: `user ID`, `group ID`.

    Raises:
        InvalidEvent: `forbidden_id` for anything else, and for numbers without a text.
    """
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, bool) or not isinstance(value, (int, float, UUID)):
        given = type(value).__name__
        raise InvalidEvent("forbidden_id", f"A {what} is text or a number, not {given}.")
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidEvent("forbidden_id", f"A {what} is text or a finite number.")
    try:
        return str(value)
    except ValueError as error:  # an integer over 4300 digits (CVE-2020-10735)
        raise InvalidEvent("forbidden_id", f"This {what} has too many digits.") from error


def _encode(text: str) -> str:
    return urlsafe_b64encode(text.encode("utf-8")).rstrip(b"=").decode("ascii")


def _decode(text: bytes) -> str:
    return urlsafe_b64decode(text + b"=" * (-len(text) % 4)).decode("utf-8")
