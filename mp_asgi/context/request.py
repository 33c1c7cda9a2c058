"""Hold what a request tells about where an event happened, until the worker renders it."""

from mp_asgi.head import RequestHead
from mp_asgi.place import Place, RawPlace, parse_place


class RequestContext:
    """One request, as far as its events are described by it.

    Args:
        head: Its headers and its client.
        place: Which page it asked for, as the door found it.
        is_secure: Whether the browser sees https.

    Attributes:
        raw_place: The page as the door found it.
    """

    __slots__ = ("head", "is_secure", "raw_place")

    def __init__(self, head: RequestHead, place: RawPlace, is_secure: bool) -> None:  # noqa: FBT001  # on the hot path
        self.head = head
        self.is_secure = is_secure
        self.raw_place = place

    @property
    def place(self) -> Place:
        """Which page it asked for."""
        return parse_place(self.raw_place)
