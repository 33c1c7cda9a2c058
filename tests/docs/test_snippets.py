"""What the README and the docs show is what runs: code compiles, apps answer, files are there."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from fastapi import FastAPI
from flask import Flask
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.testclient import TestClient

from mp_asgi import Analytics
from mp_asgi.dev import StandIn, run_in_thread

ROOT = Path(__file__).parents[2]
PAGES = [path for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md") if path.exists()]
PAGES += sorted((ROOT / "docs").glob("*.md"))
FENCE = re.compile(r"^(?P<fence>`{3,})python\b[^\n]*\n(?P<code>.*?)^(?P=fence)", re.DOTALL | re.M)
IMPORTS = (ast.Import, ast.ImportFrom)
GRANTED = {"X-MP-Consent": "granted"}


class Snippet(NamedTuple):
    """One Python block of a page."""

    page: Path
    line: int
    code: str

    def compile(self) -> Any:
        # Padded, so that an error names the line of the page.
        tree = ast.parse("\n" * self.line + self.code, self.page.name)
        return compile(tree, self.page.name, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)

    def is_app(self) -> bool:
        """Whether it makes an app of a framework by itself."""
        return re.search(r"^app = (Starlette|FastAPI|Flask)\(", self.code, re.M) is not None

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def find_snippets(page: Path) -> Iterator[Snippet]:
    text = page.read_text("utf-8")
    for match in FENCE.finditer(text):
        yield Snippet(page, text.count("\n", 0, match.start("code")), match["code"])


SNIPPETS = [snippet for page in PAGES for snippet in find_snippets(page)]


def test_the_readme_shows_code() -> None:
    assert [snippet for snippet in SNIPPETS if snippet.page.name == "README.md"]


@pytest.mark.parametrize("snippet", SNIPPETS, ids=str)
def test_every_snippet_compiles(snippet: Snippet) -> None:
    snippet.compile()


@pytest.mark.parametrize("snippet", SNIPPETS, ids=str)
def test_what_a_snippet_imports_is_there(snippet: Snippet) -> None:
    nodes = [node for node in ast.parse(snippet.code).body if isinstance(node, IMPORTS)]
    names: dict[str, Any] = {}

    exec(compile(ast.Module(nodes, []), snippet.page.name, "exec"), names)

    assert len(names) > len(nodes)


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[StandIn, str]]:
    standin = StandIn("t0ken")
    with run_in_thread(standin) as address:
        yield standin, address.url


@pytest.fixture
def standin(served: tuple[StandIn, str], monkeypatch: pytest.MonkeyPatch) -> StandIn:
    standin, url = served
    standin.reset()
    monkeypatch.setenv("MIXPANEL_TOKEN", "t0ken")
    monkeypatch.setenv("MIXPANEL_API_HOST", url)
    monkeypatch.setenv("MP_ASGI_SECRET_KEYS", "k" * 32)
    return standin


def visit_all(app: Any) -> list[int]:
    """Let a consenting visitor use every route; answer the statuses."""
    if isinstance(app, Flask):
        client = app.test_client()
        rules = [rule for rule in app.url_map.iter_rules() if rule.endpoint != "static"]
        answers = [
            client.open(rule.rule, method=_method(rule.methods), headers=GRANTED, buffered=True)
            for rule in rules
        ]
        _close(app.extensions["mixpanel"])
        return [answer.status_code for answer in answers]
    assert isinstance(app, (Starlette, FastAPI))
    shown = [route for route in app.routes if isinstance(route, Route) and _is_shown(route)]
    # The shutdown delivers.
    with TestClient(app) as http:
        return [
            http.request(
                _method(route.methods), route.path, headers=GRANTED, json={"decision": "grant"}
            ).status_code
            for route in shown
        ]


def _is_shown(route: Route) -> bool:
    return not route.path.startswith(("/openapi", "/docs", "/redoc"))


def _method(methods: Any) -> str:
    return min(set(methods) - {"HEAD", "OPTIONS"})


def _close(analytics: Analytics) -> None:
    assert analytics.close(10.0)


@pytest.mark.parametrize("snippet", [item for item in SNIPPETS if item.is_app()], ids=str)
def test_every_app_answers_and_its_events_arrive(snippet: Snippet, standin: StandIn) -> None:
    names: dict[str, Any] = {"__name__": f"snippet_{snippet.line}"}
    exec(snippet.compile(), names)

    statuses = visit_all(names["app"])

    assert statuses
    assert all(status < 300 for status in statuses), statuses
    tracked = set(re.findall(r'\.track\(\s*"([^"]+)"', snippet.code))
    assert {event["event"] for event in standin.events} == tracked
    assert standin.rejected == []


LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)")
TEST_PATH = re.compile(r"`(tests/[\w/.]+)`")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_and_every_named_test_leads_to_a_file(page: Path) -> None:
    text = page.read_text("utf-8")
    links = [page.parent / target for target in LINK.findall(text)]
    tests = [ROOT / path for path in TEST_PATH.findall(text)]

    assert [str(path) for path in (*links, *tests) if not path.exists()] == []
