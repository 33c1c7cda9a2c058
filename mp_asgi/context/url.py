"""Read the URL of a page, and render as much of it as may leave.

What comes in is a visitor's: a host that is none is empty, a Referer that is no page is None.
"""

import re
from collections.abc import Collection
from typing import Final, NamedTuple
from urllib.parse import quote

from .request import RequestContext

MAX_CHARACTERS: Final = 8_192  # of path, query or Referer; what servers take in a header line

_HOST: Final = r"(?:\[[0-9a-f:.]{2,45}\]|[a-z0-9._\-]{1,253})(?::[0-9]{1,5})?"
_IS_HOST: Final = re.compile(_HOST)
_PAGE: Final = re.compile(
    rf"(https?)://(?:[^/?#@]*@)?({_HOST})(/[^?#]*)?(?:\?([^#]*))?(?:#.*)?", re.IGNORECASE
)
_PORT: Final = re.compile(r":[0-9]+\Z")
_DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}
# Whatever is printable, but what ends this part of a URL. A percent sign is there already.
_PATH_CHARACTERS: Final = "/!$%&'()*+,;=:@[]{}|\\^`~"
_QUERY_CHARACTERS: Final = _PATH_CHARACTERS + "?"


class Url(NamedTuple):
    """A page's address, without credentials and fragment.

    Attributes:
        scheme: `http` or `https`.
        host: In lower case, with its port unless that is the scheme's own; empty if unknown.
        path: Percent-encoded, never empty.
        query: Percent-encoded, without its question mark.
    """

    scheme: str
    host: str
    path: str
    query: str

    def render(self) -> str:
        """Answer the URL as text; empty if its host is unknown."""
        search = self.render_search()
        return f"{self.scheme}://{self.host}{self.path}{search}" if self.host else ""

    def render_search(self) -> str:
        """Answer the query with its question mark; empty without one."""
        return f"?{self.query}" if self.query else ""

    def render_hostname(self) -> str:
        """Answer the host without its port."""
        return _PORT.sub("", self.host)

    def keep(self, names: Collection[str]) -> "Url":
        """Answer the URL with these query parameters only, as they stand and in their order."""
        parts = self.query.split("&")
        kept = [part for part in parts if part.partition("=")[0] in names]
        return self._replace(query="&".join(kept))


def read_own_url(context: RequestContext) -> Url:
    """Answer the URL that a request asked for, as the visitor's browser shows it."""
    scheme = "https" if context.is_secure else "http"
    host = (context.head.header(b"host") or b"").decode("latin-1").lower()
    path, query = context.place.path[:MAX_CHARACTERS], context.place.query[:MAX_CHARACTERS]
    return Url(
        scheme,
        host.removesuffix(_DEFAULT_PORTS[scheme]) if _IS_HOST.fullmatch(host) else "",
        # `OPTIONS *` and absolute forms, which proxies send, name no path.
        _quote(path, _PATH_CHARACTERS) if path.startswith("/") else "/",
        _quote(query, _QUERY_CHARACTERS),
    )


def read_referrer(context: RequestContext) -> Url | None:
    """Answer the page that the Referer names; None if it names none."""
    text = (context.head.header(b"referer") or b"").decode("latin-1")
    # Browsers send neither spaces nor anything beyond ASCII.
    if len(text) > MAX_CHARACTERS or not re.fullmatch("[!-~]+", text):
        return None
    found = _PAGE.fullmatch(text)
    if found is None:
        return None
    scheme, host, path, query = found.groups(default="")
    host = host.lower().removesuffix(_DEFAULT_PORTS[scheme.lower()])
    return Url(scheme.lower(), host, path or "/", query)


def _quote(text: str, characters: str) -> str:
    # A server's text holds the bytes of the wire as latin-1.
    return quote(text.encode("latin-1", "replace"), characters)
