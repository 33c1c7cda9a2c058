"""Make what shows the cost of reading consent managers: the same request with readers and without.

Its cookies are those of visitors who agreed, and our consent cookie already mirrors that: what
every page costs after the first.
"""

import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from mp_asgi.analytics import Analytics
from mp_asgi.consent.choice import mirror_source
from mp_asgi.readers import READERS, Said

from .variants import CookieJar, Cookies, Variant, asgi_variant, make_analytics, wsgi_variant

TEN: Final = tuple(itertools.islice(READERS, 10))
PRESENT: Final = {
    "none of their": (),
    "CookieYes'": ("cookieyes",),
    "all ten's": TEN,
}
LINES: Final[Mapping[str, tuple[int, Callable[[CookieJar], Cookies]]]] = {
    "untouched": (0, lambda jar: jar.seen),
    "event, seen": (1, lambda jar: jar.seen),
    "event, moved": (1, lambda jar: jar.moved),
    "event, stranger": (1, lambda jar: jar.stranger),
}
"""Events of a request, and its Cookie headers."""

FIXTURES: Final = Path(__file__).resolve().parent.parent / "tests" / "fixtures"
MOMENT: Final = 1_800_000_000.0  # soon after the fixtures were made: later, some are stale
# Two whose measured cookies hold no grant; these are their documented grammar
# (reference/consent.md section 2.2).
WRITTEN: Final = {
    "cookiebot": (
        "CookieConsent={stamp:%27bXAtYXNnaSBiZW5jaG1hcmsgc3RhbXAgKzAvMQ==%27%2Cnecessary:true"
        "%2Cpreferences:true%2Cstatistics:true%2Cmarketing:true%2Cmethod:%27explicit%27%2Cver:1"
        "%2Cutc:1795000000000%2Cregion:%27de%27}"
    ),
    "iubenda": (
        "_iub_cs-1234567=%7B%22timestamp%22%3A%222026-11-20T10%3A00%3A00.000Z%22%2C%22version%22"
        "%3A%221.75.1%22%2C%22purposes%22%3A%7B%221%22%3Atrue%2C%223%22%3Atrue%2C%224%22%3Atrue%7D"
        "%2C%22id%22%3A1234567%2C%22cons%22%3A%7B%22rand%22%3A%22123456%22%7D%7D"
    ),
}


def make_reader_variants() -> tuple[list[Variant], list[Variant]]:
    """Answer pairs of variants for both doors, named `LINE/PRESENT/with` and `.../without`."""
    asgi, wsgi = [], []
    for present in PRESENT:
        for side in ("with", "without"):
            readers = TEN if side == "with" else ()
            analytics = make_analytics(readers, itertools.repeat(MOMENT).__next__)
            jar = make_jar(present, side)
            _check(analytics, jar, PRESENT[present] if readers else ())
            for line, (events, choose) in LINES.items():
                name = f"{line}/{present}/{side}"
                asgi.append(asgi_variant(name, analytics, events, choose(jar)))
                wsgi.append(wsgi_variant(name, analytics, events, choose(jar)))
    return asgi, wsgi


def make_jar(present: str, side: str) -> CookieJar:
    """Answer the Cookie headers of one pair's side; they differ in what our consent cookie says."""
    managers = PRESENT[present]
    others = "; ".join(read_grant(name) for name in managers).encode("latin-1")
    source = mirror_source(sorted(managers)) if managers and side == "with" else "own"
    return CookieJar(make_analytics((), lambda: MOMENT), source=source, others=others)


def _check(analytics: Analytics, jar: CookieJar, managers: tuple[str, ...]) -> None:
    """Refuse to measure anything but grants: a refusal would be cheaper."""
    found = analytics.core.jars.read(jar.seen(), is_secure=False).managers
    if found.present != managers or (managers and found.said is not Said.GRANTED):
        raise RuntimeError(f"{managers} were to grant; {found.present} say {found.said.value}")


def read_grant(manager: str) -> str:
    """Answer the Cookie header of a visitor who told this manager yes."""
    return next(_grants(manager), None) or WRITTEN[manager]


def _grants(manager: str) -> Iterator[str]:
    for text in (FIXTURES / "cmp_cookies.jsonl").read_text().splitlines():
        row = json.loads(text)
        is_plain = "config" not in row  # an option of the reader would have to say so
        if row["cmp"] == manager and row["expected_analytics"] == "granted" and is_plain:
            yield row["cookie_header"]
