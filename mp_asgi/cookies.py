"""Find our cookies in raw header bytes, and write them. No meaning, no signature here.

Never `http.cookies` nor Starlette's `cookie_parser`: their unquoting is quadratic
(CVE-2024-7592), and a 60 kB header held the loop for seconds.
"""

from collections.abc import Sequence
from dataclasses import dataclass

MAX_VALUE_BYTES = 4_096  # rfc6265bis 5.5: browsers drop a longer pair, so ours never is
MAX_SAME_NAME = 4  # more copies of one name are an attack, not a browser


class Scanner:
    """Answer the cookies of some names, in the order they came.

    Bytes in, bytes out; one linear pass; quotes have no meaning, as in browsers.
    """

    __slots__ = ("_names",)

    def __init__(self, names: Sequence[str]) -> None:
        self._names = {name.encode("ascii"): name for name in names}

    def scan(self, header: bytes) -> tuple[tuple[str, bytes], ...]:
        """Read name and value of each from a Cookie header."""
        names = self._names
        found = []
        for pair in header.replace(b"; ", b";").split(b";"):
            name, _, value = pair.partition(b"=")
            if name in names:
                found.append((names[name], value))
        return tuple(found)


@dataclass(frozen=True, slots=True)
class CookieStyle:
    """The attributes that our cookies of one deployment share.

    Attributes:
        name: Without prefix.
        domain: Empty for this host only.
        path: Starts with `/`.
        samesite: `Lax`, `Strict` or `None`.
        is_http_only: Whether scripts are kept from reading it.
    """

    name: str
    domain: str
    path: str
    samesite: str
    is_http_only: bool

    def wire_name(self, *, is_secure: bool) -> str:
        """Answer the name on the wire: `__Host-` before it wherever browsers allow it."""
        if is_secure and self.path == "/" and not self.domain:
            return f"__Host-{self.name}"
        return self.name

    def render(self, value: bytes, max_age: int, *, is_secure: bool) -> bytes:
        """Render the value of a Set-Cookie header. A `max_age` of 0 deletes the cookie."""
        return self._render_named(
            self.wire_name(is_secure=is_secure), value, max_age, is_secure=is_secure
        )

    def render_deletion(self, wire_name: str, *, is_secure: bool) -> bytes:
        """Render a Set-Cookie that deletes the cookie of exactly this name on the wire."""
        must_be_secure = is_secure or wire_name.startswith("__Host-")
        return self._render_named(wire_name, b"", 0, is_secure=must_be_secure)

    def _render_named(self, name: str, value: bytes, max_age: int, *, is_secure: bool) -> bytes:
        parts = [f"Max-Age={max_age}", f"Path={self.path}"]
        if self.domain:
            parts.append(f"Domain={self.domain}")
        if is_secure:
            parts.append("Secure")
        if self.is_http_only:
            parts.append("HttpOnly")
        # Browsers refuse SameSite=None without Secure; without it, say nothing.
        if is_secure or self.samesite != "None":
            parts.append(f"SameSite={self.samesite}")
        return name.encode("ascii") + b"=" + value + b"; " + "; ".join(parts).encode("ascii")
