"""Read which campaign, click or search brought a visitor, as mixpanel-browser 2.83 reads it."""

import re
from collections.abc import Sequence
from typing import Final
from urllib.parse import unquote

from mp_asgi.properties import Properties, fit_text

from .url import Url

CAMPAIGN_NAMES: Final = (
    "utm_source",
    "utm_medium",
    "utm_campaign",
    "utm_content",
    "utm_term",
    "utm_id",
    "utm_source_platform",
    "utm_campaign_id",
    "utm_creative_format",
    "utm_marketing_tactic",
)
CLICK_NAMES: Final = (
    "dclid",
    "fbclid",
    "gclid",
    "ko_click_id",
    "li_fat_id",
    "msclkid",
    "sccid",
    "ttclid",
    "twclid",
    "wbraid",
)

# Anywhere in the referrer, as in mixpanel-browser: reports must not split.
_ENGINES: Final = {
    "google": re.compile("https?://.*google."),
    "bing": re.compile("https?://.*bing.com"),
    "yahoo": re.compile("https?://.*yahoo.com"),
    "duckduckgo": re.compile("https?://.*duckduckgo.com"),
}
_BROKEN_ESCAPE: Final = re.compile("%(?![0-9A-Fa-f]{2})")


def _compile(names: Sequence[str]) -> re.Pattern[str]:
    return re.compile(f"[?&]({'|'.join(names)})=")


_CAMPAIGN: Final = _compile(CAMPAIGN_NAMES)
_CLICKS: Final = _compile(CLICK_NAMES)
_KEYWORDS: Final = {"q": _compile(["q"]), "p": _compile(["p"])}


def read_campaign(page: Url) -> Properties:
    """Answer the `utm_*` properties in a page's query."""
    return _read_parameters(page, _CAMPAIGN)


def read_clicks(page: Url) -> Properties:
    """Answer the click IDs that advertisers put into a page's query."""
    return _read_parameters(page, _CLICKS)


def read_search(referrer: Url) -> Properties:
    """Answer `$search_engine` and, where it still tells, `mp_keyword`; empty if it is none."""
    text = referrer.render()
    engine = next((name for name, pattern in _ENGINES.items() if pattern.match(text)), "")
    if not engine:
        return {}
    parameter = "p" if engine == "yahoo" else "q"
    keyword = _read_parameters(referrer, _KEYWORDS[parameter]).get(parameter)
    return {"$search_engine": engine, **({"mp_keyword": keyword} if keyword else {})}


def _read_parameters(url: Url, pattern: re.Pattern[str]) -> Properties:
    """Answer the first value of each name; also behind a second question mark, which a careless
    link has.
    """
    search = url.render_search()
    raw: dict[str, str] = {}
    for found in pattern.finditer(search):
        if found[1] not in raw:
            raw[found[1]] = search[found.end() :].partition("&")[0]
    values = {name: fit_text(_decode(value)) for name, value in raw.items() if value}
    # Control characters and what turns the reading direction are no campaign of anybody's.
    return {name: value for name, value in values.items() if value.isprintable()}


def _decode(value: str) -> str:
    """Decode percent signs, if all of them can be, then plus signs: `%2B` ends as a space."""
    try:
        decoded = value if _BROKEN_ESCAPE.search(value) else unquote(value, errors="strict")
    except UnicodeDecodeError:
        decoded = value
    return decoded.replace("+", " ")
