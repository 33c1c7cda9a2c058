import dataclasses

import pytest

from mp_asgi.dev import Fault
from mp_asgi.dev.privacy import State
from mp_asgi.erasure.eraser import LEDGER_PEOPLE, NOT_ASKED, NOT_PURGED, Eraser
from mp_asgi.erasure.jobs import Compliance, Job, JobState
from mp_asgi.erasure.receipt import NOT_CLEARED, NOT_STOPPED, Receipt, UnusableReceipt
from mp_asgi.errors import MixpanelASGIError, OutboxUnavailable
from mp_asgi.events import Act, ActState, Subject
from mp_asgi.identity import IdentityMode
from tests.erasure.support import (
    DEVICE,
    KEYS,
    OTHER_DEVICE,
    MemoryLedger,
    make_link,
    make_reader,
)
from tests.support import NOW, FakeClock

READER = make_reader()
USER = READER.user("U1")
DEVICES = [READER.device(DEVICE), READER.device(OTHER_DEVICE)]


class House:
    """An eraser with all around it, and what happened there in order."""

    def __init__(
        self, api, standin, *, reader=READER, has_ledger=True, has_purge=True, has_fence=True
    ):
        self.standin = standin
        self.clock = FakeClock()
        self.story = []
        self.saved = []
        self.purged = []
        self.purge_failures = []
        self.late_links = []
        self.ledger = MemoryLedger(
            acts=[Act(key=USER.key, subject=Subject.USER, state=ActState.GRANTED, at=NOW - 99)],
            links=[make_link("U1", DEVICE, NOW - 99), make_link("U1", OTHER_DEVICE, NOW - 9)],
        )
        self.eraser = Eraser(
            reader,
            self.ledger if has_ledger else None,
            api,
            fence=self.fence if has_fence else None,
            purge=self.purge if has_purge else None,
            clock=self.clock,
            save=self.save,
        )

    def fence(self):
        self.story.append("fence")
        self.clock.advance(120.0)
        self.ledger.links += self.late_links
        self.late_links = []

    def finish(self, receipt, people=(USER,)):
        """Let Mixpanel be done, and run again."""
        self.standin.privacy.finish()
        return self.eraser.erase(people, receipt=receipt)

    def purge(self, keys, at):
        if self.purge_failures:
            raise OutboxUnavailable(self.purge_failures.pop())
        self.story.append("purge")
        self.purged.append((list(keys), at))
        return 3

    def save(self, receipt):
        steps = ("entombed_at", "jobs", "cleared_at")
        for step in steps:
            if getattr(receipt, step) and step not in self.story:
                self.story.append(step)
        self.saved.append(receipt)


@pytest.fixture
def house(api, standin):
    return House(api, standin)


def test_the_steps_come_in_their_order(house):
    house.finish(house.eraser.erase([USER]))

    assert house.story == ["entombed_at", "fence", "purge", "jobs", "cleared_at"]


def test_a_user_is_erased_with_their_devices(house, standin):
    receipt = house.finish(house.eraser.erase([USER], compliance=Compliance.CCPA))

    keys = [USER.key, *(device.key for device in DEVICES)]
    assert [(act.key, act.state) for act in house.ledger.acts] == [
        (key, ActState.ERASED) for key in keys
    ]
    assert {(act.at, act.source) for act in house.ledger.acts} == {(NOW, "operator")}
    assert house.purged == [(keys, NOW)]
    assert house.ledger.erased == [(keys, NOW)]
    assert [job.distinct_ids for job in standin.privacy.jobs] == [
        ("U1",),
        (f"$device:{DEVICE}", f"$device:{OTHER_DEVICE}"),
    ]
    assert {job.compliance for job in standin.privacy.jobs} == {"CCPA"}
    assert (receipt.purged, receipt.cleared) == (3, 1)
    assert (receipt.problems, receipt.warnings) == ((), ())


def test_many_people_do_not_block_the_ledger(house):
    people = [READER.user(f"V{number}") for number in range(LEDGER_PEOPLE + 1)]

    receipt = house.finish(house.eraser.erase(people), people)

    assert house.ledger.sizes == [LEDGER_PEOPLE, 1]
    assert [len(keys) for keys, _ in house.ledger.erased] == [LEDGER_PEOPLE, 1]
    assert receipt.is_finished


def test_a_device_is_erased_alone(house, standin):
    house.eraser.erase([DEVICES[0]])

    assert [job.distinct_ids for job in standin.privacy.jobs] == [(f"$device:{DEVICE}",)]
    assert [act.key for act in house.ledger.acts if act.state is ActState.ERASED] == [
        DEVICES[0].key
    ]


def test_a_receipt_reveals_only_if_asked(house, api, standin):
    hidden = house.eraser.erase([USER])
    revealed = House(api, standin).eraser.erase([USER], reveals=True)

    assert hidden.ids == ()
    assert revealed.ids == (
        (Subject.USER, "U1"),
        (Subject.DEVICE, DEVICE),
        (Subject.DEVICE, OTHER_DEVICE),
    )


def test_a_receipt_that_cannot_be_kept_stops_everything(house, standin):
    def fail(receipt):
        raise OSError("disk full")

    house.eraser._save = fail

    with pytest.raises(OSError, match="disk full"):
        house.eraser.erase([USER])

    assert [act.state for act in house.ledger.acts] == [ActState.GRANTED]
    assert standin.requests == []


def test_without_tombstones_nothing_is_done(house, standin):
    house.ledger.failures.append("append")

    with pytest.raises(MixpanelASGIError):
        house.eraser.erase([USER])

    assert house.story == []
    assert standin.requests == []


def test_a_failure_at_mixpanel_leaves_tombstones_and_links(house, standin):
    standin.misbehave(Fault.UNAVAILABLE, None)

    receipt = house.eraser.erase([USER])

    assert receipt.entombed_at is not None
    assert receipt.cleared_at is None
    assert len(receipt.problems) == 1
    assert len(house.ledger.links) == 2


@pytest.mark.parametrize("has_ledger", [True, False], ids=["ledger", "no-ledger"])
def test_an_outbox_that_cannot_forget_is_told_and_mixpanel_is_not_asked(api, standin, has_ledger):
    house = House(api, standin, has_ledger=has_ledger)
    house.purge_failures.append("The file is locked.")

    failed = house.eraser.erase([USER])
    requests = len(standin.requests)
    receipt = house.eraser.erase([USER], receipt=failed)

    assert failed.problems == (f"The file is locked. {NOT_PURGED}",)
    assert (failed.purged_at, failed.purged, requests) == (None, 0, 0)
    steps = ["fence", "purge"] if has_ledger else ["purge", "fence"]
    assert [step for step in house.story if step in steps] == steps
    assert (receipt.purged, receipt.problems) == (3, ())
    assert receipt.jobs


def test_running_again_goes_on_where_it_failed(house, standin):
    standin.misbehave(Fault.UNAVAILABLE, None)
    failed = house.eraser.erase([USER])
    standin.behave()
    house.story.clear()

    receipt = house.eraser.erase([USER], receipt=failed)

    assert house.story == ["entombed_at", "jobs"]
    assert (len(house.purged), receipt.purged) == (1, 3)
    assert standin.privacy.jobs[0].distinct_ids == ("U1",)
    assert receipt.problems == ()
    assert receipt.started_at == failed.started_at


def test_a_job_that_was_taken_is_not_created_twice(house, standin):
    begun = house.eraser.erase([USER])
    standin.privacy.advance()

    again = house.eraser.erase([USER], receipt=begun)

    assert [request.method for request in standin.requests] == ["POST", "POST", "GET", "GET"]
    assert [job.status.state for job in again.jobs] == [JobState.STAGING, JobState.STAGING]


def test_what_is_finished_is_neither_asked_for_nor_cleared_again(house, standin):
    done = house.finish(house.eraser.erase([USER]))
    requests = len(standin.requests)

    again = house.eraser.erase([USER], receipt=done)

    assert again == done
    assert len(standin.requests) == requests
    assert len(house.ledger.erased) == 1


def test_the_ledger_holds_the_links_until_mixpanel_is_done(house):
    begun = house.eraser.erase([USER])
    links = len(house.ledger.links)

    done = house.finish(begun)

    assert (begun.cleared_at, begun.warnings, begun.problems) == (None, (NOT_CLEARED,), ())
    assert (done.cleared_at, done.warnings) == (house.clock.now, ())
    assert (links, house.ledger.links) == (2, [])


def test_mixpanel_that_does_not_say_how_far_it_is_clears_nothing(house, standin):
    begun = house.eraser.erase([USER])
    standin.privacy.finish()
    standin.misbehave(Fault.UNAVAILABLE, None)

    receipt = house.eraser.erase([USER], receipt=begun)

    (problem,) = receipt.problems
    assert problem.startswith("Mixpanel did not say how far the jobs are: ")
    assert receipt.cleared_at is None
    assert len(house.ledger.links) == 2


def test_who_does_not_say_how_far_the_jobs_are_is_not_asked_for_more(house, standin):
    standin.misbehave(Fault.UNAVAILABLE, None)
    begun = house.eraser.erase([USER])
    taken = Job("task-1", Subject.USER, (USER.key,))
    before = len(standin.requests)

    receipt = house.eraser.erase([USER], receipt=dataclasses.replace(begun, jobs=(taken,)))

    assert {request.method for request in standin.requests[before:]} == {"GET"}
    assert len(receipt.problems) == 1


def test_what_is_finished_needs_no_token_any_more(house, standin):
    done = house.finish(house.eraser.erase([USER]))

    assert House(None, standin).eraser.erase([USER], receipt=done) == done


def test_without_the_token_a_later_run_cannot_tell_and_says_so(house, standin):
    begun = house.eraser.erase([USER])
    later = House(None, standin)

    receipt = later.finish(begun)

    assert receipt.problems == (NOT_ASKED,)
    assert later.ledger.erased == []


LATE = READER.device("11111111-1111-4111-8111-111111111111")


def test_a_device_that_comes_to_light_during_the_fence_is_erased_too(house, standin):
    house.late_links = [make_link("U1", LATE.id, NOW - 1)]

    receipt = house.eraser.erase([USER], reveals=True)

    assert house.story == ["entombed_at", "fence", "purge", "fence", "purge", "jobs"]
    assert (LATE.key, ActState.ERASED) in [(act.key, act.state) for act in house.ledger.acts]
    assert LATE.key in house.purged[-1][0]
    assert LATE.distinct_ids[0] in standin.privacy.jobs[-1].distinct_ids
    assert (Subject.DEVICE, LATE.id) in receipt.ids


def test_another_name_of_a_device_that_comes_to_light_during_the_fence_is_erased_too(api, standin):
    house = House(api, standin, reader=make_reader(IdentityMode.ORIGINAL))
    house.ledger.links = [make_link("U1", DEVICE, NOW - 9, "m")]
    house.late_links = [make_link("U1", DEVICE, NOW - 1, "d")]

    receipt = house.eraser.erase([USER])

    assert standin.privacy.jobs[-1].distinct_ids == (DEVICE, f"$device:{DEVICE}")
    assert len(receipt.named) == 2


def test_a_device_that_comes_to_light_after_the_jobs_is_erased_by_a_later_run(house, standin):
    begun = house.eraser.erase([USER])
    house.ledger.links.append(make_link("U1", LATE.id, NOW - 1))

    again = house.finish(begun)

    assert [job.distinct_ids for job in standin.privacy.jobs][2:] == [LATE.distinct_ids]
    assert again.cleared_at is None
    assert house.finish(again).cleared_at is not None


def test_only_the_missing_half_is_asked_for(house, standin):
    first = house.eraser.find([USER])
    taken = []
    house.eraser._desk.place([first[0]], Compliance.GDPR, taken.append)
    begun = Receipt(started_at=NOW, named=((Subject.USER, USER.key),), jobs=tuple(taken))

    receipt = house.eraser.erase([USER], receipt=begun)

    assert [job.distinct_ids for job in standin.privacy.jobs] == [
        ("U1",),
        (f"$device:{DEVICE}", f"$device:{OTHER_DEVICE}"),
    ]
    assert receipt.is_taken


def test_a_device_that_is_new_to_the_receipt_goes_through_every_step(house):
    begun = Receipt(
        started_at=NOW,
        named=((Subject.USER, USER.key), (Subject.DEVICE, DEVICES[0].key)),
        entombed_at=NOW,
        fenced_at=NOW,
        purged_at=NOW,
        cleared_at=NOW,
    )

    receipt = house.eraser.erase([USER], receipt=begun)

    new = DEVICES[1].key
    assert new in [act.key for act in house.ledger.acts]
    assert "fence" in house.story
    assert new in house.purged[0][0]
    assert house.finish(receipt).cleared_at is not None
    assert new in house.ledger.erased[0][0]


def test_what_a_person_did_after_the_erasure_is_left_alone(house, standin):
    standin.misbehave(Fault.UNAVAILABLE, None)
    failed = house.eraser.erase([USER])
    standin.behave()
    house.ledger.links.append(make_link("U1", LATE.id, house.clock.now + 60))

    receipt = house.eraser.erase([USER], receipt=failed)

    assert LATE.key not in {key for _, key in receipt.named}


def test_a_receipt_of_other_people_is_refused(house):
    receipt = Receipt(started_at=NOW, named=((Subject.USER, KEYS.user_key("U2")),))

    with pytest.raises(UnusableReceipt, match="other people"):
        house.eraser.erase([USER], receipt=receipt)

    assert house.saved == []


def test_without_a_token_the_local_part_is_done_and_the_rest_named(standin):
    house = House(None, standin)

    receipt = house.eraser.erase([USER])

    assert receipt.problems == (NOT_ASKED,)
    assert receipt.entombed_at is not None
    assert (receipt.purged, receipt.cleared_at) == (3, None)
    assert house.eraser.wait(receipt) == receipt


def test_without_a_ledger_what_waits_goes_before_the_fence_and_the_receipt_warns(api, standin):
    house = House(api, standin, has_ledger=False)

    receipt = house.eraser.erase([USER])

    assert house.story == ["purge", "fence", "jobs"]
    assert receipt.warnings == (NOT_STOPPED,)
    assert receipt.problems == ()
    assert [job.distinct_ids for job in standin.privacy.jobs] == [("U1",)]


def test_what_is_out_of_reach_is_not_claimed(api, standin):
    house = House(api, standin, has_purge=False, has_fence=False)

    receipt = house.finish(house.eraser.erase([USER]))

    assert (receipt.fenced_at, receipt.purged_at) == (None, None)
    assert receipt.cleared_at is not None


def test_a_ledger_that_fails_at_the_end_is_a_problem_and_no_loss(house, standin):
    begun = house.eraser.erase([USER])
    house.ledger.failures.append("erase")

    receipt = house.finish(begun)
    again = house.eraser.erase([USER], receipt=receipt)

    assert "Mixpanel is not asked twice" in receipt.problems[0]
    assert len(standin.privacy.jobs) == 2
    assert (again.problems, again.cleared) == ((), 1)


def test_waiting_ends_with_how_the_jobs_ended(house, standin):
    receipt = house.eraser.erase([USER])
    standin.privacy.finish()

    receipt = house.eraser.wait(receipt)

    assert receipt.is_finished
    assert receipt.problems == ()
    assert house.saved[-1] == receipt


def test_a_lost_job_is_asked_for_again(house, standin):
    receipt = house.eraser.erase([DEVICES[0]])
    standin.privacy.fail()
    receipt = house.eraser.wait(receipt)
    states = [job.status.state for job in receipt.jobs]

    receipt = house.eraser.erase([DEVICES[0]], receipt=receipt)

    assert states == [JobState.FAILURE]
    assert [job.status.state for job in receipt.jobs] == [JobState.FAILURE, JobState.PENDING]
    assert (receipt.is_taken, receipt.problems) == (True, ())


@pytest.mark.parametrize("state", [State.FAILURE, State.REVOKED], ids=lambda state: state.value)
def test_a_deletion_that_mixpanel_lost_finds_the_devices_again(house, standin, state):
    receipt = house.eraser.erase([USER])
    users, devices = standin.privacy.jobs
    users.state, devices.state = State.SUCCESS, state

    receipt = house.eraser.erase([USER], receipt=receipt)

    assert [job.distinct_ids for job in standin.privacy.jobs][2:] == [devices.distinct_ids]
    assert (receipt.problems, receipt.cleared_at) == ((), None)
    assert house.finish(receipt).cleared_at is not None


def test_jobs_that_mixpanel_does_not_know_are_placed_again(house, standin):
    receipt = house.eraser.erase([USER])
    standin.privacy.clear()
    house.clock.advance(60)

    receipt = house.eraser.erase([USER], receipt=receipt)

    assert [job.distinct_ids[0] for job in standin.privacy.jobs] == ["U1", f"$device:{DEVICE}"]
    assert [job.status.state for job in receipt.jobs][:2] == [JobState.NOT_FOUND] * 2


def test_a_lost_job_about_devices_that_are_not_known_any_more_is_told(house, standin):
    receipt = house.eraser.erase([USER])
    standin.privacy.fail()
    house.ledger.links.clear()

    receipt = house.eraser.erase([USER], receipt=receipt)

    assert "IDs are not known here any more" in receipt.problems[0]
    assert standin.privacy.jobs[-1].distinct_ids == ("U1",)
