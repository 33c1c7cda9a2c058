"""Say what is wrong with the host that batches go to. Asks nobody."""

import ipaddress
import re
from typing import Final
from urllib.parse import urlsplit

_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")


def find_host_problem(url: str) -> str:
    """Answer what to use instead of a host that no batch may go to; empty if it may."""
    try:
        parts = urlsplit(url)
        has_port = parts.port is None or parts.port > 0
    except ValueError:
        return "Use a host name, with a port if it needs one."
    if parts.scheme not in {"http", "https"} or not parts.hostname or not has_port:
        return "Use a host name, as in api-eu.mixpanel.com."
    if parts.path or parts.query or parts.fragment or parts.username or parts.password:
        return "Use only the host (and port): no path, query or credentials."
    if not re.fullmatch(r"[A-Za-z0-9.\-:]+", parts.hostname):
        return "Use a host name, as in api-eu.mixpanel.com."
    if parts.scheme == "http" and not _is_loopback(parts.hostname):
        return "Use https; plain http is only for a stand-in on this machine."
    return ""


def _is_loopback(host: str) -> bool:
    if host in _LOOPBACK:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
