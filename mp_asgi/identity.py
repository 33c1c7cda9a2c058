"""Say who a visitor is, in the two ID-merge modes, and hold it in the ID cookie.

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

_DEVICE_PREFIX: Final = "$device:"
_MINTED: Final = "m"
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


class Visitor:
    """Who made a request: a device ID and maybe a user ID. Immutable by habit.

    Attributes:
        device_id: UUID v4, minted here.
        issued: Seconds since the epoch of the mint; never changes.
        owner_mark: 8 bytes of SHA-256(device ID, user ID) from the first `identify` on.
        user_id: The user, while known.
        login_at: Seconds since the epoch of the last `identify` that the cookie keeps.
    """

    __slots__ = ("device_id", "issued", "login_at", "owner_mark", "user_id")

    def __init__(
        self,
        device_id: str,
        issued: int,
        owner_mark: bytes = b"",
        user_id: str | None = None,
        login_at: int = 0,
    ) -> None:
        self.device_id = device_id
        self.issued = issued
        self.owner_mark = owner_mark
        self.user_id = user_id
        self.login_at = login_at

    def is_owned_by(self, user_id: str) -> bool:
        """Whether this device may speak for the user: unmarked, or marked by them."""
        return not self.owner_mark or self.owner_mark == make_owner_mark(self.device_id, user_id)

    def with_user(self, user_id: str, login_at: int) -> "Visitor":
        """Answer this device with the user and their mark."""
        mark = make_owner_mark(self.device_id, user_id)
        return Visitor(self.device_id, self.issued, mark, user_id, login_at)

    def without_user(self) -> "Visitor":
        """Answer this device without its user; the mark stays as long as the device ID."""
        return Visitor(self.device_id, self.issued, self.owner_mark)

    def distinct_id(self, mode: IdentityMode) -> str:
        """Answer the `distinct_id` of the visitor's events (reference/mixpanel.md section 3)."""
        if self.user_id is not None:
            return self.user_id
        is_simplified = mode is IdentityMode.SIMPLIFIED
        return _DEVICE_PREFIX + self.device_id if is_simplified else self.device_id

    def render(self, *, keeps_user: bool) -> bytes:
        """Render the value to sign: `1.<device_id>.<issued>.<origin>.<mark>.<login_at>.<user>`.

        Args:
            keeps_user: Whether the raw user ID goes in; not if the app tells it every time.
        """
        mark = self.owner_mark.hex()
        if not keeps_user or self.user_id is None:
            return f"1.{self.device_id}.{self.issued}.{_MINTED}.{mark}.0.".encode("ascii")
        user = urlsafe_b64encode(self.user_id.encode("utf-8")).rstrip(b"=").decode("ascii")
        text = f"1.{self.device_id}.{self.issued}.{_MINTED}.{mark}.{self.login_at}.{user}"
        return text.encode("ascii")

    @classmethod
    def parse(cls, value: bytes) -> "Visitor | None":
        """Read an unsigned value; None if we did not write it."""
        try:
            form, device, issued, origin, mark, login_at, user = value.split(b".")
            if form != b"1" or origin != b"m":
                return None
            return cls(
                device.decode("ascii"),
                int(issued),
                bytes.fromhex(mark.decode("ascii")) if mark else b"",
                _decode_user(user) if user else None,
                int(login_at),
            )
        except ValueError:
            return None


def mint(random_bytes: Callable[[int], bytes], now: float) -> Visitor:
    """Answer a visitor with a new UUID v4, the only form that Original ID merge accepts."""
    digits = random_bytes(16).hex()
    # RFC 9562 section 5.4: version 4, variant 10.
    device_id = (
        f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-"
        f"{_VARIANTS[digits[16]]}{digits[17:20]}-{digits[20:]}"
    )
    return Visitor(device_id, int(now))


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
    if text.strip().lower() in FORBIDDEN_IDS or text.startswith(_DEVICE_PREFIX):
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


def _decode_user(text: bytes) -> str:
    return urlsafe_b64decode(text + b"=" * (-len(text) % 4)).decode("utf-8")
