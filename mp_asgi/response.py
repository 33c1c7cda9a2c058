"""Put our cookies into a response's headers without harming caches. Pure: headers in, headers out.

DESIGN section 4 (Caches): a cookie that carries an act always goes out and makes the response
private; any other stays off what a shared cache may keep. Header lists are copied.
"""

from collections.abc import Iterable

Headers = list[tuple[bytes, bytes]]

_CACHE_HEADERS = frozenset({b"cache-control", b"edge-control", b"x-accel-expires"})
# Targeted ones, RFC 9213 and before it: CDN-, Cloudflare-CDN-, Vercel-CDN-Cache-Control, ...
_CDN_END, _SURROGATE_END = b"-cache-control", b"surrogate-control"
_SHARED = frozenset({b"public", b"s-maxage", b"immutable"})
_PRIVATE = frozenset({b"private", b"no-store"})
_VARYING = frozenset({b"cookie", b"*"})


class CookiePlan:
    """The Set-Cookie values that one response should carry.

    Attributes:
        acts: Cookies of a visitor's act (grant, deny, identify, reset).
        others: A minted ID, a deletion, a renewal: they can wait for the next response.
        has_id: The ID cookie, as it is now, is among them.
        is_personal: The body names the visitor, so that no cache may keep it.
    """

    __slots__ = ("acts", "has_id", "is_personal", "others")

    def __init__(self) -> None:
        self.acts: list[bytes] = []
        self.others: list[bytes] = []
        self.has_id = False
        self.is_personal = False

    def __bool__(self) -> bool:
        return self.is_personal or bool(self.acts or self.others)

    def write(self, status: int | None, headers: Iterable[tuple[bytes, bytes]]) -> Headers | None:
        """Answer the headers with the cookies, or None where they must stay off.

        Args:
            status: Of the response; None for an accepted websocket, which no cache keeps.
            headers: Names in any case; not changed.
        """
        copied = [(name, value) for name, value in headers]
        said = _Said(copied)
        is_for_one = self.is_personal or bool(self.acts)
        if not is_for_one and (_is_kept_by_status(status) or said.is_shared):
            return None
        if status is not None:
            if is_for_one:
                # No other word to caches may remain: the targeted ones (RFC 9213 2.2) win.
                copied = [item for item in copied if not _is_for_caches(item[0].lower())]
                copied.append((b"cache-control", b"private, no-store"))
            elif not said.is_private:
                # RFC 9111 7.3: Set-Cookie does not inhibit caching.
                copied.append((b"cache-control", b"private"))
            if not said.varies:
                copied.append((b"vary", b"Cookie"))
        copied.extend([(b"set-cookie", cookie) for cookie in (*self.acts, *self.others)])
        return copied


class _Said:
    """What the app's headers say to caches.

    Attributes:
        is_shared: A cache between us and the visitor may keep the response for others.
        is_private: It may not, in so many words.
        varies: The response depends on the Cookie header, or on everything.
    """

    __slots__ = ("is_private", "is_shared", "varies")

    def __init__(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        self.is_shared = self.is_private = self.varies = False
        for name, value in headers:
            lower = name.lower()
            if lower == b"cache-control":
                directives = _words(value)
                self.is_shared = self.is_shared or not _SHARED.isdisjoint(directives)
                self.is_private = self.is_private or not _PRIVATE.isdisjoint(directives)
            elif lower == b"vary":
                self.varies = self.varies or not _VARYING.isdisjoint(_words(value))
            elif _is_for_caches(lower):
                self.is_shared = True


def _is_for_caches(lower: bytes) -> bool:
    # By slices, which compare with text, too: some apps send it where ASGI wants bytes.
    return (
        lower in _CACHE_HEADERS
        or lower[-len(_CDN_END) :] == _CDN_END
        or lower[-len(_SURROGATE_END) :] == _SURROGATE_END
    )


def _is_kept_by_status(status: int | None) -> bool:
    return status is not None and (status < 200 or status == 304)  # noqa: PLR2004  # RFC 9110 15


def _words(value: bytes) -> set[bytes]:
    return {item.partition(b"=")[0].strip().lower() for item in value.split(b",")}
