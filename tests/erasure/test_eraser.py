import pytest

from mp_asgi.dev import Fault
from mp_asgi.erasure.eraser import LEDGER_PEOPLE, NOT_ASKED, Eraser
from mp_asgi.erasure.jobs import Compliance, JobState
from mp_asgi.erasure.receipt import NOT_STOPPED, Receipt, UnusableReceipt
from mp_asgi.errors import MixpanelASGIError
from mp_asgi.events import Act, ActState, Subject
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

    def __init__(self, api, *, has_ledger=True, has_purge=True, has_fence=True):
        self.api = api
        self.clock = FakeClock()
        self.story = []
        self.saved = []
        self.purged = []
        self.ledger = MemoryLedger(
            acts=[Act(key=USER.key, subject=Subject.USER, state=ActState.GRANTED, at=NOW - 99)],
            links=[make_link("U1", DEVICE, NOW - 99), make_link("U1", OTHER_DEVICE, NOW - 9)],
        )
        self.eraser = Eraser(
            READER,
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

    def purge(self, keys, at):
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
def house(api):
    return House(api)


def test_the_steps_come_in_their_order(house):
    house.eraser.erase([USER])

    assert house.story == ["entombed_at", "fence", "purge", "jobs", "cleared_at"]


def test_a_user_is_erased_with_their_devices(house, standin):
    receipt = house.eraser.erase([USER], compliance=Compliance.CCPA)

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

    receipt = house.eraser.erase(people)

    assert house.ledger.sizes == [LEDGER_PEOPLE, 1]
    assert [len(keys) for keys, _ in house.ledger.erased] == [LEDGER_PEOPLE, 1]
    assert receipt.is_taken


def test_a_device_is_erased_alone(house, standin):
    house.eraser.erase([DEVICES[0]])

    assert [job.distinct_ids for job in standin.privacy.jobs] == [(f"$device:{DEVICE}",)]
    assert [act.key for act in house.ledger.acts if act.state is ActState.ERASED] == [
        DEVICES[0].key
    ]


def test_a_receipt_reveals_only_if_asked(house):
    hidden = house.eraser.erase([USER])
    revealed = House(house.api).eraser.erase([USER], reveals=True)

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


def test_running_again_goes_on_where_it_failed(house, standin):
    standin.misbehave(Fault.UNAVAILABLE, None)
    failed = house.eraser.erase([USER])
    standin.behave()
    house.story.clear()

    receipt = house.eraser.erase([USER], receipt=failed)

    assert house.story == ["entombed_at", "jobs", "cleared_at"]
    assert (len(house.purged), receipt.purged) == (1, 3)
    assert standin.privacy.jobs[0].distinct_ids == ("U1",)
    assert receipt.problems == ()
    assert receipt.started_at == failed.started_at


def test_a_job_that_was_taken_is_not_created_twice(house, standin):
    done = house.eraser.erase([USER])
    requests = len(standin.requests)

    again = house.eraser.erase([USER], receipt=done)

    assert again == done
    assert len(standin.requests) == requests
    assert len(house.ledger.erased) == 1


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

    house.eraser.erase([USER], receipt=begun)

    new = DEVICES[1].key
    assert new in [act.key for act in house.ledger.acts]
    assert "fence" in house.story
    assert new in house.purged[0][0]
    assert new in house.ledger.erased[0][0]


def test_what_a_person_did_after_the_erasure_is_left_alone(house, standin):
    standin.misbehave(Fault.UNAVAILABLE, None)
    failed = house.eraser.erase([USER])
    standin.behave()
    later = "11111111-1111-4111-8111-111111111111"
    house.ledger.links.append(make_link("U1", later, house.clock.now + 60))

    receipt = house.eraser.erase([USER], receipt=failed)

    assert KEYS.device_key(later) not in {key for _, key in receipt.named}


def test_a_receipt_of_other_people_is_refused(house):
    receipt = Receipt(started_at=NOW, named=((Subject.USER, KEYS.user_key("U2")),))

    with pytest.raises(UnusableReceipt, match="other people"):
        house.eraser.erase([USER], receipt=receipt)

    assert house.saved == []


def test_without_a_token_the_local_part_is_done_and_the_rest_named():
    house = House(None)

    receipt = house.eraser.erase([USER])

    assert receipt.problems == (NOT_ASKED,)
    assert receipt.entombed_at is not None
    assert (receipt.purged, receipt.cleared_at) == (3, None)
    assert house.eraser.wait(receipt) == receipt


def test_without_a_ledger_what_waits_goes_before_the_fence_and_the_receipt_warns(api, standin):
    house = House(api, has_ledger=False)

    receipt = house.eraser.erase([USER])

    assert house.story == ["purge", "fence", "jobs"]
    assert receipt.warnings == (NOT_STOPPED,)
    assert receipt.problems == ()
    assert [job.distinct_ids for job in standin.privacy.jobs] == [("U1",)]


def test_what_is_out_of_reach_is_not_claimed(api):
    receipt = House(api, has_purge=False, has_fence=False).eraser.erase([USER])

    assert (receipt.fenced_at, receipt.purged_at) == (None, None)
    assert receipt.cleared_at is not None


def test_a_ledger_that_fails_at_the_end_is_a_problem_and_no_loss(house, standin):
    house.ledger.failures.append("erase")

    receipt = house.eraser.erase([USER])
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


def test_a_lost_job_about_devices_that_are_not_known_any_more_is_told(house, standin):
    receipt = house.eraser.erase([USER])
    standin.privacy.fail()
    receipt = house.eraser.wait(receipt)

    receipt = house.eraser.erase([USER], receipt=receipt)

    assert "IDs are no longer known here" in receipt.problems[0]
    assert standin.privacy.jobs[-1].distinct_ids == ("U1",)
