"""Carry who a visitor is, and on what they are tracked, from a request into a job.

Signed, not sealed: whoever has a token can read the user ID in it. Whether its grant still holds is
asked where it is used.
"""

import json
import math
from base64 import urlsafe_b64decode, urlsafe_b64encode
from contextlib import suppress
from typing import Final, NamedTuple

from .consent.policy import Kind
from .core import Core
from .errors import InvalidEvent
from .identity import Origin, Visitor
from .settings.parsing import parse_seconds
from .signing import CookieSigner

_SALT: Final = "mp_asgi.job.v1"


class JobToken(NamedTuple):
    """What a token carries.

    Attributes:
        visitor: Device ID with its origin, and the user, if known.
        kind: Of the grant in the request.
        version: Name of the notice that they agreed to; empty without one.
        made_at: Seconds since the epoch.
        until: Seconds since the epoch; after that it does not count.
    """

    visitor: Visitor
    kind: Kind
    version: str
    made_at: float
    until: float


def make_token(
    core: Core, visitor: Visitor, kind: Kind, granted_at: float | None, max_age: float | str
) -> str:
    """Answer a token of ASCII letters, digits, `-`, `_` and `.`, made now.

    Args:
        core: The rules of the process.
        visitor: Who it is.
        kind: Of their grant.
        granted_at: Seconds since the epoch of the grant; None if nobody can tell. A token does not
            outlive it.
        max_age: Seconds that the token counts, or text as settings have it.

    Raises:
        InvalidEvent: `invalid_max_age`.
    """
    seconds, now = _read_max_age(max_age), core.clock()
    granted_until = (now if granted_at is None else granted_at) + core.policy.max_age
    fields = {
        "device_id": visitor.device_id,
        "origin": visitor.origin.value,
        "user_id": visitor.user_id,
        "kind": kind.value,
        "version": core.policy.version.name,
        "made_at": now,
        "until": min(now + seconds, granted_until),
    }
    text = json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    return _signer(core).sign(urlsafe_b64encode(text).rstrip(b"=")).decode("ascii")


def read_token(core: Core, token: object) -> JobToken | None:
    """Answer what a token of this project carries; None if we did not make it so."""
    if not isinstance(token, str) or not token.isascii():
        return None
    unsigned = _signer(core).unsign(token.encode("ascii"))
    if unsigned is None:
        return None
    try:
        return _parse(unsigned.value)
    except (ValueError, LookupError, TypeError):
        return None  # of another release of ours


def _read_max_age(max_age: object) -> float:
    seconds = 0.0
    with suppress(ValueError, OverflowError):  # an integer may be beyond any float
        if isinstance(max_age, str):
            seconds = parse_seconds(max_age.strip())
        elif isinstance(max_age, (int, float)) and not isinstance(max_age, bool):
            seconds = float(max_age)
    if not 0 < seconds < math.inf:
        text = "max_age is a positive number of seconds, or text with a unit, as in 30m."
        raise InvalidEvent("invalid_max_age", text)
    return seconds


def _parse(text: bytes) -> JobToken:
    fields = json.loads(urlsafe_b64decode(text + b"=" * (-len(text) % 4)))
    origin = Origin(fields["origin"])
    return JobToken(
        Visitor(fields["device_id"], 0, user_id=fields["user_id"], origin=origin),
        Kind(fields["kind"]),
        fields["version"],
        fields["made_at"],
        fields["until"],
    )


def _signer(core: Core) -> CookieSigner:
    settings = core.settings
    # With the project in the salt, another one's tokens are nobody's here.
    salt = f"{_SALT}.{settings.token}"
    return CookieSigner(settings.secret_keys or ("switched off",), salt, core.clock)
