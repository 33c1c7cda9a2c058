"""Render a visitor's address as far as the site lets Mixpanel place them (setting `ip`)."""

import ipaddress
from typing import Final

from mp_asgi.head import Address, read_address

_COARSE_BITS: Final = {4: 24, 6: 48}
# Python's `is_global` changes with its version, and leaves out the documentation's addresses,
# which stand for visitors in an app's tests.
_NOWHERE: Final = tuple(
    ipaddress.IPv4Network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "224.0.0.0/3",
    )
)
_SOMEWHERE: Final = ipaddress.IPv6Network("2000::/3")  # RFC 4291: the global unicast addresses


def render_address(text: str, *, is_coarse: bool) -> str:
    """Answer an address, or that of its network (/24, /48); empty if it tells no place.

    Args:
        text: What is known of the visitor's address, whatever it is.
        is_coarse: Whether only the network may leave.
    """
    address = read_address(text)
    if address is None or not _is_somewhere(address):
        return ""
    if not is_coarse:
        return str(address)
    network = ipaddress.ip_network((address, _COARSE_BITS[address.version]), strict=False)
    return str(network.network_address)


def _is_somewhere(address: Address) -> bool:
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in _NOWHERE)
    # A scope is any text behind a percent sign.
    return address in _SOMEWHERE and address.scope_id is None
