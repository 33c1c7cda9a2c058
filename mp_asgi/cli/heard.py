"""List what every signal of a request says about consent, the strongest first."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from mp_asgi.consent.hearing import Hearing
from mp_asgi.consent.policy import Decision, Signals
from mp_asgi.consent.signals import has_one
from mp_asgi.core import Core
from mp_asgi.head import RequestHead
from mp_asgi.readers import Said


@dataclass(frozen=True, slots=True)
class Heard:
    """One line; the names are those of the JSON.

    Attributes:
        source: As in the decision's `source`.
        said: What it said.
        at: ISO time of the choice; None where nobody tells.
        detail: What else there is to know; empty without.
        decided: Whether the decision came from it.
    """

    source: str
    said: str
    at: str | None
    detail: str
    decided: bool


def list_signals(
    core: Core, head: RequestHead, decision: Decision, user: str | None
) -> list[Heard]:
    """Answer every signal that this deployment listens to.

    Args:
        core: The rules, with what the ledger says already learned.
        head: The request.
        decision: What it came to.
        user: Who is logged in.
    """
    jar = core.jars.read(head.cookie, is_secure=core.schemes.is_secure(head))
    default = core.read_default(head, has_cookies=jar.has_own)
    signals = Hearing(
        core.settings,
        core.policy,
        head,
        cookies=jar.signals(default),
        consent_header=core.heads.consent_header,
        now=core.clock(),
    ).signals
    country = core.defaults.country(head)
    lines = [
        _own_cookie(signals),
        ("script", "denied" if signals.own.is_denied_by_script else "nothing", None, "mp_choice"),
        ("header", signals.header.value, None, core.settings.consent_header),
        *_managers(core, signals),
        *_account(core, user),
        _header(head, "sec-gpc", is_honored=core.settings.honor_gpc),
        _header(head, "dnt", is_honored=core.settings.honor_dnt),
        ("policy", default.value, None, f"country {country}" if country else ""),
    ]
    return [
        Heard(source, said, _iso(at), detail, source == decision.source)
        for source, said, at, detail in lines
    ]


_Line = tuple[str, str, float | None, str]


def _own_cookie(signals: Signals) -> _Line:
    choice = signals.own.choice
    if choice is None:
        said = Said.UNREADABLE if signals.own.is_unreadable else Said.NOTHING
        return "cookie", said.value, None, ""
    said = Said.GRANTED if choice.is_granted else Said.DENIED
    version = f", notice {choice.version}" if choice.version else ""
    return "cookie", said.value, choice.at, choice.source + version


def _managers(core: Core, signals: Signals) -> Iterator[_Line]:
    heard = {item.name: item for item in signals.managers.heard}
    for reader in core.settings.readers:
        item = heard.get(reader.name)
        if item is None:
            yield f"cmp:{reader.name}", "nothing", None, "no cookie"
        else:
            names = ", ".join(item.cookies)
            yield f"cmp:{reader.name}", item.reading.said.value, item.reading.at, names


def _account(core: Core, user: str | None) -> Iterator[_Line]:
    if core.accounts is None:
        return
    standing = None if user is None else core.accounts.get(core.keys.user_key(user))
    if standing is None:
        yield "account", "nothing", None, "" if user else "nobody is logged in"
    else:
        yield "account", standing.state.value, standing.at, standing.source


def _header(head: RequestHead, name: str, *, is_honored: bool) -> _Line:
    is_sent = has_one(head.header(name.encode("ascii")))
    detail = "not honoured here" if is_sent and not is_honored else ""
    return name, "denied" if is_sent and is_honored else "nothing", None, detail


def _iso(at: float | None) -> str | None:
    if at is None:
        return None
    try:
        return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):
        return None
