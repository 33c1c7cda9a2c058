"""Turn the text of variables into values. Each raises ValueError with the remedy as its message."""

import importlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

_UNITS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_LONGEST: Final = 10**9 * 86_400  # beyond what `parse_seconds` reads
_WORDS: Final = {"1": True, "true": True, "yes": True, "on": True}
_WORDS_OFF: Final = {"0": False, "false": False, "no": False, "off": False}
_READY_NAMES: Final = {
    "starlette": "mp_asgi.integrations.starlette.find_user",
    "django": "mp_asgi.integrations.django.find_user",
    "flask-login": "mp_asgi.integrations.flask_login.find_user",
}
_ENDPOINT_NAME: Final = re.compile(r"[A-Za-z0-9_.~\-]*[A-Za-z0-9_~\-]")
_OTHER_ENDPOINTS: Final = ("consent", "identity", "banner.js", "bridge.js")
_VERSION_NAME: Final = re.compile(r"[A-Za-z0-9_\-]{1,32}")


def parse_bool(text: str) -> bool:
    """Read 1, true, yes, on or their opposites."""
    word = text.lower()
    if word in _WORDS:
        return _WORDS[word]
    if word in _WORDS_OFF:
        return _WORDS_OFF[word]
    raise ValueError("Use 1 or 0.")


def parse_list(text: str) -> tuple[str, ...]:
    """Read a comma list; the items keep their order. Without text there is none."""
    return tuple(item.strip() for item in text.split(",")) if text else ()


def parse_codes(text: str) -> tuple[str, ...]:
    """Read a comma list of codes in any case."""
    return parse_list(text.upper())


def parse_notice(text: str) -> Mapping[str, Mapping[str, str]]:
    """Read the JSON file of this name."""
    try:
        words = Path(text).read_text("utf-8")
        parsed: Mapping[str, Mapping[str, str]] = json.loads(words, object_pairs_hook=_unique)
    except (OSError, ValueError) as error:
        raise ValueError(f"Name a readable JSON file ({error}).") from error
    return parsed


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name is there twice")
    return found


FIRST_PARTY_KINDS: Final = ("track", "engage", "groups", "record", "flags", "settings", "decide")


def parse_names(items: Sequence[str]) -> Mapping[str, str]:
    """Answer the name of each first-party endpoint, read from items such as `track=t`."""
    given: dict[str, str] = {}
    for item in items:
        kind, _, name = item.partition("=")
        if kind not in FIRST_PARTY_KINDS or not _ENDPOINT_NAME.fullmatch(name):
            known = ", ".join(FIRST_PARTY_KINDS)
            raise ValueError(f"Write KIND=NAME, as in track=t. The kinds are {known}.")
        if kind in given:
            raise ValueError(f"{kind} is named twice. Name it once.")
        given[kind] = name
    names = {kind: given.get(kind, kind) for kind in FIRST_PARTY_KINDS}
    taken = [*names.values(), *_OTHER_ENDPOINTS]
    if len(set(taken)) < len(taken):
        raise ValueError("Two endpoints have one name. Choose another.")
    return names


def parse_int(text: str) -> int:
    """Read a whole number."""
    if not re.fullmatch(r"[0-9]{1,12}", text):
        raise ValueError("Use a whole number.")
    return int(text)


def parse_seconds(text: str) -> float:
    """Read a duration: seconds, or a number with s, m, h or d behind it."""
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)([smhd]?)", text)
    if match is None:
        raise ValueError("Use seconds (5, 0.5) or a number with its unit (30m, 12h, 180d).")
    return float(match[1]) * _UNITS[match[2] or "s"]


def render_seconds(seconds: float) -> str:
    """Write a duration as `parse_seconds` reads it, in the largest unit that is a whole number."""
    if not abs(seconds) < _LONGEST:  # no number, or none that anybody means
        return repr(seconds)
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds // size:.0f}{unit}"
    return f"{seconds:.12g}s"


def parse_path(text: str) -> str:
    """Answer an absolute path, once for all: a daemon may change its working directory later.

    A `~` is the user's home, as in `MP_ASGI_LEDGER`.
    """
    try:
        return str(Path(text).expanduser().absolute()) if text else ""
    except (RuntimeError, OSError) as error:
        raise ValueError(f"Use an absolute path ({error}).") from error


def parse_callable(text: str) -> Callable[..., Any]:
    """Import a callable by its dotted name, `package.module.name` or `package.module:name`."""
    module_name, _, attribute = text.replace(":", ".").rpartition(".")
    if not module_name:
        raise ValueError("Use the dotted name of a callable, as in shop.consent.policy.")
    try:
        found = getattr(importlib.import_module(module_name), attribute)
    except Exception as error:  # the module's own code may raise anything
        why = f"{type(error).__name__}: {error}"
        raise ValueError(f"Use the dotted name of a callable ({why}).") from error
    if not callable(found):
        raise ValueError(  # noqa: TRY004  # the variable's text is wrong, not its type
            "Use the dotted name of a callable; this one is not."
        )
    return found  # type: ignore[no-any-return]  # any callable; its answer is checked when it comes


def parse_identify_from(text: str) -> Callable[..., Any]:
    """Import the callable of a framework's ready name, or any by its dotted name."""
    if text not in _READY_NAMES and not re.search("[.:]", text):
        raise ValueError(
            "Use starlette, django or flask-login, or the dotted name of a callable, as in "
            "shop.auth.user_of."
        )
    return parse_callable(_READY_NAMES.get(text, text))


@dataclass(frozen=True, slots=True)
class PolicyVersion:
    """The notice that visitors agree to, and the time from which it counts.

    Attributes:
        name: Written into the consent cookie and on every event; empty without a version.
        since: Seconds since the epoch; a grant older than this is unknown. 0 without a time.
    """

    name: str = ""
    since: float = 0.0

    @classmethod
    def parse(cls, text: str) -> "PolicyVersion":
        """Read `NAME` or `NAME@TIME`, the time in ISO 8601 (UTC unless it says otherwise)."""
        name, separator, time_text = text.partition("@")
        if text and not _VERSION_NAME.fullmatch(name):
            raise ValueError("Use up to 32 letters, digits, - or _, as in 2026-11@2026-11-01.")
        if not separator:
            return cls(name)
        try:
            since = datetime.fromisoformat(time_text)
        except ValueError as error:
            raise ValueError("Write the time behind @ in ISO 8601, as in 2026-11-01.") from error
        return cls(name, (since if since.tzinfo else since.replace(tzinfo=UTC)).timestamp())
