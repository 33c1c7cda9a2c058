"""Tell visitors of one day apart without a cookie, where the policy allows it.

The construction of reference/consent.md section 1.3: a keyed hash of the site, the visitor's
network and their user agent, under a random key that lives in this process for one UTC day and
is then gone. No user ID, no address and no profile goes with it.
"""

import ipaddress
from collections.abc import Callable
from hashlib import blake2b
from typing import Final

from .head import RequestHead, TrustedProxies, read_address
from .identity import Visitor

_DAY_SECONDS: Final = 86_400
_SALT_BYTES: Final = 32
_SEPARATOR: Final = b"\x1f"
_NETWORK_BITS: Final = {4: 24, 6: 48}  # what of an address goes in, by IP version


class DailyVisitors:
    """Answer who a request's visitor is today.

    Args:
        site: Tells this site from others with the same visitors.
        proxies: Whose words about a visitor's address are believed.
        random_bytes: Where the salt of a day comes from.
    """

    __slots__ = ("_day", "_proxies", "_random_bytes", "_salt", "_site")

    def __init__(
        self, site: str, proxies: TrustedProxies, random_bytes: Callable[[int], bytes]
    ) -> None:
        self._site = site.encode("utf-8")
        self._proxies = proxies
        self._random_bytes = random_bytes
        self._day = -1
        self._salt = b""

    def visitor(self, head: RequestHead, now: float) -> Visitor:
        """Answer a visitor who is another one tomorrow. Under the lock of the process."""
        day = int(now // _DAY_SECONDS)
        if day != self._day:
            # Nothing keeps the old salt: yesterday's hashes can never be made again.
            self._day, self._salt = day, self._random_bytes(_SALT_BYTES)
        network = _network(self._proxies.find_client(head))
        agent = head.header(b"user-agent") or b""
        text = _SEPARATOR.join((self._site, network, agent))
        digest = blake2b(text, key=self._salt, digest_size=16).hexdigest()
        return Visitor(digest, day * _DAY_SECONDS)


def _network(address: str) -> bytes:
    parsed = read_address(address)
    if parsed is None:
        return b""
    network = ipaddress.ip_network((parsed, _NETWORK_BITS[parsed.version]), strict=False)
    return network.network_address.packed
