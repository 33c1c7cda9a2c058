from mp_asgi.erasure.eraser import NOT_ASKED
from mp_asgi.erasure.jobs import JobState
from mp_asgi.erasure.retriever import Retriever
from mp_asgi.events import Act, ActState, Subject
from tests.erasure.support import DEVICE, MemoryLedger, make_link, make_reader
from tests.support import NOW

READER = make_reader()
USER = READER.user("U1")


def make_ledger():
    return MemoryLedger(
        acts=[Act(key=USER.key, subject=Subject.USER, state=ActState.GRANTED, at=NOW)],
        links=[make_link("U1", DEVICE, NOW)],
    )


def test_both_sides_are_asked_about_a_user_and_their_devices(api, standin):
    retrieval = Retriever(READER, make_ledger(), api).retrieve([USER])

    assert [(finding.person, finding.records) for finding in retrieval.findings] == [
        (USER, ('{"state": "granted"}',)),
        (READER.device(DEVICE), ()),
    ]
    assert [job.distinct_ids for job in standin.privacy.jobs] == [("U1",), (f"$device:{DEVICE}",)]
    assert retrieval.problems == ()


def test_waiting_brings_the_links(api, standin):
    retriever = Retriever(READER, make_ledger(), api)
    retrieval = retriever.retrieve([USER])
    standin.privacy.finish()

    retrieval = retriever.wait(retrieval)

    assert {job.status.state for job in retrieval.jobs} == {JobState.SUCCESS}
    assert all(job.status.link.startswith("https://") for job in retrieval.jobs)


def test_a_lost_job_is_a_problem(api, standin):
    retriever = Retriever(READER, None, api)
    retrieval = retriever.retrieve([USER])
    standin.privacy.fail()

    assert retriever.wait(retrieval).problems == ("Task task-1 ended as FAILURE. Run this again.",)


def test_without_a_token_only_this_side_is_asked():
    retriever = Retriever(READER, make_ledger(), None)

    retrieval = retriever.retrieve([USER])

    assert len(retrieval.findings) == 2
    assert retrieval.problems == (NOT_ASKED,)
    assert retriever.wait(retrieval) == retrieval


def test_without_a_ledger_only_mixpanel_is_asked(api):
    retrieval = Retriever(READER, None, api).retrieve([USER])

    assert [finding.records for finding in retrieval.findings] == [()]
    assert len(retrieval.jobs) == 1
