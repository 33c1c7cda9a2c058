"""Run the example shops as their servers do, against a stand-in."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx

from mp_asgi.dev import StandIn, run_in_thread

TOKEN = "0" * 32
ADDED = "Added to Cart"
PAGE_VIEW = "$mp_web_page_view"
TRIED = "Tried in the Page"
COMMANDS = {
    "starlette under uvicorn": ["uvicorn", "examples.starlette_app.main:app", "--fd", "{fd}"],
    "flask under gunicorn": [
        "gunicorn",
        "examples.flask_app.main:app",
        "--threads",
        "4",
        "--bind",
        "fd://{fd}",
    ],
}


@dataclass
class Shop:
    """A shop that runs, and the Mixpanel it believes in."""

    url: str
    standin: StandIn

    def arrived(self, *names: str) -> list[dict[str, Any]]:
        """Answer the properties of the visitor's events, once whatever was sent has come.

        Args:
            names: Of the events; without any, what was added to the cart.
        """
        # Another visitor's event, sent later, comes behind everything that was sent before it.
        name = f"Barrier {uuid4()}"
        track_as_another_visitor(self.url, name)
        self.standin.wait_for(lambda standin: name in [e["event"] for e in standin.events])
        events = self.standin.events
        known = {ADDED, PAGE_VIEW, TRIED}
        assert {e["event"] for e in events if not e["event"].startswith("Barrier ")} <= known
        return [event["properties"] for event in events if event["event"] in (names or {ADDED})]


def track_as_another_visitor(url: str, name: str) -> None:
    with httpx.Client(base_url=url, timeout=10) as other:
        other.post("/consent", json={"decision": "grant"}).raise_for_status()
        other.post("/track", json={"event": name}).raise_for_status()


@contextmanager
def run_shop(command: list[str], api_host: str, **variables: str) -> Iterator[str]:
    # The socket listens before the server is there: connections wait instead of failing.
    with socket.create_server(("127.0.0.1", 0)) as listener:
        foreign = ("MIXPANEL_", "MP_ASGI_")
        environ = {name: text for name, text in os.environ.items() if not name.startswith(foreign)}
        environ |= {
            "MIXPANEL_TOKEN": TOKEN,
            "MIXPANEL_API_HOST": api_host,
            "MP_ASGI_SECRET_KEYS": "k" * 32,
            "MP_ASGI_FLUSH_INTERVAL": "0.05",
            # Headless Chromium and httpx say what they are.
            "MP_ASGI_EXCLUDE_BOTS": "0",
            **variables,
        }
        fd = listener.fileno()
        words = [word.format(fd=fd) for word in command]
        server = subprocess.Popen([sys.executable, "-m", *words], env=environ, pass_fds=[fd])
        try:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            httpx.get(url + "/whoami", timeout=30).raise_for_status()
            yield url
        finally:
            server.terminate()
            server.wait(timeout=30)


@contextmanager
def run_example(name: str) -> Iterator[Shop]:
    """Run one of `COMMANDS` with a stand-in of its own."""
    standin = StandIn(TOKEN)
    with run_in_thread(standin) as server, run_shop(COMMANDS[name], server.url) as url:
        yield Shop(url, standin)
