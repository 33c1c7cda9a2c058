import json
import threading

import anyio
import pytest
from prometheus_client.parser import text_string_to_metric_families

from mp_asgi import Analytics, MixpanelMiddleware, Tracker
from mp_asgi.delivery.outbox.memory import MemoryOutbox
from mp_asgi.endpoints import mount_asgi
from mp_asgi.endpoints.message import Request
from mp_asgi.endpoints.mount import Mount
from mp_asgi.errors import OutboxUnavailable
from mp_asgi.head import RequestHead
from tests.endpoints.site import SAME_ORIGIN, asgi_app, open_site
from tests.probes import http_scope, serve
from tests.support import TIMEOUT, RecordingSink, RecordingTransport, make_core, make_settings

TOKEN = "a-token-of-the-operators"
WITH_TOKEN = {"mount": "/_mp", "metrics_token": TOKEN}
BEARER = {"authorization": f"Bearer {TOKEN}"}
PATHS = ["/_mp/metrics", "/_mp/health"]


@pytest.fixture(params=["asgi", "wsgi"])
def site(request):
    with open_site(request.param, metrics_token=TOKEN, flush_interval=3_600.0) as site:
        yield site


def make_analytics(make_outbox=MemoryOutbox, **settings):
    """Answer an assembly over such an outbox. Nothing is tracked, so no thread starts."""
    given = make_settings(**{**WITH_TOKEN, **settings})
    return Analytics(given, outbox=lambda: make_outbox(given), transport=RecordingTransport)


def ask(core, path, **headers):
    """Ask the mount as either door does, without one."""
    raw = {name.encode(): value.encode() for name, value in (headers or BEARER).items()}
    tracker = Tracker((core, RequestHead, 1.0, "https", None, []))
    return Mount(core.settings).answer(Request("GET", path, raw.get), tracker)


class SilentOutbox(MemoryOutbox):
    """An outbox whose storage does not answer."""

    def stats(self):
        raise OutboxUnavailable("redis at shop:6379 does not answer.")


class GatedOutbox(MemoryOutbox):
    """An outbox that answers once its gate is open."""

    asked = threading.Event()
    gate = threading.Event()

    def stats(self):
        self.asked.set()
        if not self.gate.wait(TIMEOUT):
            raise AssertionError("the gate was never opened")
        return super().stats()


# --- what is told ---------------------------------------------------------------------------------


def read(answer):
    """Answer the value of every sample, by name and reason."""
    return {
        (sample.name.removeprefix("mp_asgi_"), sample.labels.get("reason", "")): sample.value
        for family in text_string_to_metric_families(answer.body.decode())
        for sample in family.samples
    }


def total(found, name):
    return sum(number for (name_found, _), number in found.items() if name_found == name)


def test_what_is_accepted_is_accounted_for_in_every_scrape(site):
    site.ask(path="/")  # refused: nobody agreed
    site.post(analytics="granted")
    site.seen()
    site.ask(path="/")

    site.analytics.flush(TIMEOUT)
    found = read(site.ask(path="/_mp/metrics", headers=BEARER))

    assert found["accepted_total", ""] == found["delivered_total", ""] == 2
    accounted = (total(found, f"{name}_total") for name in ("delivered", "buried", "dropped"))
    assert found["accepted_total", ""] + found["replayed_total", ""] == (
        sum(accounted) + found["waiting", ""]
    )
    assert found["refused_total", "no-choice"] == 1


def test_a_page_of_metrics_names_its_format(site):
    answer = site.ask(path="/_mp/metrics", headers=BEARER)

    assert answer.status == 200
    assert answer.header("content-type") == "text/plain; version=0.0.4; charset=utf-8"
    assert b'mp_asgi_info{version="' in answer.body
    assert b'outbox="memory"' in answer.body


def test_health_is_told_in_json(site):
    answer = site.ask(path="/_mp/health", headers=BEARER)

    assert answer.status == 200
    assert answer.header("content-type") == "application/json"
    assert answer.json == {"ok": True, "problems": [], "warnings": []}


def test_a_problem_takes_the_process_out_of_rotation(tmp_path):
    # Somebody's outbox that is not what the settings promise.
    strict = {"outbox": f"sqlite:///{tmp_path}/outbox.db", "durability": "strict"}
    analytics = make_analytics(**strict)

    response = ask(analytics.core, "/_mp/health")

    told = json.loads(response.body())
    assert (response.status, told["ok"]) == (503, False)
    assert "MP_ASGI_DURABILITY is strict" in told["problems"][0]


def test_a_storage_that_is_silent_is_a_warning_and_no_metrics():
    core = make_analytics(SilentOutbox).core

    health, metrics = ask(core, "/_mp/health"), ask(core, "/_mp/metrics")

    assert health.status == 200
    told = json.loads(health.body())["warnings"]
    assert told == ["The outbox does not answer: redis at shop:6379 does not answer."]
    assert metrics.status == 503
    assert json.loads(metrics.body()) == {"error": "redis at shop:6379 does not answer."}


# --- to whom --------------------------------------------------------------------------------------

STRANGERS = [
    pytest.param({}, id="nobody"),
    pytest.param({"authorization": TOKEN}, id="without-a-scheme"),
    pytest.param({"authorization": f"Basic {TOKEN}"}, id="another-scheme"),
    pytest.param({"authorization": f"Bearer {TOKEN}x"}, id="longer"),
    pytest.param({"authorization": f"Bearer {TOKEN[:-1]}"}, id="shorter"),
    pytest.param({"authorization": "Bearer "}, id="empty"),
    pytest.param({"authorization": f"Bearer {TOKEN}, Bearer {TOKEN}"}, id="twice"),
    pytest.param({"authorization": "Bearer \xe9\xff"}, id="not-ascii"),
    pytest.param({"cookie": f"token={TOKEN}"}, id="in-a-cookie"),
]


@pytest.mark.parametrize("headers", STRANGERS)
@pytest.mark.parametrize("path", PATHS)
def test_a_stranger_learns_nothing(site, path, headers):
    answer = site.ask(path=path, headers=headers)

    assert answer.status == 401
    assert answer.header("www-authenticate") == 'Bearer realm="mp-asgi"'
    assert answer.header("cache-control") == "no-store"
    assert answer.json == {"error": "Send the metrics token as a bearer token."}


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "Bearer  "])
def test_the_scheme_is_read_as_http_wants(site, scheme):
    headers = {"authorization": f"{scheme} {TOKEN}"}

    assert site.ask(path="/_mp/health", headers=headers).status == 200


def test_a_token_in_the_url_is_none(site):
    assert site.ask(path=f"/_mp/metrics?token={TOKEN}").status == 401


@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
@pytest.mark.parametrize("path", PATHS)
def test_without_the_setting_there_is_no_such_endpoint(kind, path):
    with open_site(kind) as site:
        assert site.ask(path=path, headers={"authorization": "Bearer "}).status == 404


@pytest.mark.parametrize("path", PATHS)
def test_an_operator_is_no_visitor(site, path):
    site.post(analytics="granted")
    site.seen()

    answer = site.ask(path=path, headers=BEARER)

    assert answer.header("set-cookie") is None
    assert answer.header("vary") is None
    assert answer.header("cache-control") == "no-store"
    assert answer.header("x-content-type-options") == "nosniff"


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("method", "status"), [("HEAD", 200), ("POST", 405), ("OPTIONS", 405)], ids=str
)
def test_operators_only_read(site, path, method, status):
    answer = site.ask(method, path, headers={**BEARER, **SAME_ORIGIN})

    assert answer.status == status
    assert (answer.body == b"") is (method == "HEAD")


@pytest.mark.parametrize("path", PATHS)
def test_where_nobody_counts_there_is_nothing_to_tell(path):
    core = make_core(sink=RecordingSink(), **WITH_TOKEN)

    assert ask(core, path).status == 404


# --- on an event loop -----------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
async def test_a_storage_that_is_slow_stops_no_other_request(path):
    GatedOutbox.asked.clear()
    GatedOutbox.gate.clear()
    analytics = make_analytics(GatedOutbox)
    app = MixpanelMiddleware(mount_asgi(asgi_app, analytics.settings), analytics=analytics)
    scope = http_scope((b"authorization", BEARER["authorization"].encode()), path=path)
    wires = []

    async def scrape():
        wires.append(await serve(app, scope))

    async def open_gate():
        assert await anyio.to_thread.run_sync(GatedOutbox.asked.wait, TIMEOUT)
        GatedOutbox.gate.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(scrape)
        tasks.start_soon(open_gate)

    assert wires[0].sent[0]["status"] == 200
