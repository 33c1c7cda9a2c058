"""Assemble from the settings what analytics are made of: the rules for requests, the ledger."""

import logging
import re
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from .accounts import Accounts
from .adopter import Adopter, PageIds
from .consent.policy import ConsentPolicy
from .consent.region import Defaults
from .context import ContextReader
from .cookieless import DailyVisitors
from .cookies import CookieStyle
from .core import Core, Sink
from .delivery.keeper import keeps_journal
from .delivery.uwsgi import has_threads
from .errors import SettingsError
from .head import HeadReader, SchemeReader, TrustedProxies
from .identity import IdentityMode
from .jar import SCRIPT_COOKIE, JarReader
from .place import normalise_path
from .readers import MixpanelBrowser, Reader, make_readers, with_token
from .settings import Settings
from .sharing import BrowserCookies
from .signing import CookieSigner
from .stops import Stops
from .wire import KeyMaker

if TYPE_CHECKING:
    from .ledger import Ledger

_NO_THREADS = (
    "MP_ASGI_LEDGER is set, and uWSGI runs without threads: what visitors choose would not be "
    "recorded. Add `enable-threads = true` to uWSGI's options, or leave out MP_ASGI_LEDGER."
)

logger = logging.getLogger("mp_asgi")


def make_core(
    settings: Settings,
    sink: Sink,
    clock: Callable[[], float],
    random_bytes: Callable[[int], bytes],
) -> Core:
    """Make the rules of one process from its settings.

    Args:
        settings: What was configured.
        sink: Where the exchanges' consequences go.
        clock: Seconds since the epoch.
        random_bytes: Where IDs come from.
    """
    has_account_grants = settings.consent_scope == "account"
    lock = threading.RLock()
    is_hybrid = settings.adopt_browser_id or settings.share_id or settings.first_party
    browser = BrowserCookies(settings.token) if is_hybrid and settings.enabled else None
    page_ids = None if browser is None else PageIds(browser.id_name, browser.mark_name)
    readers = _read_by(settings, is_hybrid=is_hybrid)
    proxies = TrustedProxies(settings.trusted_proxies)
    # A switched-off assembly may have no key; it signs and reads nothing.
    keys = settings.secret_keys or ("switched off",)
    id_signer = CookieSigner(keys, "mp_asgi.id.v1", clock)
    consent_signer = CookieSigner(keys, "mp_asgi.consent.v1", clock)
    id_style = _make_style(settings, settings.id_cookie, is_http_only=True)
    consent_style = _make_style(settings, settings.consent_cookie)
    return Core(
        settings=settings,
        mode=IdentityMode(settings.identity),
        policy=ConsentPolicy(
            settings.policy_version,
            settings.consent_max_age,
            managers=frozenset(reader.name for reader in readers),
        ),
        defaults=Defaults(settings, proxies),
        heads=HeadReader(
            settings.consent_header or "X-MP-Consent",
            settings.country_headers,
            keeps_all=settings.policy is not None,
            sees_pages=settings.track_pageviews,
        ),
        schemes=SchemeReader(settings.cookie_secure, proxies),
        jars=JarReader(
            id_style=id_style,
            consent_style=consent_style,
            id_signer=id_signer,
            consent_signer=consent_signer,
            readers=readers,
            lock=lock,
        ),
        id_style=id_style,
        consent_style=consent_style,
        script_style=_make_style(settings, SCRIPT_COOKIE),
        id_signer=id_signer,
        consent_signer=consent_signer,
        keys=KeyMaker(settings.token),
        stops=Stops(),
        daily=DailyVisitors(settings.token, proxies, random_bytes),
        accounts=Accounts(sink.ask, clock) if settings.ledger else None,
        sink=sink,
        clock=clock,
        random_bytes=random_bytes,
        lock=lock,
        has_late_answers=settings.enabled
        and (settings.identify_from is not None or settings.consent_from is not None),
        has_late_consent=settings.consent_from is not None
        or (has_account_grants and settings.identify_from is not None),
        has_account_grants=has_account_grants,
        hands_over_early=keeps_journal(settings),
        contexts=ContextReader(settings, proxies),
        adopter=_make_adopter(settings, page_ids),
        browser=browser,
        page_ids=page_ids,
        sees_pages=settings.track_pageviews and settings.enabled,
        excluded=_compile_paths(settings.exclude),
        known_names=set(),
    )


def _read_by(settings: Settings, *, is_hybrid: bool) -> Sequence[Reader]:
    """Answer who reads the consent managers' cookies: the browser library's opt-out is always
    honoured where we talk to it (RULES section 2, rule 3).
    """
    readers = settings.readers
    if is_hybrid and not any(reader.name == MixpanelBrowser.name for reader in readers):
        readers += make_readers([f"{MixpanelBrowser.name}?only_denials=true"])
    return with_token(readers, settings.token)


def _make_style(settings: Settings, name: str, *, is_http_only: bool = False) -> CookieStyle:
    return CookieStyle(
        name=name,
        domain=settings.cookie_domain,
        path=settings.cookie_path,
        samesite=settings.cookie_samesite,
        is_http_only=is_http_only,
    )


def _make_adopter(settings: Settings, page_ids: PageIds | None) -> Adopter | None:
    adopted = page_ids if settings.adopt_browser_id else None
    has_any = adopted is not None or bool(settings.adopt_cookie)
    return Adopter(adopted, settings.adopt_cookie) if has_any and settings.enabled else None


def _compile_paths(paths: Sequence[str]) -> re.Pattern[str] | None:
    """Answer what matches any of the paths, as `normalise_path` spells them; a `*` at any place is
    any text.
    """
    spelled = map(normalise_path, paths)
    patterns = ["".join(map(_compile_part, re.split(r"(\*)", path))) for path in spelled]
    return re.compile("|".join(patterns), re.DOTALL) if patterns else None


def _compile_part(part: str) -> str:
    return ".*" if part == "*" else re.escape(part)


def make_ledger(
    settings: Settings,
    clock: Callable[[], float] = time.time,
    *,
    creates: bool = True,
    must_answer: bool = True,
) -> "Ledger | None":
    """Open the consent ledger that the settings name; None if they name none.

    Args:
        settings: What was configured.
        clock: Seconds since the epoch.
        creates: Whether one that is not there is made.
        must_answer: Whether a database that does not answer is an error, or may answer later.

    Raises:
        SettingsError: It cannot be used: the extra is missing, there is none, the database does
            not answer, it holds records made with a key that is not listed, or this process may
            not have threads.
    """
    if not settings.ledger:
        return None
    if not has_threads():
        raise SettingsError([_NO_THREADS])
    try:
        from .ledger import Ledger, LedgerUnavailable, UnusableLedger  # noqa: PLC0415  # an extra
    except ImportError as error:
        raise SettingsError([f"MP_ASGI_LEDGER is set. {error}"]) from error
    try:
        ledger = Ledger(
            settings.ledger,
            settings.ledger_keys,
            project=settings.token.encode("utf-8"),
            clock=clock,
        )
        try:
            ledger.open(creates=creates)
        except LedgerUnavailable as error:
            if must_answer:
                raise SettingsError([f"MP_ASGI_LEDGER does not answer. {error}"]) from error
            text = str(error)
            logger.warning("%s Nothing is sent until it answers; choices and events wait.", text)
    except UnusableLedger as error:
        raise SettingsError([f"MP_ASGI_LEDGER cannot be used. {error}"]) from error
    return ledger
