"""Read the ID that a visitor already has, from mixpanel-browser or from the app. Nothing is kept.

Every byte is the visitor's own: a login is never believed, and an ID that could be a user's is
refused, because a wrong merge in Mixpanel cannot be undone (RULES section 1, rule 1).
"""

import json
import re
from collections.abc import Mapping
from typing import Final, NamedTuple
from urllib.parse import unquote_to_bytes

from .identity import DEVICE_PREFIX, FORBIDDEN_IDS, MAX_ID_BYTES, Origin

MAX_COOKIE_BYTES: Final = 8_192  # browsers keep 4096; the largest seen had 3528

# What mixpanel-browser generated before 2.62: time and ticks, a random number below 1 without its
# point, the user agent's signed hash, the screen's area, time and ticks again (its utils.js).
_TIMED: Final = re.compile(
    r"[0-9a-f]{12,19}-0[0-9a-f]{0,20}--?[0-9a-f]{1,8}-[0-9a-f]{1,8}-[0-9a-f]{12,19}"
)


class Adopted(NamedTuple):
    """A device ID that the visitor came with.

    Attributes:
        device_id: 1 to 247 bytes of printable text that Mixpanel accepts, without `$device:`.
        origin: How Mixpanel knows it.
        user_id: Whom the page says that the device has met; empty if nobody. No login: only a
            reason to keep everybody else off the device.
    """

    device_id: str
    origin: Origin
    user_id: str = ""


def read_browser_cookie(value: bytes) -> Adopted | None:
    """Answer the device ID in a raw `mp_<token>_mixpanel` cookie; None without a sound one."""
    return read_browser_ids(_read_fields(value))


def read_device_id(value: bytes) -> str:
    """Answer what the page takes for its device ID, believed or not; empty if that is no text."""
    device_id = _read_fields(value).get("$device_id")
    return device_id if isinstance(device_id, str) else ""


def read_browser_ids(fields: Mapping[str, object]) -> Adopted | None:
    """Answer the device ID in what mixpanel-browser keeps; None without a sound one."""
    distinct_id, device_id = fields.get("distinct_id"), fields.get("$device_id")
    if device_id is None:
        adopted = _read_alone(distinct_id)
    elif isinstance(device_id, str):
        adopted = _read_pair(distinct_id, device_id, fields.get("$had_persisted_distinct_id"))
    else:
        adopted = None
    if adopted is None or not _is_sound(adopted.device_id) or _is_user(adopted.device_id, fields):
        return None
    user = fields.get("$user_id")
    return adopted._replace(user_id=str(user)) if isinstance(user, str | int) else adopted


def read_app_cookie(value: bytes) -> Adopted | None:
    """Answer the device ID in the raw cookie that `adopt_cookie` names; None without a sound one.

    It is printable ASCII, maybe percent-encoded or in double quotes. Any shape will do: the site
    vouches that nobody can guess another visitor's.
    """
    if len(value) > 1 and value[:1] == value[-1:] == b'"':
        value = value[1:-1]
    text = _unquote(value).decode("latin-1")
    adopted = _split(text)
    return adopted if text.isascii() and _is_sound(adopted.device_id) else None


def _read_fields(value: bytes) -> Mapping[str, object]:
    try:
        fields = json.loads(_unquote(value).decode("utf-8"))
    except (ValueError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}


def _read_alone(distinct_id: object) -> Adopted | None:
    """Read what versions before 2.23 keep: a generated ID, or after `identify` the user's.

    A UUID there is a user's: those versions generated none.
    """
    if not isinstance(distinct_id, str):
        return None
    adopted = _split(distinct_id)
    is_device = adopted.origin is Origin.BROWSER or _TIMED.fullmatch(distinct_id)
    return adopted if is_device else None


def _read_pair(distinct_id: object, device_id: str, persisted: object) -> Adopted | None:
    """Read what later versions keep; what goes to Mixpanel without a prefix must be generated."""
    if persisted is True:
        # `identify` made a device ID of what it found alone, maybe a user's.
        return Adopted(device_id, Origin.PERSISTED) if _TIMED.fullmatch(device_id) else None
    if distinct_id != device_id:
        # The prefix, or after `identify` the user, who hides whether there was one.
        return Adopted(device_id, Origin.BROWSER)
    # A UUID without the prefix is one that we handed out, or a user's: the library made none.
    return Adopted(device_id, Origin.LITERAL) if _TIMED.fullmatch(device_id) else None


def _unquote(value: bytes) -> bytes:
    """Decode percent signs; what is too long to be worth the time becomes empty."""
    return unquote_to_bytes(value) if len(value) <= MAX_COOKIE_BYTES else b""


def _split(text: str) -> Adopted:
    device_id = text.removeprefix(DEVICE_PREFIX)
    return Adopted(device_id, Origin.LITERAL if device_id == text else Origin.BROWSER)


def _is_sound(device_id: str) -> bool:
    # Lone surrogates are not printable, so the rest can be encoded.
    return (
        device_id.isprintable()
        and device_id.strip().lower() not in FORBIDDEN_IDS
        and not device_id.startswith(DEVICE_PREFIX)
        # With the prefix, too: Mixpanel could not be asked to erase a longer one.
        and len((DEVICE_PREFIX + device_id).encode("utf-8")) <= MAX_ID_BYTES
    )


def _is_user(device_id: str, fields: Mapping[str, object]) -> bool:
    users = (fields.get("$user_id"), fields.get("__alias"))
    return any(isinstance(user, str | int) and str(user) == device_id for user in users)
