"""Put our cookies into a response's headers without harming caches. Pure: headers in, headers out.

DESIGN section 4 (Caches): a cookie that carries an act always goes out and makes the response
private; any other stays off what a shared cache may keep. Header lists are copied.
"""

from collections.abc import Iterable, Sequence

Headers = list[tuple[bytes, bytes]]

_CDN_HEADERS = frozenset({b"cdn-cache-control", b"surrogate-control"})
_SHARED = frozenset({b"public", b"s-maxage", b"immutable"})
_PRIVATE = frozenset({b"private", b"no-store"})


class CookiePlan:
    """The Set-Cookie values that one response should carry.

    Attributes:
        acts: Cookies of a visitor's act (grant, deny, identify, reset).
        others: A minted ID, a deletion, a renewal: they can wait for the next response.
    """

    __slots__ = ("acts", "others")

    def __init__(self) -> None:
        self.acts: list[bytes] = []
        self.others: list[bytes] = []

    def __bool__(self) -> bool:
        return bool(self.acts or self.others)

    def write(self, status: int | None, headers: Iterable[tuple[bytes, bytes]]) -> Headers | None:
        """Answer the headers with the cookies, or None where they must stay off.

        Args:
            status: Of the response; None for an accepted websocket, which no cache keeps.
            headers: Names in any case; not changed.
        """
        copied = [(name, value) for name, value in headers]
        if not self.acts and is_shared(status, copied):
            return None
        if status is not None:
            copied = _merge_cache_control(copied, is_act=bool(self.acts))
            copied = _merge_vary(copied)
        copied.extend((b"set-cookie", cookie) for cookie in (*self.acts, *self.others))
        return copied


def is_shared(status: int | None, headers: Sequence[tuple[bytes, bytes]]) -> bool:
    """Whether a cache between us and the visitor may keep this response for others."""
    if status is not None and (status < 200 or status == 304):  # noqa: PLR2004  # RFC 9110 15
        return True
    for name, value in headers:
        lower = name.lower()
        if lower in _CDN_HEADERS:
            return True
        if lower == b"cache-control" and not _SHARED.isdisjoint(_directives(value)):
            return True
    return False


def _directives(value: bytes) -> set[bytes]:
    return {item.partition(b"=")[0].strip().lower() for item in value.split(b",")}


def _merge_cache_control(headers: Headers, *, is_act: bool) -> Headers:
    if is_act:
        kept = [item for item in headers if item[0].lower() != b"cache-control"]
        return [*kept, (b"cache-control", b"private, no-store")]
    values = [value for name, value in headers if name.lower() == b"cache-control"]
    if any(not _PRIVATE.isdisjoint(_directives(value)) for value in values):
        return headers
    # RFC 9111 7.3: Set-Cookie does not inhibit caching.
    return [*headers, (b"cache-control", b"private")]


def _merge_vary(headers: Headers) -> Headers:
    names = {
        item.strip().lower()
        for name, value in headers
        if name.lower() == b"vary"
        for item in value.split(b",")
    }
    if names & {b"cookie", b"*"}:
        return headers
    return [*headers, (b"vary", b"Cookie")]
