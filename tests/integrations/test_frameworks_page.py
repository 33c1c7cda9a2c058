"""What docs/frameworks.md shows for Django, Litestar and Quart runs and reaches Mixpanel.

The apps of the other frameworks are run with those of every page.
"""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from django.core.handlers.asgi import ASGIHandler
from django.http import HttpRequest, HttpResponse
from django.template import Context, Engine
from django.test import RequestFactory
from django.test.utils import override_settings
from starlette.testclient import TestClient

from mp_asgi.dev import StandIn
from mp_asgi.integrations.django import MixpanelMiddleware
from tests.docs.test_snippets import GRANTED, SNIPPETS, Snippet, served, standin
from tests.doors import wait_until
from tests.integrations import django_project
from tests.support import TIMEOUT

__all__ = ["served", "standin"]  # fixtures

SHOWN = [item for item in SNIPPETS if item.page.name == "frameworks.md" and not item.is_app()]


Run = Callable[[str], dict[str, Any]]


def find(mark: str) -> Snippet:
    (found,) = [snippet for snippet in SHOWN if re.search(mark, snippet.code)]
    return found


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Answer what imports the snippet with this mark, as the module that it is in an app."""

    def run(mark: str) -> dict[str, Any]:
        snippet = find(mark)
        module = ModuleType(f"snippet_{snippet.line}")
        monkeypatch.setitem(sys.modules, module.__name__, module)  # Litestar reads the hints there
        exec(snippet.compile(), vars(module))
        return vars(module)

    return run


@pytest.mark.parametrize(
    "mark",
    [r"\napp = MixpanelMiddleware\(Litestar", r"middleware=\[with_mixpanel\]"],
    ids=["wrapped", "inside"],
)
def test_litestars_event_arrives_by_its_shutdown(standin: StandIn, run: Run, mark: str) -> None:
    with TestClient(run(mark)["app"]) as http:
        answer = http.get("/orders", headers=GRANTED)

    assert answer.status_code == 200
    assert [event["event"] for event in standin.events] == ["Orders Seen"]


def test_quarts_event_arrives_by_its_shutdown_with_the_user(standin: StandIn, run: Run) -> None:
    with TestClient(run("app = Quart")["app"]) as http:
        http.post("/log-in", headers=GRANTED)

    (event,) = standin.events
    assert (event["event"], event["properties"]["$user_id"]) == ("Logged In", "17")


def test_djangos_settings_and_views_work_together(
    standin: StandIn, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MP_ASGI_FLUSH_INTERVAL", "0.01")
    shown = run("MIDDLEWARE = ")
    settings = {name: value for name, value in shown.items() if name.isupper()}
    urls = tuple(run("urlpatterns = ")["urlpatterns"])

    with override_settings(**settings, ROOT_URLCONF=urls):
        client = TestClient(ASGIHandler())
        answers = [client.get(path, headers=GRANTED) for path in ("/orders/", "/_mp/consent")]

    wait_until(lambda: bool(standin.events))
    assert [answer.status_code for answer in answers] == [200, 200]
    assert [item["event"] for item in standin.events] == ["Order Completed"]
    assert django_project.MIXPANEL not in settings["MIDDLEWARE"]


def test_djangos_jobs_share_the_assembly_of_its_requests(
    standin: StandIn, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = run("MIDDLEWARE = ")
    settings = {name: value for name, value in shown.items() if name.isupper()}
    urls = tuple(run("urlpatterns = ")["urlpatterns"])
    text = find("make_analytics").page.read_text("utf-8")
    (name,) = re.findall(r'`MP_ASGI_ANALYTICS = "(.+)"`', text)

    with override_settings(**settings, MP_ASGI_ANALYTICS=name, ROOT_URLCONF=urls):
        shared = run("make_analytics")
        monkeypatch.setitem(sys.modules, "shop.analytics", sys.modules[shared["__name__"]])
        assert TestClient(ASGIHandler()).get("/orders/", headers=GRANTED).status_code == 200
        shared["renew"]("17")
        assert shared["analytics"].close(TIMEOUT)

    assert {item["event"] for item in standin.events} == {"Order Completed", "Renewed"}


@pytest.mark.usefixtures("standin")
def test_djangos_template_hands_the_page_its_id() -> None:
    page = find("make_analytics").page.read_text("utf-8")
    (line,) = re.findall(r"^\{\{.*json_script.*\}\}$", page, re.M)
    request = RequestFactory(headers=GRANTED).get("/")

    def show(request: HttpRequest) -> HttpResponse:
        return HttpResponse(Engine().from_string(line).render(Context({"request": request})))

    shown = MixpanelMiddleware(show)(request).content.decode()

    assert re.fullmatch(
        r'<script id="mp-ids" type="application/json">\{.*"\$device_id": "[^"]+".*\}</script>',
        shown,
    )


def test_the_tests_that_are_shown_pass(tmp_path: Path) -> None:
    (tmp_path / "test_shop.py").write_text(find("def test_an_order_is_tracked").code)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]

    # Where no configuration of this project is found; the checkout may not be installed there.
    path = os.pathsep.join(sys.path)
    ran = subprocess.run(
        command,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (ran.returncode, "1 passed" in ran.stdout) == (0, True), ran.stdout + ran.stderr
