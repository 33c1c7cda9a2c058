"""Tell bots and crawlers by their user agent: what mixpanel-browser refuses to track, and with the
extra `ua` what the crawler-user-agents project knows.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

from .agent import MAX_AGENT_CHARACTERS, MAX_REMEMBERED

# mixpanel-browser 2.83, isBlockedUA
_REFUSED: Final = (
    "ahrefsbot",
    "ahrefssiteaudit",
    "amazonbot",
    "baiduspider",
    "bingbot",
    "bingpreview",
    "chrome-lighthouse",
    "facebookexternal",
    "petalbot",
    "pinterest",
    "screaming frog",
    "yahoo! slurp",
    "yandex",
    "adsbot-google",
    "apis-google",
    "duplexweb-google",
    "feedfetcher-google",
    "google favicon",
    "google web preview",
    "google-read-aloud",
    "googlebot",
    "googleweblight",
    "mediapartners-google",
    "storebot-google",
)


_LIBRARY: Final = "http-library"  # crawler-user-agents' tag
_TOGETHER: Final = 25  # one alternation of all compiles and searches slower


class BotFinder:
    """Find bots. Remembers the agents it met last; the crawlers' list loads at first use."""

    __slots__ = ("_is_bot",)

    def __init__(self) -> None:
        self._is_bot: Callable[[str], bool] | None = None

    def is_bot(self, user_agent: str) -> bool:
        """Whether no person is behind a user agent. An empty one is no bot: it says nothing."""
        if self._is_bot is None:
            self._is_bot = lru_cache(MAX_REMEMBERED)(_find_judge())
        return self._is_bot(user_agent[:MAX_AGENT_CHARACTERS])


def _find_judge() -> Callable[[str], bool]:
    try:
        # The package ships no py.typed.
        from crawleruseragents import (  # type: ignore[import-untyped]  # noqa: PLC0415
            CRAWLER_USER_AGENTS_DATA,
        )
    except ImportError:
        return _is_refused
    crawlers = _compile(CRAWLER_USER_AGENTS_DATA)

    def judge(user_agent: str) -> bool:
        return _is_refused(user_agent) or any(item.search(user_agent) for item in crawlers)

    return judge


def _compile(entries: Sequence[Mapping[str, Any]]) -> Sequence[re.Pattern[str]]:
    """Answer what matches the crawlers; not the libraries that apps speak HTTP with (okhttp, axios,
    curl): whoever asks a tracked app's server by them is its own app, or a test.
    """
    patterns = [item["pattern"] for item in entries if _LIBRARY not in item.get("tags", ())]
    starts = range(0, len(patterns), _TOGETHER)
    return [re.compile("|".join(patterns[at : at + _TOGETHER])) for at in starts]


def _is_refused(user_agent: str) -> bool:
    lower = user_agent.lower()
    return any(mark in lower for mark in _REFUSED)
