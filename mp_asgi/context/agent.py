"""Read a user agent into the properties that mixpanel-browser computes in the page.

ua-parser knows products and systems; the rules here say what mixpanel-browser calls them. It calls
most products by what they are built on, so a product that it does not know goes by the marks in
its agent.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Final, NamedTuple

from mp_asgi.properties import Properties, fit_text

if TYPE_CHECKING:
    from ua_parser import Domain, Resolver

MAX_AGENT_CHARACTERS: Final = 1_024  # the longest of 38,368 in Matomo's test data has 419
MAX_REMEMBERED: Final = 1_000  # agents; 2 MB if all are of the longest


class AgentReader:
    """Name browser, system and device; the user agent itself without the extra `ua`.

    Remembers the agents it met last. ua-parser loads at first use.
    """

    __slots__ = ("_read",)

    def __init__(self) -> None:
        self._read: Callable[[str], Properties] | None = None

    def properties(self, user_agent: str) -> Properties:
        """Answer `$browser`, `$browser_version`, `$os` and `$device`, as far as they are known.

        The names and values are those of mixpanel-browser 2.83 (its `_.info.properties`): it leaves
        out an empty name, and sends a version that it cannot read as null.
        """
        if not user_agent:
            return {}
        if self._read is None:
            self._read = lru_cache(MAX_REMEMBERED)(_find_reader())
        return dict(self._read(user_agent[:MAX_AGENT_CHARACTERS]))


def _find_reader() -> Callable[[str], Properties]:
    try:
        from ua_parser import Domain, load_lazy_builtins  # noqa: PLC0415  # an extra

        # Not the core in Python: 30 times the CPU, spent on whatever a visitor sends.
        from ua_parser.regex import Resolver  # noqa: PLC0415
    except ImportError:
        return _quote
    browsers, systems, _ = load_lazy_builtins()
    # Its devices are models, which Mixpanel does not name, and cost as much again.
    resolver = Resolver((browsers, systems, []))
    return partial(_describe, resolver, Domain.USER_AGENT | Domain.OS)


def _quote(user_agent: str) -> Properties:
    return {"$user_agent": fit_text(user_agent)}


def _describe(resolve: "Resolver", wanted: "Domain", user_agent: str) -> Properties:
    # The Rust core refuses a lone surrogate; all that is looked for is ASCII.
    agent = user_agent.encode("ascii", "replace").decode()
    parsed = resolve(agent, wanted)
    browser = _BROWSERS.name(parsed.user_agent.family if parsed.user_agent else "", agent)
    named = {
        "$browser": browser,
        "$os": _SYSTEMS.name(parsed.os.family if parsed.os else "", agent),
        "$device": _first(_DEVICES, agent),
    }
    known: Properties = {name: value for name, value in named.items() if value}
    return known | {"$browser_version": _read_version(browser, agent)}


def _read_version(browser: str, agent: str) -> int | float | None:
    """Answer major and minor version as one number, so that 16.10 is 16.1."""
    pattern = _VERSIONS.get(browser)
    found = pattern.search(agent) if pattern else None
    if not found:
        return None
    number = float(found[1])
    return int(number) if number.is_integer() else number


_Marks = Sequence[tuple[re.Pattern[str], str]]


def _first(marks: _Marks, agent: str) -> str:
    return next((name for mark, name in marks if mark.search(agent)), "")


class _Names(NamedTuple):
    """Mixpanel's names of one kind of thing.

    Attributes:
        before: Marks in an agent that decide, whatever ua-parser says.
        families: Names of ua-parser's families.
        otherwise: Marks of what other products are built on.
    """

    before: _Marks
    families: Mapping[str, str]
    otherwise: _Marks

    def name(self, family: str, agent: str) -> str:
        """Answer Mixpanel's name; empty if it has none."""
        return (
            _first(self.before, agent)
            or self.families.get(family, "")
            or _first(self.otherwise, agent)
        )


def _marks(*marks: tuple[str, str]) -> _Marks:
    return [(re.compile(mark), name) for mark, name in marks]


_BLACKBERRY: Final = ("(?i:BlackBerry|PlayBook|BB10)", "BlackBerry")
_BROWSERS: Final = _Names(
    before=_marks(
        ("Opera Mini/| OPR/.*Mini|Mini.* OPR/", "Opera Mini"),
        (" OPR/|Opera[ /]", "Opera"),
        _BLACKBERRY,
        ("IEMobile|WPDesktop", "Internet Explorer Mobile"),
        ("SamsungBrowser/", "Samsung Internet"),  # Meta's headsets, too
    ),
    families={
        "Chrome Mobile iOS": "Chrome iOS",
        "Edge": "Microsoft Edge",
        "Konqueror": "Konqueror",
        "Whale": "Whale Browser",
    },
    otherwise=_marks(
        ("Edge/", "Microsoft Edge"),  # on phones; EdgA/ is Chrome, EdgiOS/ Mobile Safari
        ("FBIOS", "Facebook Mobile"),
        ("Chrome", "Chrome"),
        ("UCWEB|UCBrowser", "UC Browser"),
        ("FxiOS", "Firefox iOS"),
        ("Android", "Android Mobile"),  # Firefox, too
        # A page asks `navigator.vendor` for Apple, the default of every WebKit.
        ("AppleWebKit.*Mobile", "Mobile Safari"),
        ("AppleWebKit", "Safari"),
        ("Firefox", "Firefox"),
        ("MSIE|Trident/", "Internet Explorer"),
        ("Gecko", "Mozilla"),
    ),
)
_SYSTEMS: Final = _Names(
    before=_marks(("WPDesktop", "Windows Phone")),
    families={
        "BlackBerry OS": "BlackBerry",
        "BlackBerry Tablet OS": "BlackBerry",
        "Chrome OS": "Chrome OS",
        "Mac OS X": "Mac OS X",
        "Windows Phone": "Windows Phone",
        "iOS": "iOS",
    },
    # A headset that ua-parser knows to run Android says only Linux in desktop mode.
    otherwise=_marks(("Windows", "Windows"), ("Android", "Android"), ("Linux", "Linux")),
)
_DEVICES: Final = _marks(
    ("Windows Phone|WPDesktop", "Windows Phone"),
    ("iPad", "iPad"),
    ("iPod", "iPod Touch"),
    ("iPhone", "iPhone"),
    _BLACKBERRY,
    ("Android", "Android"),
)
# What stands before the number; a browser that is not here has null for a version.
_VERSIONS: Final = {
    browser: re.compile(rf"(?:{before})([0-9]{{1,9}}(?:\.[0-9]{{1,9}})?)")
    for browser, before in {
        "BlackBerry": "BlackBerry ",
        "Chrome": "Chrome/",
        "Chrome iOS": "CriOS/",
        "Firefox": "Firefox/",
        "Firefox iOS": "FxiOS/",
        "Internet Explorer": "rv:|MSIE ",
        "Internet Explorer Mobile": "rv:",
        "Microsoft Edge": "Edge?/",
        "Mobile Safari": "Version/",
        "Mozilla": "rv:",
        "Opera": "Opera/|OPR/",
        "Safari": "Version/",
        "Samsung Internet": "SamsungBrowser/",
        "UC Browser": "UCBrowser/|UCWEB/",
        "Whale Browser": "Whale/",
    }.items()
}
