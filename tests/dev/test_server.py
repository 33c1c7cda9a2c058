"""Servers in threads: they start, say where, and end."""

import socket
import urllib.request
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from mp_asgi.dev.server import run_in_thread, run_wsgi_in_thread

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse

asgi_app = Starlette(routes=[Route("/", lambda request: PlainTextResponse("hello"))])


def wsgi_app(environ: dict[str, Any], start_response: "StartResponse") -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]


async def broken_app(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no"})


def read(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return bytes(answer.read())


BOTH = pytest.mark.parametrize(
    ("serve", "app"),
    [(run_in_thread, asgi_app), (run_wsgi_in_thread, wsgi_app)],
    ids=["asgi", "wsgi"],
)


@BOTH
def test_a_server_answers_as_soon_as_it_is_there(serve: Any, app: Any) -> None:
    with serve(app) as server:
        assert read(server.url) == b"hello"


@BOTH
def test_a_port_can_be_chosen_and_is_free_again_afterwards(serve: Any, app: Any) -> None:
    with serve(app) as first:
        port = first.port

    with serve(app, port) as second:
        assert read(second.url) == b"hello"
        assert second.port == port


@BOTH
def test_a_taken_port_is_an_error(serve: Any, app: Any) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()

        with pytest.raises(OSError, match="in use"), serve(app, taken.getsockname()[1]):
            pytest.fail("started on a taken port")


def test_an_app_that_fails_to_start_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="did not start"), run_in_thread(broken_app):
        pytest.fail("started")
