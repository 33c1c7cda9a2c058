"""Erase people in the one order that holds (RULES section 3): tombstones, fence, local purge, then
Mixpanel; the ledger's own records and links go last.

The links outlive the tombstones because they alone say which devices Mixpanel must be told of:
until it has said that all jobs succeeded, running the erasure again must find them.
"""

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any, Final, Protocol

from mp_asgi.delivery.pump import LEASE_SECONDS
from mp_asgi.errors import MixpanelASGIError
from mp_asgi.events import Act, ActState, Link

from .desk import Desk, Keep, Report, report_nothing
from .jobs import Compliance, Job, JobKind
from .links import Links, find_everybody
from .mixpanel import PrivacyAPI
from .people import PeopleReader, Person
from .receipt import Named, Receipt, UnusableReceipt

SEND_SECONDS: Final = LEASE_SECONDS  # no send of any process takes longer

LEDGER_PEOPLE: Final = 1_000  # in one transaction, so that other writers wait below 0.1 s

NOT_ASKED: Final = (
    "Mixpanel was not asked: MIXPANEL_OAUTH_TOKEN is not set. Create a token as a project owner or "
    "admin (Mixpanel: Settings → Data & Privacy), set it and run this again."
)
NOT_PURGED: Final = (
    "Not everything that waits of these people is deleted, so Mixpanel was not asked. Run this "
    "again once the outbox can be used."
)
_LOST: Final = (
    "Mixpanel lost a job about people whose IDs are not known here any more. Name them all again, "
    "or ask for their deletion in Mixpanel, with the IDs of a receipt that reveals them."
)

Purge = Callable[[Collection[bytes], float], int]
"""Forgets in the outbox what was tracked under these keys at or before a time, dead letters
included. Returns how many messages that were."""


class Ledger(Links, Protocol):
    """What an erasure needs of the ledger."""

    def append(self, items: Sequence[Act | Link]) -> object:
        """Record acts; the same act again records nothing."""
        ...

    def erase(self, keys: Collection[bytes], at: float) -> int:
        """Forget records and links of these keys, all but a tombstone. Return how many records."""
        ...


class Eraser:
    """Erase people of one project.

    Args:
        reader: Makes people of device IDs.
        ledger: Keeps the tombstones; without one nothing stops later tracking.
        api: Mixpanel's; None without an OAuth token.
        fence: Returns when no send that began before the call is under way; None where that
            cannot be known.
        purge: Forgets what waits in the outbox; None if it is out of reach. What it raises is a
            problem of the receipt.
        clock: Seconds since the epoch.
        save: Given the receipt after every step, so that what was done is known whatever happens.
        report: Told of progress.
    """

    def __init__(
        self,
        reader: PeopleReader,
        ledger: Ledger | None,
        api: PrivacyAPI | None,
        *,
        fence: Callable[[], object] | None = None,
        purge: Purge | None = None,
        clock: Callable[[], float] = time.time,
        save: Callable[[Receipt], object] = lambda _: None,
        report: Report = report_nothing,
    ) -> None:
        self._reader = reader
        self._ledger = ledger
        self._desk = None if api is None else Desk(api, JobKind.DELETION, report)
        self._fence = fence
        self._purge = purge
        self._clock = clock
        self._save = save

    def find(self, people: Sequence[Person], receipt: Receipt | None = None) -> list[Person]:
        """Answer everybody whom erasing these people is about, known devices included."""
        until = self._clock() if receipt is None else receipt.started_at
        return find_everybody(people, self._ledger, self._reader, until)

    def erase(
        self,
        people: Sequence[Person],
        *,
        compliance: Compliance = Compliance.GDPR,
        receipt: Receipt | None = None,
        reveals: bool = False,
    ) -> Receipt:
        """Erase these people as far as it can be done now; the receipt tells how far that is.

        Mixpanel takes up to 30 days. Called again with the receipt, this asks how the jobs ended,
        repeats those that failed, and clears the ledger when all have succeeded. Mixpanel is not
        asked before the outbox, if it is within reach, has forgotten them.

        Args:
            people: Users, whose devices are found, and devices.
            compliance: The law that Mixpanel is told.
            receipt: Of an erasure of the same people, to go on with it: no step is done twice.
            reveals: Whether raw IDs go into the receipt.

        Raises:
            LedgerUnavailable: Not everybody could be stopped; Mixpanel was not asked.
            UnusableReceipt: It is about other people.
        """
        if receipt is None:
            receipt = Receipt(started_at=self._clock(), compliance=compliance)
        elif not {person.key for person in people} <= {key for _, key in receipt.named}:
            raise UnusableReceipt("The receipt is about other people. Name another file.")
        everybody, receipt = self._stop_everybody(people, receipt, reveals=reveals)
        if receipt.problems:
            return receipt
        receipt = self._ask_mixpanel(everybody, receipt)
        return self._clear_ledger(receipt)

    def wait(self, receipt: Receipt) -> Receipt:
        """Ask Mixpanel until every job is over. Return the receipt with how they ended."""
        return receipt if self._desk is None else self._follow(receipt, self._desk.wait)

    def _stop_everybody(
        self, people: Sequence[Person], receipt: Receipt, *, reveals: bool
    ) -> tuple[list[Person], Receipt]:
        everybody: list[Person] = []
        # Another process may have kept a link to itself until now: its device goes the same way.
        while (found := self.find(people, receipt)) != everybody:
            everybody = found
            if reveals:
                ids = [*receipt.ids, *((person.subject, person.id) for person in everybody)]
                receipt = replace(receipt, ids=tuple(dict.fromkeys(ids)))
            # Saved before anything is done, so that a receipt that cannot be kept stops it all.
            receipt = self._keep(_with_names(receipt, everybody), problems=())
            receipt = self._stop_tracking(receipt)
        return everybody, receipt

    def _stop_tracking(self, receipt: Receipt) -> Receipt:
        if self._ledger is None:
            # No tombstone keeps sends from starting: what waits goes first, then who is under way.
            receipt = self._purge_outbox(receipt)
            return receipt if receipt.problems else self._pass_fence(receipt)
        if receipt.entombed_at is None:
            for part in _divide(receipt.named):
                self._ledger.append([_entomb(named, receipt.started_at) for named in part])
            receipt = self._keep(receipt, entombed_at=self._clock())
        return self._purge_outbox(self._pass_fence(receipt))

    def _pass_fence(self, receipt: Receipt) -> Receipt:
        if self._fence is None or receipt.fenced_at is not None:
            return receipt
        self._fence()
        return self._keep(receipt, fenced_at=self._clock())

    def _purge_outbox(self, receipt: Receipt) -> Receipt:
        if self._purge is None or receipt.purged_at is not None:
            return receipt
        try:
            purged = self._purge([key for _, key in receipt.named], receipt.started_at)
        except MixpanelASGIError as error:
            # Mixpanel would delete them, and what waits would bring them back.
            return self._keep(receipt, problems=(f"{error} {NOT_PURGED}",))
        return self._keep(receipt, purged=receipt.purged + purged, purged_at=self._clock())

    def _ask_mixpanel(self, everybody: Sequence[Person], receipt: Receipt) -> Receipt:
        if receipt.is_finished:
            return receipt
        if self._desk is None:
            return self._keep(receipt, problems=(NOT_ASKED,))
        if receipt.jobs:
            receipt = self._follow(receipt, self._desk.look)
        if receipt.is_taken or receipt.problems:
            return receipt
        return self._place_jobs(everybody, receipt, self._desk)

    def _follow(self, receipt: Receipt, ask: Callable[[Sequence[Job], Keep], list[str]]) -> Receipt:
        def keep(jobs: Sequence[Job]) -> None:
            nonlocal receipt
            receipt = self._keep(receipt, jobs=tuple(jobs))

        problems = ask(receipt.jobs, keep)
        return self._keep(receipt, problems=(*receipt.problems, *problems))

    def _place_jobs(self, everybody: Sequence[Person], receipt: Receipt, desk: Desk) -> Receipt:
        def keep(job: Job) -> None:
            nonlocal receipt
            receipt = self._keep(receipt, jobs=(*receipt.jobs, job))

        rest = [person for person in everybody if person.key not in receipt.taken]
        problems = desk.place(rest, receipt.compliance, keep)
        if not problems and not receipt.is_taken:
            problems = [_LOST]
        return self._keep(receipt, problems=tuple(problems))

    def _clear_ledger(self, receipt: Receipt) -> Receipt:
        if self._ledger is None or receipt.cleared_at is not None or not receipt.is_finished:
            return receipt
        try:
            cleared = sum(
                self._ledger.erase([key for _, key in part], receipt.started_at)
                for part in _divide(receipt.named)
            )
        except MixpanelASGIError as error:
            problem = f"{error} Run this again: Mixpanel is not asked twice."
            return self._keep(receipt, problems=(*receipt.problems, problem))
        return self._keep(receipt, cleared=cleared, cleared_at=self._clock())

    def _keep(self, receipt: Receipt, **changes: Any) -> Receipt:
        receipt = replace(receipt, **changes)
        self._save(receipt)
        return receipt


def _entomb(named: Named, at: float) -> Act:
    subject, key = named
    return Act(key=key, subject=subject, state=ActState.ERASED, at=at, source="operator")


def _divide(named: Sequence[Named]) -> list[Sequence[Named]]:
    return [named[start : start + LEDGER_PEOPLE] for start in range(0, len(named), LEDGER_PEOPLE)]


def _with_names(receipt: Receipt, everybody: Sequence[Person]) -> Receipt:
    """Answer the receipt about these people, too; for new ones every local step is due again."""
    named = dict.fromkeys([*receipt.named, *((person.subject, person.key) for person in everybody)])
    if len(named) == len(receipt.named):
        return receipt
    return replace(
        receipt,
        named=tuple(named),
        entombed_at=None,
        fenced_at=None,
        purged_at=None,
        cleared_at=None,
    )
