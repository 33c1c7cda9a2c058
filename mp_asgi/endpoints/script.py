"""Serve one static script, which any cache may keep."""

import re
from collections.abc import Mapping
from functools import cached_property
from hashlib import sha256
from typing import Final

from .message import Headers, ReadHeader, Response

_COMMENT: Final = re.compile(r"(^|\s)// .*")
MAX_AGE_SECONDS = 3_600  # a changed text reaches every page within the hour


class Script:
    """A script of this package, read when it is first asked for.

    Args:
        name: Of the file next to this one.
        values: JavaScript by the marks in the file that it replaces.
    """

    def __init__(self, name: str, values: Mapping[str, str]) -> None:
        self._name = name
        self._values = values

    @cached_property
    def body(self) -> bytes:
        """The script as it is sent, UTF-8."""
        from importlib.resources import files  # noqa: PLC0415  # only an open mount needs it

        text = _shorten((files("mp_asgi.endpoints") / self._name).read_text("utf-8"))
        for mark, value in self._values.items():
            text = text.replace(mark, value)
        return text.encode()

    @cached_property
    def _headers(self) -> Headers:
        return [
            (b"etag", b'"%s"' % sha256(self.body).hexdigest().encode()),
            (b"cache-control", b"public, max-age=%d" % MAX_AGE_SECONDS),
            (b"x-content-type-options", b"nosniff"),
        ]

    def answer(self, header: ReadHeader) -> Response:
        """Answer the script, or that the browser's copy is still right."""
        if self._is_kept(header(b"if-none-match") or b""):
            return Response(304, self._headers, bytes)
        described = [
            (b"content-type", b"text/javascript; charset=utf-8"),
            (b"content-length", b"%d" % len(self.body)),
        ]
        return Response(200, [*described, *self._headers], lambda: self.body)

    def _is_kept(self, if_none_match: bytes) -> bool:
        # Compared weakly (RFC 9110 13.1.2): a proxy that compresses weakens our tag.
        tags = {item.strip().removeprefix(b"W/") for item in if_none_match.split(b",")}
        return not tags.isdisjoint({b"*", self._headers[0][1]})


def _shorten(text: str) -> str:
    """Leave out indentation, blank lines and comments: a fifth of what a browser would load."""
    lines = (_COMMENT.sub("", line).strip() for line in text.splitlines())
    return "\n".join(line for line in lines if line)
