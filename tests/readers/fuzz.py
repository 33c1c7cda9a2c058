"""Damage real cookie headers, and find damage that a reader takes for consent.

Damage may turn a header that is not granted into a granted one only by rewriting the value that
says so: where a reader's value stands is in `PLACES`. A header that is cut or that repeats parts
of itself rewrites no value, so only a lost modifier excuses it, and another spelling of the same
bytes is never excused.
"""

import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from mp_asgi.readers import READERS, Reader, Said, make_reader
from tests.readers.rows import DOCUMENTED, MEASURED, TESTS, read_header


class Places(NamedTuple):
    """Where a reader's decision stands in a header, as patterns.

    Attributes:
        values: What says yes or no.
        modifiers: What withholds a yes; damage to it may reveal the yes.
        shifted: What moves `values` when bytes are put in or taken out before them.
    """

    values: str
    modifiers: str = "(?!)"
    shifted: str = "(?!)"


_WHOLE = "(?<==)[^;]*"
_JSON = r"(?:%22|\")"
PLACES: Mapping[str, Places] = {
    "onetrust": Places("groups=[^&;]*", "AwaitingReconsent=[^&;]*"),
    "cookieyes": Places("analytics:[^,;]*|action:[^,;]*"),
    "cookiebot": Places("statistics:[a-z]*", "method:[^,]*,|stamp:[^,]*,"),
    # Bits 152 to 200: the purposes, and that purpose 1 was not asked for.
    "iab-tcf": Places("(?<=consent-v2=.{25}).{9}", shifted="(?<=consent-v2=).{25}"),
    "complianz": Places("(?<=cmplz_statistics=)[^;]*"),
    "vanilla-cookieconsent": Places(
        rf"categories.*?{_JSON}[,%].*?(?:%5D|\])|services.*?(?:%7D|}})"
    ),
    "iubenda": Places("(?:consent|purposes)[^;]*"),
    "osano-cookieconsent-oss": Places(_WHOLE),
    "klaro": Places("mixpanel.*?(?:false|true)"),
    "tarteaucitron": Places("mixpanel=[a-z]*"),
    "cookie-consent-js": Places(_WHOLE),
    "didomi": Places(_WHOLE),
    "axeptio": Places(r"mixpanel.*?(?:false|true)|\$\$completed.*?(?:false|true)"),
    "borlabs": Places("consents.*?%7D"),
    "hubspot": Places("(?<=pref=)1:[a-z]*", "__hs_opt_out=[^;]*|__hs_do_not_track=[^;]*"),
    "shopify": Places("CMP.*?%7D"),
    "trustarc": Places("(?:notice_gdpr_prefs|cmapi_cookie_privacy|notice_preferences)=[^;]*"),
    "react-cookie-consent": Places(_WHOLE),
    "mixpanel-browser": Places("(?<=__mp_opt_in_out_abc123token=)[^;]*"),
    "posthog-js": Places("(?<=__ph_opt_in_out_phc_TESTTOKEN=)[^;]*"),
    "django-cookie-consent": Places("analytics=[^|;]*"),
    "iab-gpp": Places("(?!)"),
    "usprivacy": Places("(?!)"),
}

OPTIONS = {"mixpanel-browser": "?token=abc123token", "didomi": "?purpose=purpose_analytics"}
"""What the sites of the fixtures would have configured."""


class Damage(NamedTuple):
    """A damaged header, and which bytes of the sound one changed: from, to, both included."""

    header: bytes
    first: int
    last: int


@dataclass(slots=True)
class Report:
    """What happened to all inputs."""

    inputs: int = 0
    reads: int = 0
    said: Counter[str] = field(default_factory=Counter)
    excused: int = 0
    violations: list[str] = field(default_factory=list)


def all_readers() -> tuple[Reader, ...]:
    """Answer every registered reader; no site could use all of them together."""
    return tuple(make_reader(name + OPTIONS.get(name, "")) for name in READERS)


def all_headers() -> list[bytes]:
    """Answer every header of the fixtures, those of the IAB's strings too."""
    files = [path for path in (MEASURED, DOCUMENTED) if path.exists()]
    rows = [json.loads(line) for path in files for line in path.read_text().splitlines()]
    headers = {row["cookie_header"] for row in rows}
    for name, key, cookie in (("tc", "tc", "euconsent-v2"), ("gpp", "gpp", "__gpp")):
        known = json.loads((TESTS / "fixtures" / f"{name}_strings.json").read_text())
        headers |= {f"{cookie}={item[key]}" for item in known["strings"]}
    return sorted(header.encode("latin-1") for header in headers if header)


def _flip(header: bytes, chance: random.Random) -> Damage:
    at = chance.randrange(len(header))
    changed = bytes([header[at] ^ 1 << chance.randrange(8)])
    return Damage(header[:at] + changed + header[at + 1 :], at, at)


def _swap(header: bytes, chance: random.Random) -> Damage:
    at = chance.randrange(max(1, len(header) - 1))
    two = header[at : at + 2][::-1]
    return Damage(header[:at] + two + header[at + 2 :], at, at + 1)


def _change_case(header: bytes, chance: random.Random) -> Damage:
    at = chance.randrange(len(header))
    return Damage(header[:at] + header[at : at + 1].swapcase() + header[at + 1 :], at, at)


def _delete(header: bytes, chance: random.Random) -> Damage:
    at = chance.randrange(len(header))
    end = min(len(header), at + chance.choice((1, 1, 2, 5, 20)))
    return Damage(header[:at] + header[end:], at, end)


def _insert(header: bytes, chance: random.Random) -> Damage:
    at = chance.randrange(len(header) + 1)
    more = chance.choice((b"%", b'"', b",", b"1", b"true", b"\x00", b"\xff", b"!", b"&", b"="))
    return Damage(header[:at] + more + header[at:], at - 1, at)


def _truncate(header: bytes, chance: random.Random) -> Damage:
    at = chance.randrange(len(header))
    return Damage(header[:at], at, len(header))


def _repeat(header: bytes, chance: random.Random) -> Damage:
    mark = chance.choice((b"; ", b"&", b",", b"!", b"%2C", b"_", b"|", b"~"))
    parts = header.split(mark)
    parts.insert(chance.randrange(len(parts) + 1), chance.choice(parts))
    return Damage(mark.join(parts), 0, -1)


def _encode(header: bytes, chance: random.Random) -> Damage:
    at = chance.randrange(len(header))
    return Damage(header[:at] + b"%%%02X" % header[at] + header[at + 1 :], at, at)


def _decode(header: bytes, chance: random.Random) -> Damage:
    return Damage(unquote_to_bytes(header), 0, -1)


_REWRITES = (_flip, _swap, _change_case)
_SHIFTS = (_delete, _insert)
_REPEATS = (_truncate, _repeat)
_SPELLINGS = (_encode, _decode)
KINDS: tuple[Callable[[bytes, random.Random], Damage], ...] = (
    *_REWRITES,
    *_SHIFTS,
    *_REPEATS,
    *_SPELLINGS,
)


def run(inputs: int, *, seed: int = 1) -> Report:
    """Damage headers `inputs` times, and ask all readers about each."""
    chance = random.Random(seed)
    report, readers, headers = Report(), all_readers(), all_headers()
    sound = {
        header: [read_header(item, header.decode("latin-1")) for item in readers]
        for header in headers
    }
    for _ in range(inputs):
        header, kind = chance.choice(headers), chance.choice(KINDS)
        damage = kind(header, chance)
        report.inputs += 1
        for reader, before in zip(readers, sound[header], strict=True):
            for problem in check(reader, before.said, header, damage, kind=kind, report=report):
                report.violations.append(problem)
    return report


def check(
    reader: Reader, before: Said, header: bytes, damage: Damage, *, kind: object, report: Report
) -> Iterator[str]:
    """Ask one reader, and tell what must not be."""
    try:
        after = read_header(reader, damage.header.decode("latin-1")).said
    except Exception as error:  # noqa: BLE001  # the finding
        yield f"{reader.name} raised {error!r}: {damage.header!r}"
        return
    report.reads += 1
    report.said[after.value] += 1
    if after is not Said.GRANTED or before is Said.GRANTED:
        return
    if is_rewritten(PLACES[reader.name], header, damage, kind):
        report.excused += 1
    else:
        yield f"{reader.name} was {before.value}, is granted: {header!r} -> {damage.header!r}"


def is_rewritten(places: Places, header: bytes, damage: Damage, kind: object) -> bool:
    """Whether the damage fell on what the reader's decision is made of."""
    if kind in _SPELLINGS:
        return False
    patterns = [places.modifiers]
    if kind not in _REPEATS:
        patterns.append(places.values)
    if kind in _SHIFTS:
        patterns.append(places.shifted)
    spans = re.finditer("|".join(patterns), header.decode("latin-1"))
    return any(span.start() <= damage.last and damage.first <= span.end() for span in spans)
