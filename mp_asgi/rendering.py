"""Turn what a request handed over into what the outbox keeps: without bots, with where it happened.

Behind the request, because parsing a user agent or a URL costs more than all that an event pays
there.
"""

from collections.abc import Sequence
from typing import Any

from .consent.policy import Decision, Kind
from .core import Core, Handover
from .errors import InvalidEvent
from .events import Entry
from .wire import IDENTITY, PAGE_VIEW, Renderer, Surroundings


class HandoverRenderer:
    """Render handovers. Used by one thread at a time.

    Args:
        core: The rules; its sink gets to know what is left out.
    """

    __slots__ = ("_core", "_renderer")

    def __init__(self, core: Core) -> None:
        self._core = core
        self._renderer = Renderer(
            token=core.settings.token,
            mode=core.mode,
            keys=core.keys,
            before_send=core.settings.before_send,
            on_dropped=self._tell_dropped,
        )

    def render(self, handover: Handover) -> Sequence[Entry]:
        """Answer the entries; what cannot be sent is counted, and told once."""
        items, context = handover.items, handover.context
        if context is not None and self._core.contexts.is_bot(context):
            # Who somebody is, is said once and never again (RULES section 1, rule 5).
            items = [item for item in items if item[0] in IDENTITY]
            self._core.sink.count("dropped", len(handover.items) - len(items), "bot")
        return self._renderer.render(items, self._look_around(handover)) if items else ()

    def _look_around(self, handover: Handover) -> Surroundings:
        context, contexts = handover.context, self._core.contexts
        stamp = self._stamp(handover.decision)
        if context is None:
            return Surroundings(stamp, {}, {}, promised_at=handover.promised_at)
        has_page = any(item[1] == PAGE_VIEW for item in handover.items)
        is_cookieless = handover.decision.kind is Kind.COOKIELESS
        return Surroundings(
            stamp,
            contexts.event_properties(context, is_cookieless=is_cookieless),
            contexts.page_properties(context, is_cookieless=is_cookieless) if has_page else {},
            "" if is_cookieless else contexts.address(context),
        )

    def _stamp(self, decision: Decision) -> dict[str, Any]:
        """Answer the properties that tell under which consent the events left."""
        if not self._core.settings.consent_property or decision.kind is None:
            return {}
        version = self._core.policy.version.name
        notice = {"$mp_asgi_consent_version": version} if version else {}
        return {"$mp_asgi_consent": decision.kind.value, **notice}

    def _tell_dropped(self, error: InvalidEvent, name: str) -> None:
        sink, reason = self._core.sink, error.reason
        sink.count("dropped", 1, reason)
        if reason != "before_send":  # the app's own wish
            sink.warn(f"dropped-{reason}", f"dropped {name!r}: {reason}: {error}")
