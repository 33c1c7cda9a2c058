"""Mixpanel server-side tracking for any ASGI or WSGI app.

Nothing leaves without consent; nothing consented is lost or doubled; the request pays almost
nothing. See the README for the first ten lines.
"""

from typing import TYPE_CHECKING

from ._version import __version__ as __version__
from .analytics import Analytics as Analytics
from .asgi import MixpanelMiddleware as MixpanelMiddleware
from .consent.choice import StoredConsent as StoredConsent
from .consumer import Consumer as Consumer
from .delivery.counters import Stats as Stats
from .delivery.outbox.base import DeadLetter as DeadLetter
from .errors import MixpanelASGIError as MixpanelASGIError
from .errors import OutboxUnavailable as OutboxUnavailable
from .errors import SettingsError as SettingsError
from .events import Notice as Notice
from .health import Health as Health
from .identity import ANONYMOUS as ANONYMOUS
from .jobs import tracker_from_token as tracker_from_token
from .readers import CookieEquals as CookieEquals
from .settings import Settings as Settings
from .tracker import Tracker as Tracker
from .tracker import get_tracker as get_tracker
from .wsgi import MixpanelWSGIMiddleware as MixpanelWSGIMiddleware

if TYPE_CHECKING:
    from .integrations.fastapi import TrackerDep as TrackerDep
    from .integrations.flask import FlaskMixpanel as FlaskMixpanel
    from .integrations.flask import current_tracker as current_tracker

# Without the names of `_IN_EXTRAS`: a star import must not need a framework.
__all__ = [
    "ANONYMOUS",
    "Analytics",
    "Consumer",
    "CookieEquals",
    "DeadLetter",
    "Health",
    "MixpanelASGIError",
    "MixpanelMiddleware",
    "MixpanelWSGIMiddleware",
    "Notice",
    "OutboxUnavailable",
    "Settings",
    "SettingsError",
    "Stats",
    "StoredConsent",
    "Tracker",
    "__version__",
    "get_tracker",
    "tracker_from_token",
]

_IN_EXTRAS = {
    "FlaskMixpanel": "flask",
    "TrackerDep": "fastapi",
    "current_tracker": "flask",
}


def __getattr__(name: str) -> object:
    """Import what needs an optional framework only when it is asked for."""
    if name not in _IN_EXTRAS:
        raise AttributeError(f"module 'mp_asgi' has no attribute {name!r}")
    import importlib  # noqa: PLC0415  # rarely needed

    module = importlib.import_module(f"mp_asgi.integrations.{_IN_EXTRAS[name]}")
    return getattr(module, name)
