"""Assemble one process's analytics: the rules for requests, and the delivery of what they send."""

import logging
import os
import random
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextvars import ContextVar
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Unpack

from .assembly import make_core, make_ledger
from .consent.choice import StoredConsent
from .core import Handover
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
from .errors import SettingsError, Unavailable
from .events import Act, Entry, Link, Standing, Stop
from .forks import ForkGuard, ImportGuard
from .health import Health
from .identity import IdentityMode
from .jobs import JobTracker, track_for, tracker_from_token
from .packing import Packer
from .rendering import HandoverRenderer
from .settings import Overrides, OverridesBesideOutbox, Settings
from .watch import Watch
from .wire import IDENTITY

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
        outbox: Of `Settings`, or builds what accepted messages wait in; called once a process.
            None: what `settings.outbox` names.
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
        outbox: str | Callable[[], Outbox] | None = None,
        transport: Callable[[], Transport] | None = None,
        clock: Callable[[], float] = time.time,
        random_bytes: Callable[[int], bytes] = os.urandom,
        **overrides: Unpack[OverridesBesideOutbox],
    ) -> None:
        self.settings = _choose_settings(settings, outbox, overrides)
        #: The tracker of the request that runs; None until somebody wants to know.
        self.requests: ContextVar[Tracker | None] | None = None
        self._counters = Counters()
        self._warned: set[str] = set()
        self.core = make_core(self.settings, self, clock, random_bytes)
        # The first one registered is the last one held: while a fork waits for the others, for a
        # transaction or an import, requests go on.
        self._forks = ForkGuard(self.core.lock)
        self._has_identity_events = self.core.mode is not IdentityMode.SIMPLIFIED
        self._renderer = HandoverRenderer(self.core)
        self._clock = clock
        is_on = self.settings.enabled
        make_outbox = outbox if callable(outbox) else None
        if is_on and make_outbox is None:
            check_outbox(self.settings)
        self.ledger = make_ledger(self.settings, clock, must_answer=False) if is_on else None
        self._watch = Watch(
            self.settings, self._counters, clock, pulse=self._pulse, stats=self.stats
        )
        self._imports = ImportGuard()
        self._worker = self._make_worker(
            make_outbox or self._make_outbox, transport or self._make_transport
        )
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

    @property
    def is_delivering(self) -> bool:
        """Whether the threads of this process that store and send live. Asks no storage."""
        return self._worker.pulse().is_running

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
            Whether nothing is left waiting; False, and logged, where that fails: whoever closes
            has other things to shut down.
        """
        seconds = self.settings.close_timeout if timeout is None else timeout
        try:
            return self._worker.close(seconds)
        except Exception as error:  # noqa: BLE001  # foreign storage; what is left waits there
            logger.error("Closing failed (%s); delivery goes on.", type(error).__name__)  # noqa: TRY400
            return False

    def stats(self) -> Stats:
        """Answer what was counted, by all processes that share the outbox.

        Raises:
            OutboxUnavailable: The outbox's storage does not answer.
        """
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
        """Answer what Mixpanel refused, oldest first, each with its reason: of all processes that
        share the outbox.

        Raises:
            OutboxUnavailable: The outbox's storage does not answer.
        """
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
        from .erasure.mixpanel import open_api  # noqa: PLC0415
        from .erasure.people import PeopleReader  # noqa: PLC0415

        reader = PeopleReader(self.core.keys, self.core.mode, self.core.id_signer)
        people = [
            *map(reader.user, user_ids),
            *map(reader.device, device_ids),
            *map(reader.cookie, cookies),
        ]

        def fence() -> None:
            if not self._worker.fence(SEND_SECONDS):
                raise Unavailable("A send that began before has not ended.", is_sent=True)
            time.sleep(SEND_SECONDS if seconds is None else seconds)

        eraser = Eraser(
            reader,
            self.ledger,
            open_api(self.settings),
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

    def _make_worker(
        self, outbox: Callable[[], Outbox], transport: Callable[[], Transport]
    ) -> Worker[Handover]:
        packer = Packer(self.core.heads, self.core.contexts, self.settings)
        return Worker(
            outbox_factory=lambda: self._watch.watch_outbox(outbox()),
            transport_factory=partial(self._open_transport, transport),
            recorder_factory=None if self.ledger is None else partial(self._recorder, self.ledger),
            render=self._render,
            counters=self._counters,
            settings=self.settings,
            clock=self._clock,
            journaling=Journaling(
                directory=partial(journal_directory, self.settings),
                pack=packer.pack,
                unpack=packer.unpack,
            ),
        )

    def _pulse(self) -> "Pulse":
        return self._worker.pulse()

    def _render(self, handover: Handover) -> Sequence[Entry]:
        with self._imports.lock():  # what reads user agents loads here
            self._watch.observe()  # the storer's thread, in every process that delivers
            return self._renderer.render(handover)

    def _open_transport(self, make: Callable[[], Transport]) -> Transport:
        with self._imports.lock():
            return make()

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


def choose_analytics(
    analytics: object, settings: Settings | None, overrides: Overrides
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


def _choose_settings(settings: object, outbox: object, others: Mapping[str, Any]) -> Settings:
    """Answer the settings; an outbox that builds nothing is one of those that are given alone."""
    is_setting = outbox is not None and not callable(outbox)
    overrides = {**others, "outbox": outbox} if is_setting else others
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
