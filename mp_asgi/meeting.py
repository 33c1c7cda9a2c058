"""Say what Mixpanel gets to know when a device meets its first user (RULES section 1, rule 5).

Simplified ID merge needs nothing: the first event with both IDs joins them.
"""

import json
from collections.abc import Sequence

from .context import RequestContext
from .core import Core
from .identity import IdentityMode, Visitor
from .wire import Item, What


def items_of_meeting(
    core: Core,
    visitor: Visitor,
    epoch: int,
    *,
    first_touch: str,
    is_minted: bool,
    is_new_user: bool,
) -> list[Item]:
    """Answer the items that go before everything else of the user.

    Args:
        core: The rules of the process.
        visitor: The device with its first user.
        epoch: The request's epoch of consent.
        first_touch: How the device was found, as its cookie says; empty if it does not.
        is_minted: Whether the device was minted in this request, which then tells how it was found.
        is_new_user: Whether the user signs up: only then is there an alias to create.
    """
    now = core.clock()
    items: list[Item] = []

    def add(what: What, name: str, insert_id: str, values: str = "") -> None:
        items.append((what, name, insert_id, now, visitor, values, None, epoch))

    if core.mode is IdentityMode.ORIGINAL:
        add(What.IDENTIFY, "$identify", core.random_bytes(16).hex())
    elif core.mode is IdentityMode.LEGACY and is_new_user:
        add(What.ALIAS, "$create_alias", core.random_bytes(16).hex())
    if first_touch or is_minted:
        add(What.FIRST_TOUCH, "$set_once", "", first_touch)
    return items


def late_alias(core: Core, visitor: Visitor, epoch: int) -> list[Item]:
    """Answer the alias of a user whom the device has just met, and who turns out to sign up."""
    if core.mode is not IdentityMode.LEGACY:
        return []
    insert_id = core.random_bytes(16).hex()
    return [(What.ALIAS, "$create_alias", insert_id, core.clock(), visitor, "", None, epoch)]


def read_first_touch(core: Core, context: RequestContext | None) -> str:
    """Answer how a device was found that was minted in this request, as JSON; empty if nothing
    tells.
    """
    if context is None or not core.settings.context:
        return ""
    touch = core.contexts.first_touch(context)
    return json.dumps(touch, separators=(",", ":")) if touch else ""


def fill_first_touch(
    items: Sequence[Item], core: Core, context: RequestContext | None
) -> list[Item]:
    """Let the request tell how its new device was found, where that is still open."""
    filled = []
    for item in items:
        what, name, insert_id, at, visitor, values, group, epoch = item
        if what is What.FIRST_TOUCH:
            values = values or read_first_touch(core, context)
            if not values:
                continue
        filled.append((what, name, insert_id, at, visitor, values, group, epoch))
    return filled
