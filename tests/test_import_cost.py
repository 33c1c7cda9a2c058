"""`import mp_asgi` brings in little: what an app does not use, it does not pay for."""

import subprocess
import sys

import pytest

HEAVY = [
    *("mixpanel", "requests", "httpx", "httpx2", "urllib3"),
    *("flask", "flask_login", "werkzeug", "fastapi", "pydantic", "django", "litestar", "quart"),
    *("ua_parser", "ua_parser_rs", "crawleruseragents"),
    *("redis", "sqlite3", "sqlalchemy", "cryptography", "rich", "uvicorn"),
    *("anyio._backends", "asyncio", "trio"),
    *("starlette.applications", "starlette.requests", "starlette.responses"),
    *("mp_asgi.dev", "mp_asgi.cli", "mp_asgi.integrations"),
]


def modules_after(code: str) -> set[str]:
    code = f"{code}\nimport sys\nprint(*sys.modules)"
    # -I: nothing but the installed package, as in an app. -X importtime would cost more.
    run = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True
    )
    return set(run.stdout.split())


@pytest.fixture(scope="module")
def imported() -> set[str]:
    # Less what the virtual environment itself brings in at every start.
    return modules_after("import mp_asgi") - modules_after("")


@pytest.mark.parametrize("name", HEAVY)
def test_importing_us_does_not_import(imported: set[str], name: str) -> None:
    assert [found for found in imported if found == name or found.startswith(f"{name}.")] == []


def test_importing_us_starts_no_thread() -> None:
    code = "import mp_asgi, threading\nassert threading.active_count() == 1"

    subprocess.run([sys.executable, "-I", "-c", code], check=True)


@pytest.mark.parametrize("name", ["mixpanel", "requests", "httpx", "flask", "fastapi", "urllib3"])
def test_serving_a_request_that_tracks_nothing_does_not_import(name: str) -> None:
    code = """
import mp_asgi
from wsgiref.util import setup_testing_defaults

def app(environ, start_response):
    start_response("200 OK", [])
    return []

environ = {}
setup_testing_defaults(environ)
middleware = mp_asgi.MixpanelWSGIMiddleware(app, token="t", secret_keys=["k" * 32])
middleware(environ, lambda *call: None)
"""
    found = modules_after(code) - modules_after("")

    assert [module for module in found if module.partition(".")[0] == name] == []
