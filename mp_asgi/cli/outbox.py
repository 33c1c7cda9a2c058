"""What the commands about the outbox share: which one it is, and how its contents are written."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final
from urllib.parse import urlsplit

from mp_asgi.delivery.outbox.base import DeadLetter, Outbox
from mp_asgi.delivery.outbox.factory import open_outbox
from mp_asgi.delivery.outbox.location import find_location
from mp_asgi.settings import Settings
from mp_asgi.settings.outbox_place import OutboxKind

from .people import Missing

LETTERS_AT_ONCE: Final = 100  # of up to 1 MB each
_UNITS: Final = ((86_400.0, "d"), (3_600.0, "h"), (60.0, "min"))


def read_settings() -> Settings:
    """Read the environment; who is switched off may look all the same.

    Raises:
        SettingsError: It cannot be used.
    """
    return replace(Settings.from_env(), enabled=True)


def require_enabled(settings: Settings) -> Settings:
    """Answer settings under which messages may be sent.

    Raises:
        Missing: They are switched off.
    """
    if not settings.enabled:
        raise Missing("MIXPANEL_ENABLED=0 switches sending off. Set it to 1, or unset it.")
    return settings


@contextmanager
def lend_outbox(settings: Settings, *, creates: bool = False) -> Iterator[Outbox]:
    """Lend the outbox that the web processes put into.

    Args:
        settings: As they have them.
        creates: Whether one that is not there is made.

    Raises:
        MixpanelASGIError: There is none, or it cannot be used.
    """
    try:
        outbox = open_outbox(settings, creates=creates)
    except ImportError as error:  # an extra is missing; the message names it
        raise Missing(str(error)) from error
    try:
        yield outbox
    finally:
        outbox.close()


def name_place(settings: Settings) -> str:
    """Answer where the outbox is, without credentials."""
    place = settings.outbox_place
    if place.kind is OutboxKind.REDIS:
        parts = urlsplit(place.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    return f"sqlite {find_location(settings).outbox}"


def read_letters(outbox: Outbox, after: int = 0) -> Iterator[DeadLetter]:
    """Answer the dead letters behind a number, oldest first, without holding all of them."""
    while letters := outbox.dead(after, LETTERS_AT_ONCE):
        yield from letters
        after = letters[-1].id


def render_time(at: float) -> str:
    """Answer a time as `2026-11-30T12:00:00Z`."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%SZ}"


def render_seconds(seconds: float) -> str:
    """Answer how long something lasts, in its largest unit: `3 s`, `42 min`, `5 h`, `2 d`."""
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def render_bytes(size: int) -> str:
    """Answer a size, in bytes, kB or MB."""
    if size < 1_000:  # noqa: PLR2004
        return f"{size} bytes"
    return f"{size / 1_000:,.1f} kB" if size < 1_000_000 else f"{size / 1_000_000:,.1f} MB"  # noqa: PLR2004


def count_messages(number: int) -> str:
    """Answer `1 message`, `1,200 messages`."""
    return f"{number:,} message{'' if number == 1 else 's'}"


def render_waiting(number: int) -> str:
    """Answer `nothing waits`, `1 message waits`, `1,200 messages wait`."""
    if not number:
        return "nothing waits"
    return f"{count_messages(number)} wait{'s' if number == 1 else ''}"
