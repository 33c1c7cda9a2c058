"""Read the answer behind interim ones (103 Early Hints); `http.client` skips only 100."""

from http.client import HTTPResponse


class FinalResponse(HTTPResponse):
    """A response that is never an interim one (RFC 9110 section 15.2)."""

    def begin(self) -> None:  # type: ignore[explicit-override]  # typing.override is 3.12
        """Read status and headers of the final answer; the transport limits how long."""
        super().begin()
        while self.status < 200:  # noqa: PLR2004  # the class of interim answers
            self.headers = None  # type: ignore[assignment]  # as before anything was read
            super().begin()
