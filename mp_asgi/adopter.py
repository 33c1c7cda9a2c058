"""Find whose ID a visitor goes on with who has none of ours (RULES section 1, rule 1).

Read from the raw Cookie header, only when an ID is needed: mixpanel-browser writes its cookie
anew with every event, so that it has no place among the cookies that are remembered.
"""

from collections.abc import Sequence

from .adoption import Adopted, read_app_cookie, read_browser_cookie, read_device_id
from .cookies import Scanner


class PageIds:
    """Read mixpanel-browser's ID cookie.

    Args:
        name: Of the cookie.
        mark_name: Of the one that tells an opt-out of ours.
    """

    __slots__ = ("_mark_scanner", "_scanner")

    def __init__(self, name: str, mark_name: str) -> None:
        self._scanner = Scanner([name])
        self._mark_scanner = Scanner([mark_name])

    def is_opted_out_by_us(self, header: bytes) -> bool:
        """Whether we opted the page out for what a browser's signal or a manager said."""
        return bool(self._mark_scanner.scan(header))

    def find(self, header: bytes) -> Sequence[Adopted | None]:
        """Answer what each copy says, None for one that says nothing; empty without a cookie."""
        return [read_browser_cookie(value) for _, value in self._scanner.scan(header)]

    def device_ids(self, header: bytes) -> Sequence[str]:
        """Answer what the page takes for its device ID, believed or not, by each copy."""
        return [read_device_id(value) for _, value in self._scanner.scan(header)]


class Adopter:
    """Choose the ID to go on with: the page's, which its events already have, before the app's.

    Args:
        page_ids: Reads the page's; None if it is not adopted.
        app_cookie: Name of the app's own cookie; empty if there is none.
    """

    __slots__ = ("_page_ids", "_scanner")

    def __init__(self, page_ids: PageIds | None, app_cookie: str) -> None:
        self._page_ids = page_ids
        self._scanner = Scanner([app_cookie]) if app_cookie else None

    def find(self, header: bytes) -> Adopted | None:
        """Answer the ID; None if there is none, or if copies differ: nobody knows which is true."""
        page = [] if self._page_ids is None else self._page_ids.find(header)
        found = _agree(page)
        if found is None and self._scanner is not None:
            found = _agree([read_app_cookie(value) for _, value in self._scanner.scan(header)])
        return found


def _agree(found: Sequence[Adopted | None]) -> Adopted | None:
    return found[0] if found and len(set(found)) == 1 else None
