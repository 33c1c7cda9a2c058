"""Assemble one process's analytics: the rules for requests, and the delivery of what they send."""

import logging
import os
import random
import re
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextvars import ContextVar
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from .accounts import Accounts
from .adopter import Adopter, PageIds
from .consent.choice import StoredConsent
from .consent.policy import ConsentPolicy, Kind
from .consent.region import Defaults
from .context import ContextReader
from .cookieless import DailyVisitors
from .cookies import CookieStyle
from .core import Core, Handover, Sink
from .delivery.counters import Counters, Stats
from .delivery.flusher import Flusher
from .delivery.journals import Journaling
from .delivery.outbox.base import DeadLetter, Outbox
from .delivery.outbox.factory import check_outbox, make_outbox
from .delivery.outbox.location import journal_directory
from .delivery.recorder import Answers, Recorder
from .delivery.termination import end_at_termination
from .delivery.transport import HTTPTransport, Transport
from .delivery.worker import Worker
from .errors import InvalidEvent, SettingsError, Unavailable
from .events import Act, Entry, Link, Standing, Stop
from .forks import ForkGuard
from .head import HeadReader, SchemeReader, TrustedProxies
from .health import Health
from .identity import IdentityMode
from .jar import SCRIPT_COOKIE, JarReader
from .jobs import JobTracker, track_for, tracker_from_token
from .packing import Packer
from .place import normalise_path
from .readers import MixpanelBrowser, Reader, make_readers, with_token
from .settings import Settings
from .sharing import BrowserCookies
from .signing import CookieSigner
from .stops import Stops
from .watch import Watch
from .wire import IDENTITY, PAGE_VIEW, KeyMaker, Renderer, Surroundings

if TYPE_CHECKING:
    from .delivery.run import Pulse
    from .erasure.receipt import Receipt
    from .ledger import Ledger
    from .mixpanel import Mixpanel
    from .tracker import Tracker

MAX_WARNINGS = 1_000  # topics that are logged; what follows is only counted

_NOT_BOTH = "Give analytics, or settings, or single settings, not both."

logger = logging.getLogger("mp_asgi")


class Analytics:
    """What the middlewares of one process share. Give it to both if an app has both doors.

    Nothing starts before the first event: no thread, no socket, nothing that a fork could break.
    Close one that the process goes on without: its threads keep it alive.

    Where nobody handles SIGTERM when this is made in the main thread, it is handled: what is left
    is stored, and the signal ends the process.

    Args:
        settings: Read from the environment if None.
        outbox: Builds what accepted messages wait in; called once a process. By default what
            `settings.outbox` names.
        transport: Builds what carries them to Mixpanel; called once a process, in the thread
            that sends.
        clock: Seconds since the epoch.
        random_bytes: Where IDs come from.
        overrides: Fields of `Settings`, instead of a whole one.

    Raises:
        SettingsError: The settings cannot be used.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        outbox: Callable[[], Outbox] | None = None,
        transport: Callable[[], Transport] | None = None,
        clock: Callable[[], float] = time.time,
        random_bytes: Callable[[int], bytes] = os.urandom,
        **overrides: Any,
    ) -> None:
        self.settings = _choose_settings(settings, overrides)
        #: The tracker of the request that runs; None until somebody wants to know.
        self.requests: ContextVar[Tracker | None] | None = None
        self._counters = Counters()
        self._warned: set[str] = set()
        self.core = make_core(self.settings, self, clock, random_bytes)
        self._has_identity_events = self.core.mode is not IdentityMode.SIMPLIFIED
        self._renderer = Renderer(
            token=self.settings.token,
            mode=self.core.mode,
            keys=self.core.keys,
            before_send=self.settings.before_send,
            on_dropped=self._on_dropped,
        )
        self._clock = clock
        is_on = self.settings.enabled
        if is_on and outbox is None:
            check_outbox(self.settings)
        self.ledger = make_ledger(self.settings, clock, must_answer=False) if is_on else None
        self._watch = Watch(
            self.settings,
            self._counters,
            clock,
            pulse=self._pulse,
            stats=self.stats,
        )
        factory = outbox or self._make_outbox
        packer = Packer(self.core.heads, self.settings)
        self._worker: Worker[Handover] = Worker(
            outbox_factory=lambda: self._watch.watch_outbox(factory()),
            transport_factory=transport or self._make_transport,
            recorder_factory=None if self.ledger is None else partial(self._recorder, self.ledger),
            render=self._render,
            counters=self._counters,
            settings=self.settings,
            clock=clock,
            journaling=Journaling(
                directory=partial(journal_directory, self.settings),
                pack=packer.pack,
                unpack=packer.unpack,
            ),
        )
        self._forks = ForkGuard(self.core.lock)
        if is_on:
            end_at_termination(self._worker.exit, self.settings.close_timeout)
        self._flusher = Flusher(self._worker.flush, self.settings.close_timeout)

    # --- outside of a request -----------------------------------------------------------------

    def visitor(
        self,
        *,
        user_id: object = None,
        device_id: object = None,
        consent: bool | StoredConsent | None,
    ) -> JobTracker:
        """Answer a tracker for somebody whose request this is not: in a job, a command, a webhook.

        Make one for each person and job: what they withdraw after this call, it does not survive.

        Args:
            user_id: As for `identify`; None without one.
            device_id: With or without `$device:`; None without one.
            consent: What the app knows: True, False or a `StoredConsent`. True does not beat a
                withdrawal that this process has seen; a `StoredConsent` with a later time does.
                None asks the ledger, and waits for it. A denial there always wins.
        """
        ledger = self.ledger if consent is None else None
        look_up = None if ledger is None else partial(self._look_up, ledger)
        return track_for(
            self.core, user_id=user_id, device_id=device_id, consent=consent, look_up=look_up
        )

    def tracker_from_token(self, token: str) -> JobTracker:
        """Answer a tracker for the visitor of a token; see `mp_asgi.tracker_from_token`."""
        return tracker_from_token(token, self)

    @cached_property
    def mixpanel(self) -> "Mixpanel":
        """The official client of this project, over our delivery.

        Take it once where the app is made: a request that has begun before is not known to it.
        Its first use imports the client, which takes half a second.
        """
        from .consumer import Consumer  # noqa: PLC0415
        from .mixpanel import Mixpanel  # noqa: PLC0415  # imports the client

        return Mixpanel(self.settings.token, consumer=Consumer(self))

    def _look_up(self, ledger: "Ledger", keys: Collection[bytes]) -> Mapping[bytes, Standing]:
        try:
            return ledger.standings(keys)
        except Exception as error:  # noqa: BLE001  # what the ledger does not say is no grant
            self.count("ledger_failed")
            self.warn("look_up", f"the consent ledger gave no answer ({type(error).__name__})")
            return {}

    # --- for operators ------------------------------------------------------------------------

    def start(self) -> bool:
        """Start delivery though nothing was tracked: what an earlier process left leaves.

        Returns:
            Whether it runs; not when switched off.
        """
        return self.settings.enabled and self._worker.start()

    def resume(self) -> None:
        """Start delivery where an earlier process may have left something."""
        if self.settings.enabled and self._worker.is_durable:
            self._worker.start()

    @property
    def is_delivery_due(self) -> bool:
        """Whether `deliver` has something to wait for."""
        return self._flusher.is_due

    def deliver(self) -> None:
        """Deliver what was submitted since the last time, before the host stops running this
        process: `close_timeout` seconds, and once more where another request's delivery is under
        way. Rests after one in vain.

        For the end of a request (setting `flush_on_response`): never raises.
        """
        try:
            self._flusher.run()
        except Exception as error:  # noqa: BLE001  # foreign storage; events wait for the next one
            self.count("flush_failed")
            self.warn(
                "flush", f"the delivery before a response's end failed ({type(error).__name__})"
            )

    def flush(self, timeout: float = 5.0) -> bool:
        """Send what is accepted now, and go on. Return whether nothing of it is left waiting.

        Returns early where nothing can be sent in time, because Mixpanel does not answer.

        Args:
            timeout: Seconds; the call blocks at most that long.
        """
        return self._worker.flush(timeout)

    def close(self, timeout: float | None = None) -> bool:
        """Drain and stop the threads; the next event starts them again.

        Args:
            timeout: Seconds; the setting `close_timeout` if None.

        Returns:
            Whether nothing is left waiting.
        """
        return self._worker.close(self.settings.close_timeout if timeout is None else timeout)

    def stats(self) -> Stats:
        """Answer what was counted, by all processes that share the outbox."""
        return self._worker.stats()

    def health(self) -> Health:
        """Answer whether requests may come to this process, and what wants a person.

        Waits for the outbox's storage, a network's timeout at most: not for an event loop.
        """
        return self._watch.health()

    def metrics(self) -> str:
        """Render the metrics of `docs/operations.md` as Prometheus text; waits as `health` does.

        Raises:
            OutboxUnavailable: The outbox's storage does not answer.
        """
        return self._watch.metrics()

    def dead(self) -> Sequence[DeadLetter]:
        """Answer what Mixpanel refused in this process, oldest first, each with its reason."""
        return self._worker.dead()

    def erase(
        self,
        *,
        user_ids: Iterable[object] = (),
        device_ids: Iterable[object] = (),
        cookies: Iterable[str] = (),
        receipt: "Receipt | None" = None,
        seconds: float | None = None,
    ) -> "Receipt":
        """Erase people, here and at Mixpanel (RULES section 3; `mp-asgi erase` does the same).

        Not for a request: it waits until no send that began before can be under way in any
        process, and Mixpanel takes one request a second.

        Args:
            user_ids: Users; the devices that the ledger links to them go, too.
            device_ids: Devices.
            cookies: ID cookies of visitors without an account.
            receipt: Of an erasure of the same people, to go on with it: what Mixpanel lost is asked
                for again, and the ledger is cleared once Mixpanel is done.
            seconds: How long to wait for sends; None is as long as one can take. 0 where this
                process is the only one.

        Returns:
            What was done, and in `problems` what was not.

        Raises:
            UnreadablePeople: An ID or a cookie cannot be used; nothing was done.
            LedgerUnavailable: The tombstones could not be written; Mixpanel was not asked.
            Unavailable: A send of this process does not end; the tombstones stand, call again.
        """
        from .erasure.eraser import SEND_SECONDS, Eraser  # noqa: PLC0415  # rarely needed
        from .erasure.mixpanel import PrivacyAPI  # noqa: PLC0415
        from .erasure.pace import Pace  # noqa: PLC0415
        from .erasure.people import PeopleReader  # noqa: PLC0415

        reader = PeopleReader(self.core.keys, self.core.mode, self.core.id_signer)
        people = [
            *map(reader.user, user_ids),
            *map(reader.device, device_ids),
            *map(reader.cookie, cookies),
        ]
        wait = SEND_SECONDS if seconds is None else seconds

        def fence() -> None:
            if not self._worker.fence(SEND_SECONDS):
                raise Unavailable("A send that began before has not ended.", is_sent=True)
            time.sleep(wait)

        has_token = bool(self.settings.oauth_token)
        eraser = Eraser(
            reader,
            self.ledger,
            PrivacyAPI(self.settings, Pace(time.monotonic, time.sleep)) if has_token else None,
            fence=fence,
            purge=self._worker.erase,
            clock=self._clock,
        )
        return eraser.erase(people, receipt=receipt)

    # --- the sink of exchanges ----------------------------------------------------------------

    def accept(self, handover: Handover) -> None:
        """Take what a request sends."""
        items = handover.items
        is_identity = self._has_identity_events and any(item[0] in IDENTITY for item in items)
        self._worker.submit(handover, len(items), is_identity=is_identity)
        self._flusher.has_news = True

    def stop(self, keys: Sequence[bytes], at: float) -> None:
        """Take a denial: what waits under these keys is forgotten."""
        self._worker.submit(Stop(tuple(keys), at))
        self._flusher.has_news = True

    def count(self, name: str, number: int = 1, reason: str = "") -> None:
        """Count what happened in a request."""
        self._counters.count(name, number, reason)

    def record(self, item: Act | Link) -> None:
        """Take a choice, or the meeting of a user and a device, for the ledger."""
        self._worker.record(item)
        self._flusher.has_news = True

    def ask(self, key: bytes) -> None:
        """Ask the ledger where a subject stands."""
        self._worker.ask(key)

    def warn(self, topic: str, message: str) -> None:
        """Log a message once a topic; the counters tell how often it happened."""
        if topic not in self._warned and len(self._warned) < MAX_WARNINGS:
            self._warned.add(topic)
            logger.warning("%s (logged once, then counted)", message)

    # --- delivery -----------------------------------------------------------------------------

    def _pulse(self) -> "Pulse":
        return self._worker.pulse()

    def _render(self, handover: Handover) -> Sequence[Entry]:
        self._watch.observe()  # the storer's thread, in every process that delivers
        items, context = handover.items, handover.context
        if context is not None and self.core.contexts.is_bot(context):
            # Who somebody is, is said once and never again (RULES section 1, rule 5).
            items = [item for item in items if item[0] in IDENTITY]
            self._counters.count("dropped", len(handover.items) - len(items), "bot")
        return self._renderer.render(items, self._look_around(handover)) if items else ()

    def _look_around(self, handover: Handover) -> Surroundings:
        stamp, context, contexts = self._stamp(handover), handover.context, self.core.contexts
        if context is None:
            return Surroundings(stamp, {}, {}, promised_at=handover.promised_at)
        has_page = any(item[1] == PAGE_VIEW for item in handover.items)
        is_cookieless = handover.decision.kind is Kind.COOKIELESS
        return Surroundings(
            stamp,
            contexts.event_properties(context, is_cookieless=is_cookieless),
            contexts.page_properties(context, is_cookieless=is_cookieless) if has_page else {},
            "" if is_cookieless else contexts.address(context),
        )

    def _stamp(self, handover: Handover) -> dict[str, Any]:
        stamp: dict[str, Any] = {}
        kind = handover.decision.kind
        if self.settings.consent_property and kind is not None:
            stamp["$mp_asgi_consent"] = kind.value
            if version := self.core.policy.version.name:
                stamp["$mp_asgi_consent_version"] = version
        return stamp

    def _on_dropped(self, error: InvalidEvent, name: str) -> None:
        reason = error.reason
        self._counters.count("dropped", 1, reason)
        if reason != "before_send":  # the app's own wish
            self.warn(f"dropped-{reason}", f"dropped {name!r}: {reason}: {error}")

    def _recorder(self, ledger: "Ledger") -> Recorder:
        return Recorder(
            ledger=self._watch.watch_ledger(ledger),
            counters=self._counters,
            clock=self._clock,
            random=random.random,
            on_answers=self._learn,
            learning=self.core.lock,
        )

    def _learn(self, answers: Answers) -> None:
        if self.core.accounts is not None:
            self.core.accounts.learn(answers)

    def _make_outbox(self) -> Outbox:
        return make_outbox(self.settings, self._counters)

    def _make_transport(self) -> Transport:
        return HTTPTransport(self.settings)


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
            not answer, or it holds records made with a key that is not listed.
    """
    if not settings.ledger:
        return None
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


def choose_analytics(
    analytics: object, settings: Settings | None, overrides: Mapping[str, Any]
) -> Analytics:
    """Answer the assembly that a middleware was given, or make one of what it was given.

    Raises:
        SettingsError: The settings cannot be used, or there are two answers to one question.
    """
    if analytics is None:
        return Analytics(settings, **overrides)
    if not isinstance(analytics, Analytics):
        given = type(analytics).__name__
        raise SettingsError([f"analytics is of type {given}. Use an mp_asgi.Analytics."])
    if settings is not None or overrides:
        given = ", ".join(sorted({*overrides, *(() if settings is None else ("settings",))}))
        raise SettingsError([f"analytics came together with {given}. {_NOT_BOTH}"])
    return analytics


def _choose_settings(settings: object, overrides: Mapping[str, Any]) -> Settings:
    if settings is None:
        return Settings.from_env(**overrides)
    if isinstance(settings, Analytics):
        raise SettingsError(["settings is an Analytics. Name it: analytics=…"])
    if not isinstance(settings, Settings):
        given = type(settings).__name__
        remedy = "Use an mp_asgi.Settings, or name single settings: token=…"
        raise SettingsError([f"settings is of type {given}. {remedy}"])
    if overrides:
        given = ", ".join(sorted(overrides))
        raise SettingsError([f"settings came together with {given}. {_NOT_BOTH}"])
    return settings


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

    def style(name: str, *, is_http_only: bool) -> CookieStyle:
        return CookieStyle(
            name=name,
            domain=settings.cookie_domain,
            path=settings.cookie_path,
            samesite=settings.cookie_samesite,
            is_http_only=is_http_only,
        )

    is_hybrid = settings.adopt_browser_id or settings.share_id or settings.first_party
    browser = BrowserCookies(settings.token) if is_hybrid and settings.enabled else None
    page_ids = None if browser is None else PageIds(browser.id_name, browser.mark_name)
    readers = _read_by(settings, is_hybrid=is_hybrid)
    proxies = TrustedProxies(settings.trusted_proxies)
    # A switched-off assembly may have no key; it signs and reads nothing.
    keys = settings.secret_keys or ("switched off",)
    id_signer = CookieSigner(keys, "mp_asgi.id.v1", clock)
    consent_signer = CookieSigner(keys, "mp_asgi.consent.v1", clock)
    id_style = style(settings.id_cookie, is_http_only=True)
    consent_style = style(settings.consent_cookie, is_http_only=False)
    return Core(
        settings=settings,
        mode=IdentityMode(settings.identity),
        policy=ConsentPolicy(
            version=settings.policy_version,
            max_age=settings.consent_max_age,
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
        script_style=style(SCRIPT_COOKIE, is_http_only=False),
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
        hands_over_early=settings.durability == "strict",
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
