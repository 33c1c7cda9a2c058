"""Find cookies in raw header bytes, and write ours. No meaning, no signature here.

Never `http.cookies` nor Starlette's `cookie_parser`: their unquoting is quadratic
(CVE-2024-7592), and a 60 kB header held the loop for seconds.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

MAX_VALUE_BYTES = 4_096  # rfc6265bis 5.5: browsers drop a longer pair, so ours never is
MAX_SAME_NAME = 4  # more copies of one name are an attack, not a browser

_HOST_PREFIX = "__Host-"
_BLANKS = b" \t"  # no browser writes them before or behind a name; proxies have


class Scanner:
    """Answer the cookies of some names, in the order they came.

    Bytes in, bytes out; one linear pass; quotes have no meaning, as in browsers.

    Args:
        names: Cookie names; with a `*` at the end, all that begin so.
    """

    __slots__ = ("_names", "_prefixes")

    def __init__(self, names: Sequence[str]) -> None:
        encoded = {name.encode("latin-1"): name for name in names if not name.endswith("*")}
        # Pairs are separated by a semicolon, and all but the first begin with a space.
        self._names = encoded | {b" " + name: encoded[name] for name in encoded}
        self._prefixes = tuple(name[:-1].encode("latin-1") for name in names if name[-1:] == "*")

    def scan(self, header: bytes) -> tuple[tuple[str, bytes], ...]:
        """Read name and value of each from a Cookie header."""
        if self._prefixes:
            return self._scan_prefixes(header)
        names = self._names
        found = []
        for pair in header.split(b";"):
            name, _, value = pair.partition(b"=")
            if name in names:
                found.append((names[name], value))
            elif (bare := name.strip(_BLANKS)) in names:
                found.append((names[bare], value))
        return tuple(found)

    def _scan_prefixes(self, header: bytes) -> tuple[tuple[str, bytes], ...]:
        names, prefixes = self._names, self._prefixes
        found = []
        for pair in header.split(b";"):
            name, _, value = pair.partition(b"=")
            if name in names:
                found.append((names[name], value))
            elif (bare := name.strip(_BLANKS)) in names:
                found.append((names[bare], value))
            elif bare.startswith(prefixes):
                found.append((bare.decode("latin-1"), value))
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
    _ends: tuple[bytes, bytes] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # What follows Max-Age, by is_secure: a minting response should not join words.
        ends = (self._render_end(is_secure=False), self._render_end(is_secure=True))
        object.__setattr__(self, "_ends", ends)

    def wire_name(self, *, is_secure: bool) -> str:
        """Answer the name on the wire: `__Host-` before it wherever browsers allow it."""
        if is_secure and self.path == "/" and not self.domain:
            return _HOST_PREFIX + self.name
        return self.name

    def render(self, value: bytes, max_age: int, *, is_secure: bool) -> bytes:
        """Render the value of a Set-Cookie header. A `max_age` of 0 deletes the cookie."""
        name = self.wire_name(is_secure=is_secure).encode("ascii")
        return b"%b=%b; Max-Age=%d%b" % (name, value, max_age, self._ends[is_secure])

    def render_deletion(self, wire_name: str, *, is_secure: bool) -> bytes:
        """Render a Set-Cookie that deletes the cookie of exactly this name on the wire."""
        if wire_name.startswith(_HOST_PREFIX) and wire_name != self.wire_name(is_secure=is_secure):
            # rfc6265bis 4.1.3.2 holds for a deletion too: Secure, Path=/ and no Domain.
            style = replace(self, domain="", path="/")
            return style.render_deletion(wire_name, is_secure=True)
        return b"%b=; Max-Age=0%b" % (wire_name.encode("ascii"), self._ends[is_secure])

    def _render_end(self, *, is_secure: bool) -> bytes:
        parts = ["", f"Path={self.path}"]
        if self.domain:
            parts.append(f"Domain={self.domain}")
        if is_secure:
            parts.append("Secure")
        if self.is_http_only:
            parts.append("HttpOnly")
        # Browsers refuse SameSite=None without Secure; without it, say nothing.
        if is_secure or self.samesite != "None":
            parts.append(f"SameSite={self.samesite}")
        return "; ".join(parts).encode("ascii")
