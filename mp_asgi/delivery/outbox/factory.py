"""Choose the outbox that the settings name, and what takes its place where it cannot be used."""

from typing import TYPE_CHECKING

from mp_asgi.delivery.counters import Counters
from mp_asgi.delivery.log import logger
from mp_asgi.errors import OutboxUnavailable, SettingsError
from mp_asgi.settings import Settings
from mp_asgi.settings.outbox_place import OutboxKind

from .base import Outbox
from .location import Location, find_location, project_name
from .memory import MemoryOutbox
from .standby import Standby

if TYPE_CHECKING:
    from .redis import RedisOutbox


def check_outbox(settings: Settings) -> None:
    """Make sure that what the settings ask for can be had, before the first request; warn of what
    waits where they do not lead.

    Raises:
        SettingsError: The URL of Redis has an option that is none, or `durability` is `strict` and
            the files cannot be kept.
    """
    place = settings.outbox_place
    if place.kind is OutboxKind.REDIS:
        try:
            _open_redis(settings)
        except OutboxUnavailable as error:
            raise SettingsError([f"MP_ASGI_OUTBOX cannot be used. {error}"]) from error
    if settings.durability == "strict" and place.kind is not OutboxKind.MEMORY:
        _check_files(settings)
    from .strays import find_strays  # noqa: PLC0415  # brings SQLite, which memory does not need

    for stray in find_strays(settings):
        logger.warning("%s", stray.render())


def _check_files(settings: Settings) -> None:
    try:
        location = find_location(settings)
        location.prepare()
        outbox = _open_file(settings, location)
        outbox.stats()
        outbox.close()
    except OutboxUnavailable as error:
        raise SettingsError([f"MP_ASGI_DURABILITY is 'strict'. {error}"]) from error


def make_outbox(settings: Settings, counters: Counters) -> Outbox:
    """Answer the outbox of a serving process, after `check_outbox`. Never raises, and keeps nothing
    open.

    Where the files cannot be kept, events wait in memory, and one warning says why; in `strict` an
    error, because whoever checked could keep them (root, before the workers dropped its rights).

    Args:
        settings: What was configured; a switched-off assembly needs no storage.
        counters: Where failures of the storage are counted.
    """
    place = settings.outbox_place
    if place.kind is OutboxKind.MEMORY or not settings.enabled:
        return MemoryOutbox(settings)
    local = _make_local(settings, counters)
    if place.kind is OutboxKind.SQLITE:
        return local
    from .spooled import Spooled  # noqa: PLC0415  # not needed by every process

    return Spooled(_open_redis(settings), local)


def open_outbox(settings: Settings, *, creates: bool = True) -> Outbox:
    """Answer the storage itself, for an operator's command.

    Args:
        settings: What was configured.
        creates: Whether a file that is not there is made.

    Raises:
        OutboxUnavailable: There is none that another process could open.
    """
    place = settings.outbox_place
    if place.kind is OutboxKind.MEMORY:
        raise OutboxUnavailable(
            "MP_ASGI_OUTBOX is 'memory': what waits is in the app's processes, and nobody else "
            "sees it."
        )
    if place.kind is OutboxKind.REDIS:
        return _open_redis(settings)
    location = find_location(settings)
    if creates:
        location.prepare()
    elif not location.outbox.exists():
        raise OutboxUnavailable(
            f"There is no outbox {location.outbox} (from {location.variable}): nothing was "
            "tracked yet, or the app runs as another user, with another MIXPANEL_TOKEN or "
            "MIXPANEL_API_HOST, or with another MP_ASGI_STATE_DIRECTORY."
        )
    return _open_file(settings, location)


def _make_local(settings: Settings, counters: Counters) -> Outbox:
    """Answer what keeps events on this host."""
    reserve = MemoryOutbox(settings)
    try:
        location = find_location(settings)
        location.prepare()
    except OutboxUnavailable as error:
        text = str(error)
        tell = logger.error if settings.durability == "strict" else logger.warning
        tell(
            "%s Until it is mended and this process starts anew, events wait in memory, and what "
            "waits when it ends is lost. MP_ASGI_OUTBOX=memory says that this is meant.",
            text,
        )
        counters.count("outbox_failed")
        return reserve
    return Standby(_open_file(settings, location), reserve, counters)


def _open_redis(settings: Settings) -> "RedisOutbox":
    from .redis import RedisOutbox  # noqa: PLC0415  # an extra

    return RedisOutbox(settings.outbox_place.url, settings, project_name(settings))


def _open_file(settings: Settings, location: Location) -> Outbox:
    from .sqlite import SQLiteOutbox  # noqa: PLC0415  # not needed by every process

    is_spool = settings.outbox_place.kind is OutboxKind.REDIS
    return SQLiteOutbox(location.spool if is_spool else location.outbox, settings)
