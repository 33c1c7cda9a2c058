"""Offer the official client with an `alias` that goes the way of everything else.

The official one sends it to Mixpanel's host in the US, whatever its consumer, and waits for the
answer (reference/mixpanel.md section 1.4, D11). Importing this imports the client: half a second.
"""

import logging

from .consumer import Consumer

_httpx = logging.getLogger("httpx")
_level = _httpx.level
import mixpanel as official  # noqa: E402  # it silences httpx, which is not its own (D14)

_httpx.setLevel(_level)


class Mixpanel(official.Mixpanel):  # type: ignore[misc]  # it is not typed (mixpanel-python#120)
    """The official `Mixpanel`, made with `consumer=mp_asgi.Consumer(analytics)`."""

    # typing.override needs Python 3.12.
    def alias(self, alias_id: object, original: object, meta: object = None) -> None:
        """Make `alias_id` the alias of `original`, under consent and without waiting.

        Only the legacy ID merge knows aliases; in the others it is refused and counted.

        Args:
            alias_id: The user.
            original: The device ID that they had before.
            meta: Not kept.

        Raises:
            TypeError: The consumer is not ours.
        """
        del meta
        if not isinstance(self._consumer, Consumer):
            raise TypeError("alias() needs Mixpanel(token, consumer=mp_asgi.Consumer(analytics)).")
        self._consumer.create_alias(alias_id, original)
