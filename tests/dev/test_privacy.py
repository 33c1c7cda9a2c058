"""The stand-in speaks Mixpanel's GDPR API: who may ask, what it answers, what a deletion takes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from mp_asgi.dev import Fault, StandIn, run_in_thread
from tests.dev.messages import GOOD, GROUP, PERSON, post_import
from tests.support import FakeClock

OPENAPI = Path(__file__).parents[2] / "../shared/mixpanel/gdpr.openapi.yaml"
DELETIONS = "/api/app/data-deletions/v3.0"
RETRIEVALS = "/api/app/data-retrievals/v3.0"
BEARER = {"Authorization": "Bearer 0auth"}


class Asker:
    """A client of the API that keeps its pace, so that only its requests are judged."""

    def __init__(self, client: httpx.Client, clock: FakeClock) -> None:
        self.client = client
        self.clock = clock

    def ask(self, method: str, path: str, token: str = "T", **options: Any) -> httpx.Response:
        self.clock.advance(1)
        options = {"headers": BEARER, **options}
        return self.client.request(method, path, params={"token": token}, **options)

    def create(self, path: str = DELETIONS, *ids: str) -> str:
        answer = self.ask("POST", path, json={"distinct_ids": list(ids or ("U",))})
        return str(answer.json()["results"]["task_id"])

    def status(self, path: str, task_id: str) -> str:
        return str(self.ask("GET", f"{path}/{task_id}").json()["results"]["status"])


@pytest.fixture(scope="module")
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(scope="module")
def served(clock: FakeClock) -> Iterator[tuple[StandIn, httpx.Client]]:
    standin = StandIn("T", clock=clock, oauth_token="0auth")
    with (
        run_in_thread(standin) as server,
        httpx.Client(base_url=server.url, timeout=5) as client,
    ):
        yield standin, client


@pytest.fixture
def standin(served: tuple[StandIn, httpx.Client]) -> StandIn:
    served[0].reset()
    return served[0]


@pytest.fixture
def asker(standin: StandIn, served: tuple[StandIn, httpx.Client], clock: FakeClock) -> Asker:
    return Asker(served[1], clock)


@pytest.mark.parametrize("slash", ["", "/"], ids=["bare", "with-slash"])
@pytest.mark.parametrize("path", [DELETIONS, RETRIEVALS], ids=["deletion", "retrieval"])
def test_a_job_is_created_and_found(asker: Asker, path: str, slash: str) -> None:
    created = asker.ask("POST", path + slash, json={"distinct_ids": ["U", "V"]})
    task_id = created.json()["results"]["task_id"]
    found = asker.ask("GET", f"{path}/{task_id}{slash}")

    assert (created.status_code, created.json()["status"]) == (201, "ok")
    assert (found.status_code, found.json()["results"]["status"]) == (200, "PENDING")
    assert found.json()["results"]["distinct_ids"] == ["U", "V"]


@pytest.mark.parametrize(
    ("headers", "token", "status"),
    [
        pytest.param({}, "T", 401, id="nothing"),
        pytest.param({"Authorization": "Basic VDo="}, "T", 401, id="project-token"),
        pytest.param({"Authorization": "Bearer"}, "T", 401, id="empty-bearer"),
        pytest.param({"Authorization": "Bearer old"}, "T", 403, id="wrong-bearer"),
        pytest.param(BEARER, "", 403, id="no-project"),
        pytest.param(BEARER, "other", 403, id="wrong-project"),
    ],
)
def test_a_stranger_is_refused(
    asker: Asker, standin: StandIn, headers: dict[str, str], token: str, status: int
) -> None:
    answer = asker.ask("POST", DELETIONS, token, headers=headers, json={"distinct_ids": ["U"]})

    assert (answer.status_code, answer.json()["status"]) == (status, "error")
    assert standin.privacy.jobs == []


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"{", id="no-json"),
        pytest.param(b"[]", id="list"),
        pytest.param(b"{}", id="no-ids"),
        pytest.param(b'{"distinct_ids":[]}', id="empty-list"),
        pytest.param(b'{"distinct_ids":"U"}', id="text"),
        pytest.param(b'{"distinct_ids":["U",""]}', id="one-empty-id"),
        pytest.param(b'{"distinct_ids":["U",7]}', id="one-number"),
        pytest.param(b'{"distinct_ids":["' + b"x" * 256 + b'"]}', id="long-id"),
        pytest.param(b'{"distinct_ids":["U"],"compliance_type":[]}', id="unknown-law"),
        pytest.param(
            b'{"distinct_ids":[' + b",".join([b'"U"'] * 2000) + b"]}", id="more-than-1999"
        ),
    ],
)
def test_one_bad_id_spoils_the_request(asker: Asker, standin: StandIn, body: bytes) -> None:
    answer = asker.ask("POST", DELETIONS, content=body)

    assert answer.status_code == 400
    assert standin.privacy.jobs == []


def test_1999_ids_fit(asker: Asker, standin: StandIn) -> None:
    asker.create(DELETIONS, *map(str, range(1999)))

    assert len(standin.privacy.jobs[0].distinct_ids) == 1999


def test_a_second_request_within_a_second_is_too_much(
    asker: Asker, standin: StandIn, clock: FakeClock
) -> None:
    asker.create()
    clock.advance(-0.5)

    refused = asker.ask("GET", f"{DELETIONS}/task-1")
    clock.advance(-0.9)
    standin.privacy.has_limit = False
    served = asker.ask("GET", f"{DELETIONS}/task-1")

    assert (refused.status_code, served.status_code) == (429, 200)


def test_the_sample_of_the_docs_has_other_shapes(asker: Asker, standin: StandIn) -> None:
    standin.privacy.shape = "list"

    created = asker.ask("POST", RETRIEVALS, json={"distinct_ids": ["U"]}).json()["results"]
    standin.privacy.finish()
    found = asker.ask("GET", f"{RETRIEVALS}/{created[0]['tracking_id']}").json()["results"]

    assert (created[0]["status"], created[0]["distinct_id_count"]) == ("PENDING", 1)
    assert found["result"].startswith("https://")
    assert "results" not in found


def test_a_job_goes_its_way(asker: Asker, standin: StandIn) -> None:
    task_id = asker.create(RETRIEVALS)
    states = [asker.status(RETRIEVALS, task_id)]

    for _ in range(4):
        asker.client.post("/_mp/jobs/advance")
        states.append(asker.status(RETRIEVALS, task_id))

    assert states == ["PENDING", "STAGING", "STARTED", "SUCCESS", "SUCCESS"]


def test_a_job_may_fail_unless_it_has_ended(asker: Asker, standin: StandIn) -> None:
    first = asker.create()
    standin.privacy.finish()
    second = asker.create()

    standin.privacy.fail()
    standin.privacy.advance()

    assert asker.status(DELETIONS, first) == "SUCCESS"
    assert asker.status(DELETIONS, second) == "FAILURE"


@pytest.mark.parametrize("path", [DELETIONS, RETRIEVALS], ids=["deletion", "retrieval"])
def test_an_unknown_job_is_not_found(asker: Asker, path: str) -> None:
    other = asker.create(RETRIEVALS if path == DELETIONS else DELETIONS)

    assert asker.status(path, "nothing") == "NOT_FOUND"
    assert asker.status(path, other) == "NOT_FOUND"


def test_a_link_comes_with_the_end(asker: Asker, standin: StandIn) -> None:
    task_id = asker.create(RETRIEVALS)
    before = asker.ask("GET", f"{RETRIEVALS}/{task_id}").json()["results"]["results"]

    standin.privacy.finish()

    after = asker.ask("GET", f"{RETRIEVALS}/{task_id}").json()["results"]["results"]
    assert (before, after) == ("", f"https://storage.example/{task_id}.zip")


def test_a_deletion_can_be_cancelled_until_it_starts(asker: Asker, standin: StandIn) -> None:
    first, second = asker.create(), asker.create()
    standin.privacy.advance()

    cancelled = asker.ask("DELETE", f"{DELETIONS}/{first}")
    standin.privacy.advance()
    too_late = asker.ask("DELETE", f"{DELETIONS}/{second}")

    assert (cancelled.status_code, cancelled.content) == (204, b"")
    assert asker.status(DELETIONS, first) == "REVOKED"
    assert too_late.status_code == 405


def test_what_is_not_there_cannot_be_cancelled(asker: Asker) -> None:
    retrieval = asker.create(RETRIEVALS)

    assert asker.ask("DELETE", f"{DELETIONS}/nothing").status_code == 404
    assert asker.ask("DELETE", f"{DELETIONS}/{retrieval}").status_code == 404


def test_a_finished_deletion_forgets_its_people_and_nobody_else(
    asker: Asker, standin: StandIn
) -> None:
    other = {"event": "B", "properties": {**GOOD["properties"], "distinct_id": "V"}}
    post_import(asker.client, GOOD, other)
    asker.client.post("/engage", json=PERSON)
    asker.client.post("/groups", json=GROUP)
    run = asker.client.get("/_mp/feed").json()["run"]
    asker.create(DELETIONS, "U")

    standin.privacy.finish()

    assert standin.events == [other]
    assert standin.people == []
    assert standin.groups == [GROUP]
    feed = asker.client.get("/_mp/feed", params={"after": 99, "run": run}).json()
    assert len(feed["items"]) == 2


def test_a_deletion_forgets_once(asker: Asker, standin: StandIn) -> None:
    asker.create(DELETIONS, "U")
    standin.privacy.finish()
    post_import(asker.client, GOOD)

    standin.privacy.advance()

    assert standin.events == [GOOD]


def test_a_retrieval_forgets_nobody(asker: Asker, standin: StandIn) -> None:
    post_import(asker.client, GOOD)
    asker.create(RETRIEVALS, "U")

    standin.privacy.finish()

    assert standin.events == [GOOD]


def test_jobs_are_shown(asker: Asker) -> None:
    asker.create(DELETIONS, "U")
    asker.create(RETRIEVALS, "V")

    jobs = asker.client.get("/_mp/jobs").json()

    assert jobs == asker.client.get("/_mp/feed").json()["jobs"]
    assert [(job["kind"], job["state"], job["ids"]) for job in jobs] == [
        ("deletion", "PENDING", ["U"]),
        ("retrieval", "PENDING", ["V"]),
    ]


def test_a_fault_makes_no_job_unless_only_its_answer_is_lost(
    asker: Asker, standin: StandIn
) -> None:
    standin.misbehave(Fault.UNAVAILABLE, endpoint=DELETIONS)
    standin.misbehave(Fault.DROP, endpoint=DELETIONS)

    failed = asker.ask("POST", DELETIONS, json={"distinct_ids": ["U"]})
    with pytest.raises(httpx.RemoteProtocolError):
        asker.ask("POST", DELETIONS, json={"distinct_ids": ["V"]})

    assert failed.status_code == 503
    assert [job.distinct_ids for job in standin.privacy.jobs] == [("V",)]


def test_reset_forgets_the_jobs(asker: Asker, standin: StandIn) -> None:
    asker.create()
    standin.privacy.shape = "list"

    standin.reset()

    assert (standin.privacy.jobs, standin.privacy.shape) == ([], "object")


# What Mixpanel's OpenAPI file says


@pytest.fixture(scope="module")
def openapi() -> dict[str, Any]:
    if not OPENAPI.exists():
        pytest.skip("Mixpanel's OpenAPI file of the GDPR API is not beside this checkout")
    yaml = pytest.importorskip("yaml", reason="reads the OpenAPI file with PyYAML")
    loaded: dict[str, Any] = yaml.safe_load(OPENAPI.read_text(encoding="utf-8"))
    return loaded


def check(answer: httpx.Response, openapi: dict[str, Any], path: str, method: str) -> None:
    """Fail unless the file documents this status of this operation, and a body of this shape."""
    jsonschema = pytest.importorskip("jsonschema", reason="checks replies with jsonschema")
    responses = openapi["paths"][path][method]["responses"]
    documented = responses[str(answer.status_code)]
    if "content" in documented:
        schema = documented["content"]["application/json"]["schema"]
        jsonschema.validate(answer.json(), {**schema, "components": openapi["components"]})


@pytest.mark.parametrize("name", ["data-deletions", "data-retrievals"])
def test_replies_are_as_documented(
    asker: Asker, standin: StandIn, openapi: dict[str, Any], name: str
) -> None:
    path = f"/{name}/v3.0"

    created = asker.ask("POST", f"/api/app{path}", json={"distinct_ids": ["U"]})
    check(created, openapi, path, "post")
    for _ in range(3):
        found = asker.ask("GET", f"/api/app{path}/task-1")
        check(found, openapi, path + "/{tracking_id}", "get")
        standin.privacy.advance()
    check(asker.ask("GET", f"/api/app{path}/no"), openapi, path + "/{tracking_id}", "get")
    check(asker.ask("POST", f"/api/app{path}", headers={}), openapi, path, "post")


def test_a_cancellation_is_answered_as_documented(asker: Asker, openapi: dict[str, Any]) -> None:
    path = "/data-deletions/v3.0/{tracking_id}"
    asker.create()

    check(asker.ask("DELETE", f"{DELETIONS}/task-1"), openapi, path, "delete")
    check(asker.ask("DELETE", f"{DELETIONS}/task-1", headers={}), openapi, path, "delete")
