"""Requests as a visitor's browser makes them."""

from mp_asgi.context.request import RequestContext
from mp_asgi.head import HeadReader
from mp_asgi.place import Place
from tests.support import NOW

READER = HeadReader("X-MP-Consent")


def make_context(*headers, method="GET", path="/", query="", is_secure=True, address="203.0.113.9"):
    """Answer what is known of a request with these headers."""
    head = READER.read_asgi(NOW, "https", (address, 1234), list(headers))
    return RequestContext(head, Place(method, path, query), is_secure)
