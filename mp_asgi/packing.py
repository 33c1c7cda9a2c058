"""Pack hand-overs and stops into bytes, for a journal that outlives the process, and unpack them.

What is unpacked renders to the same messages. Of a request only what is rendered is kept: no
cookie, no credentials, no parameter and no address that may not leave.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from .consent.policy import Decision, Kind, Reason, State
from .context import ContextReader, RequestContext
from .context.campaign import CAMPAIGN_NAMES, CLICK_NAMES
from .context.url import MAX_CHARACTERS
from .core import Handover
from .events import Stop
from .head import HeadReader, RequestHead
from .identity import Origin, Visitor
from .properties import fit
from .settings import Settings
from .wire import Item, What

#: The headers that `context` reads; with them a request describes its events.
KEPT_HEADERS: Final = frozenset(
    {
        b"accept",
        b"forwarded",
        b"host",
        b"referer",
        b"sec-fetch-dest",
        b"sec-fetch-mode",
        b"user-agent",
        b"x-forwarded-for",
    }
)

_TELLING_NO_ADDRESS: Final = KEPT_HEADERS - {b"forwarded", b"x-forwarded-for"}
_RENDERED_PARAMETERS: Final = (*CAMPAIGN_NAMES, *CLICK_NAMES, "q", "p")  # of search engines

_IS_PRINTABLE: Final = re.compile("[!-~]+")

# Escapes nothing: two lone surrogates that were escaped would be read as one character.
_encode: Final = json.JSONEncoder(
    separators=(",", ":"), ensure_ascii=False, check_circular=False
).encode
_KINDS: Final[Mapping[str, Kind]] = {kind.value: kind for kind in Kind}
_REASONS: Final[Mapping[str, Reason]] = {reason.value: reason for reason in Reason}
_ORIGINS: Final[Mapping[str, Origin]] = {origin.value: origin for origin in Origin}
_WHATS: Final[Mapping[int, What]] = {int(what): what for what in What}


class Packer:
    """Turn what a request leaves behind into bytes and back.

    Args:
        heads: Reads the heads that are unpacked.
        contexts: Answers what may be told of an address.
        settings: Say what of a request is rendered.
    """

    __slots__ = ("_contexts", "_heads", "_is_rendered", "_policy")

    def __init__(self, heads: HeadReader, contexts: ContextReader, settings: Settings) -> None:
        self._heads = heads
        self._contexts = contexts
        self._policy = settings.ip
        names = "|".join(map(re.escape, {*settings.url_parameters, *_RENDERED_PARAMETERS}))
        self._is_rendered = re.compile(rf"(?:{names})(?:=|\Z)").match

    def pack(self, item: Handover | Stop) -> bytes:
        """Answer an item as UTF-8 JSON, in which a lone surrogate is three bytes.

        Raises:
            ValueError, TypeError: It holds what no JSON has.
        """
        if isinstance(item, Stop):
            packed: list[Any] = [[key.hex() for key in item.keys], item.at]
        else:
            packed = self._pack_handover(item)
        try:
            text = _encode(packed)
        except ValueError:  # an integer of over 4300 digits, which `fit` takes out anyway
            text = _encode(_without_huge_integers(packed))
        return text.encode("utf-8", "surrogatepass")

    def unpack(self, body: bytes) -> Handover | Stop:
        """Answer the item that was packed.

        Raises:
            ValueError, LookupError, TypeError: This version packs nothing like it.
        """
        packed = json.loads(body.decode("utf-8", "surrogatepass"))
        if len(packed) == 2:  # noqa: PLR2004  # a stop
            keys, at = packed
            return Stop(tuple(map(bytes.fromhex, keys)), at)
        decision, visitors, items, context, promised_at = packed
        known = [_unpack_visitor(visitor) for visitor in visitors]
        return Handover(
            _unpack_decision(decision),
            [_unpack_item(item, known) for item in items],
            None if context is None else self._unpack_context(context),
            promised_at,
        )

    def _unpack_context(self, packed: Sequence[Any]) -> RequestContext:
        started, scheme, client, headers, place, is_secure = packed
        pairs = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        head = RequestHead(
            self._heads, started, scheme, None if client is None else (client,), pairs
        )
        method, path, query, is_raw = place
        raw_path = path.encode("latin-1") if is_raw else path
        return RequestContext(head, (method, raw_path, query), is_secure)

    def _pack_handover(self, handover: Handover) -> list[Any]:
        # By identity: one entry holds what one visitor did.
        places: dict[int, int] = {}
        visitors: list[Any] = []
        items = []
        for what, name, insert_id, at, visitor, values, group, epoch in handover.items:
            place = places.get(id(visitor))
            if place is None:
                place = places[id(visitor)] = len(visitors)
                visitors.append(_pack_visitor(visitor))
            items.append((what, name, insert_id, at, place, values, group, epoch))
        decision, context = handover.decision, handover.context
        kind = decision.kind
        return [
            (decision.reason.value, decision.source, None if kind is None else kind.value),
            visitors,
            items,
            None
            if context is None
            else self._pack_context(context, "off" if kind is Kind.COOKIELESS else self._policy),
            handover.promised_at,
        ]

    def _pack_context(self, context: RequestContext, policy: str) -> tuple[Any, ...]:
        """Answer what is rendered of a request.

        Args:
            context: The request.
            policy: How far Mixpanel may place the visitor, as in the setting `ip`.
        """
        head = context.head
        address = None
        if policy == "full":  # which of them is the visitor's costs more to find than to keep
            address = str(head.client[0]) if head.client else None
        elif policy == "coarse":
            address = self._contexts.address(context) or None
        headers = [
            (name.decode("latin-1"), self._reduce_header(name, value))
            for name, value in head.kept(KEPT_HEADERS if policy == "full" else _TELLING_NO_ADDRESS)
        ]
        method, path, query = context.raw_place
        is_raw = isinstance(path, bytes)
        place = (
            method,
            path.decode("latin-1") if isinstance(path, bytes) else path,
            self._reduce(query.decode("latin-1") if isinstance(query, bytes) else query),
            is_raw,
        )
        return head.started, head.scheme, address, headers, place, context.is_secure

    def _reduce_header(self, name: bytes, value: bytes) -> str:
        """Leave out of a Referer what is not rendered, and all of it if it names no page."""
        text = value.decode("latin-1")
        if name != b"referer":
            return text
        if len(text) > MAX_CHARACTERS or not _IS_PRINTABLE.fullmatch(text):
            return ""
        page, mark, query = text.partition("#")[0].partition("?")
        return page + mark + self._reduce(query)

    def _reduce(self, query: str) -> str:
        """Answer a query without the parameters that are not rendered, also behind a second
        question mark, which a careless link has.
        """
        parts = query[:MAX_CHARACTERS].split("&")
        return "&".join(part for part in parts if any(map(self._is_rendered, part.split("?"))))


def _pack_visitor(visitor: Visitor) -> tuple[Any, ...]:
    return (
        visitor.device_id,
        visitor.issued,
        visitor.owner_mark.hex(),
        visitor.user_id,
        visitor.login_at,
        visitor.origin.value,
        visitor.first_touch,
    )


def _without_huge_integers(packed: list[Any]) -> list[Any]:
    decision, visitors, items, context, promised_at = packed
    # A first touch is JSON of ours, of any length.
    fitted = [
        item if item[0] is What.FIRST_TOUCH else (*item[:5], fit(item[5]), *item[6:])
        for item in items
    ]
    return [decision, visitors, fitted, context, promised_at]


def _unpack_decision(packed: Sequence[Any]) -> Decision:
    reason, source, kind = packed
    return Decision(State.GRANTED, _REASONS[reason], source, None if kind is None else _KINDS[kind])


def _unpack_visitor(packed: Sequence[Any]) -> Visitor:
    device_id, issued, owner_mark, user_id, login_at, origin, first_touch = packed
    return Visitor(
        device_id,
        issued,
        bytes.fromhex(owner_mark),
        user_id,
        login_at,
        origin=_ORIGINS[origin],
        first_touch=first_touch,
    )


def _unpack_item(packed: Sequence[Any], visitors: Sequence[Visitor]) -> Item:
    what, name, insert_id, at, place, values, group, epoch = packed
    pair = None if group is None else (group[0], group[1])
    return _WHATS[what], name, insert_id, at, visitors[place], values, pair, epoch
