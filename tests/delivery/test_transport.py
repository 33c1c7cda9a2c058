import base64
import contextlib
import gzip
import json
import select
import shutil
import socket
import ssl
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from mp_asgi._version import __version__
from mp_asgi.delivery.pump import LEASE_SECONDS
from mp_asgi.delivery.transport import MAX_REPLY_BYTES, HTTPTransport, _remedy
from mp_asgi.errors import Unavailable
from mp_asgi.events import Endpoint
from tests.support import TIMEOUT, make_settings

BODY = b'[{"event":"a"}]'


class Server(ThreadingHTTPServer):
    """A host on loopback; each request is answered by the next of `acts`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.acts: deque[Any] = deque()
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.clients: set[tuple[str, int]] = set()
        self.may_go = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # the client hangs up on purpose


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.requests.append((self.path, headers, body))
        self.server.clients.add(self.client_address)
        act = self.server.acts.popleft() if self.server.acts else ok
        act(self)

    def log_message(self, *args: Any) -> None:
        pass


def answer(handler: _Handler, status: int, body: bytes, **headers: str) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def ok(handler: _Handler) -> None:
    answer(handler, 200, b'{"code": 200}')


def hang(handler: _Handler) -> None:
    handler.server.may_go.wait(2 * TIMEOUT)
    ok(handler)


def drip(handler: _Handler) -> None:
    """Answer a byte at a time, each long before anybody loses patience with it."""
    with contextlib.suppress(OSError):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        while not handler.server.may_go.wait(0.01):
            handler.wfile.write(b"x")
    handler.close_connection = True


def drip_headers(handler: _Handler) -> None:
    with contextlib.suppress(OSError):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
        while not handler.server.may_go.wait(0.01):
            handler.wfile.write(b"X")
    handler.close_connection = True


def drop(handler: _Handler) -> None:
    handler.close_connection = True


def garble(handler: _Handler) -> None:
    handler.wfile.write(b"this is no HTTP\r\n\r\n")
    handler.close_connection = True


def break_off(handler: _Handler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
    handler.close_connection = True


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.may_go.set()
        server.shutdown()
        thread.join(TIMEOUT)


@pytest.fixture
def connect() -> Iterator[Callable[..., HTTPTransport]]:
    """Make transports that are closed at the end; they wait 0.2 s for a reply."""
    with contextlib.ExitStack() as stack:

        def make(
            url: str,
            connect_seconds: float = 3 * TIMEOUT,
            total_seconds: float = 4 * TIMEOUT,
            **settings: Any,
        ) -> HTTPTransport:
            transport = HTTPTransport(
                make_settings(api_host=url, **settings),
                connect_seconds=connect_seconds,
                read_seconds=0.2,
                total_seconds=total_seconds,
            )
            stack.callback(transport.close)
            return transport

        yield make


@pytest.fixture
def transport(server: Server) -> Iterator[HTTPTransport]:
    transport = HTTPTransport(make_settings(api_host=server.url))
    yield transport
    transport.close()


def unavailable(transport: HTTPTransport) -> Unavailable:
    with pytest.raises(Unavailable) as caught:
        transport.send(Endpoint.EVENTS, BODY)
    return caught.value


def test_events_go_to_import_compressed_with_the_token(server, transport):
    reply = transport.send(Endpoint.EVENTS, BODY)

    (target, headers, body) = server.requests[0]
    assert target == "/import?strict=1"
    assert gzip.decompress(body) == BODY
    assert headers["content-encoding"] == "gzip"
    assert headers["content-type"] == "application/json"
    assert headers["user-agent"] == f"mp-asgi/{__version__}"
    assert base64.b64decode(headers["authorization"].removeprefix("Basic ")) == b"t0ken:"
    assert (reply.status, json.loads(reply.body)) == (200, {"code": 200})


def test_a_service_account_replaces_the_token(server, connect):
    account = {"service_account_username": "svc", "service_account_secret": "s3cret"}

    connect(server.url, **account, project_id="42").send(Endpoint.EVENTS, BODY)

    (target, headers, _) = server.requests[0]
    assert target == "/import?strict=1&project_id=42"
    assert base64.b64decode(headers["authorization"].removeprefix("Basic ")) == b"svc:s3cret"


@pytest.mark.parametrize("endpoint", [Endpoint.PEOPLE, Endpoint.GROUPS])
def test_profile_updates_go_as_they_are_without_credentials(server, transport, endpoint):
    transport.send(endpoint, BODY)

    (target, headers, body) = server.requests[0]
    assert target == f"{endpoint.value}?verbose=1"
    assert body == BODY
    assert not {"content-encoding", "authorization"} & set(headers)


def test_an_alias_goes_as_the_form_that_is_documented_for_it(server, transport):
    alias = '[{"event":"$create_alias","properties":{"alias":"a+b & café"}}]'.encode()

    transport.send(Endpoint.ALIASES, alias)

    (target, headers, body) = server.requests[0]
    assert target == "/track?verbose=1&ip=0"
    assert headers["content-type"] == "application/x-www-form-urlencoded"
    assert parse_qs(body.decode("ascii")) == {"data": [alias.decode()]}
    assert not {"content-encoding", "authorization"} & set(headers)


def test_a_reply_is_answered_whatever_its_status(server, transport):
    server.acts.append(lambda handler: answer(handler, 429, b"slow", Retry_After="7"))

    reply = transport.send(Endpoint.EVENTS, BODY)

    assert (reply.status, reply.body, reply.headers["retry-after"]) == (429, b"slow", "7")


def test_a_redirect_is_not_followed(server, transport):
    server.acts.append(lambda handler: answer(handler, 302, b"", Location="/elsewhere"))

    assert transport.send(Endpoint.EVENTS, BODY).status == 302
    assert len(server.requests) == 1


def test_interim_answers_are_read_past(server, transport):
    def hint(handler: _Handler) -> None:
        for status in (b"103 Early Hints", b"102 Processing"):
            handler.wfile.write(b"HTTP/1.1 " + status + b"\r\nLink: </x>; rel=preload\r\n\r\n")
        ok(handler)

    server.acts.append(hint)

    replies = [transport.send(Endpoint.EVENTS, BODY) for _ in range(2)]

    assert [(reply.status, reply.body) for reply in replies] == [(200, b'{"code": 200}')] * 2
    assert "link" not in replies[0].headers
    assert (len(server.requests), len(server.clients)) == (2, 1)


def test_interim_answers_without_an_end_are_a_lost_answer(server, connect):
    def hint_for_ever(handler: _Handler) -> None:
        with contextlib.suppress(OSError):
            while not handler.server.may_go.wait(0.01):
                handler.wfile.write(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        handler.close_connection = True

    server.acts.append(hint_for_ever)
    transport = connect(server.url, total_seconds=0.3)

    error = unavailable(transport)
    transport._left_behind.join(TIMEOUT)

    assert error.is_sent


def test_one_connection_serves_many_batches(server, transport):
    for _ in range(3):
        transport.send(Endpoint.EVENTS, BODY)

    assert len(server.clients) == 1


def test_a_connection_that_the_host_closed_meanwhile_is_not_used(server, transport):
    server.acts.append(lambda handler: answer(handler, 200, b"{}", Connection="close"))
    transport.send(Endpoint.EVENTS, BODY)

    assert transport.send(Endpoint.EVENTS, BODY).status == 200
    assert len(server.clients) == 2


def test_a_connection_that_was_dropped_while_idle_is_not_used(server, transport):
    def drop_after(handler: _Handler) -> None:
        ok(handler)
        handler.close_connection = True

    server.acts.append(drop_after)
    transport.send(Endpoint.EVENTS, BODY)
    assert select.select([transport._connection.sock], [], [], TIMEOUT)[0]

    assert transport.send(Endpoint.EVENTS, BODY).status == 200
    assert len(server.clients) == 2


def test_a_closed_transport_opens_again(server, transport):
    transport.send(Endpoint.EVENTS, BODY)
    transport.close()
    transport.close()

    assert transport.send(Endpoint.EVENTS, BODY).status == 200
    assert len(server.clients) == 2


def test_an_endless_reply_is_cut_and_its_connection_given_up(server, transport):
    server.acts.append(lambda handler: answer(handler, 200, b"x" * (MAX_REPLY_BYTES + 1)))

    assert len(transport.send(Endpoint.EVENTS, BODY).body) == MAX_REPLY_BYTES
    assert transport.send(Endpoint.EVENTS, BODY).status == 200
    assert len(server.clients) == 2


def test_a_refused_port_was_never_sent(connect):
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"

    error = unavailable(connect(url))

    assert not error.is_sent
    assert str(error) == f"{url} cannot be reached (NewConnectionError)"


def test_an_unknown_host_was_never_sent(connect):
    error = unavailable(connect("https://mixpanel.invalid"))

    assert not error.is_sent
    assert "check MIXPANEL_API_HOST and the DNS" in str(error)


@pytest.fixture
def resolver(monkeypatch) -> Iterator[threading.Event]:
    """A resolver that answers nobody until the event is set."""
    may_answer, look_up = threading.Event(), socket.getaddrinfo

    def hang_in_dns(*args: Any, **options: Any) -> Any:
        assert may_answer.wait(TIMEOUT)
        return look_up(*args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", hang_in_dns)
    yield may_answer
    may_answer.set()


def test_a_resolver_that_hangs_is_left_behind_and_sends_nothing_later(server, connect, resolver):
    transport = connect(server.url, total_seconds=0.05)

    error = unavailable(transport)
    again = unavailable(transport)
    resolver.set()
    transport._left_behind.join(TIMEOUT)

    assert (error.is_sent, again.is_sent) == (False, False)
    assert str(error) == f"{server.url} cannot be reached (TimeoutError)"
    assert "is still looked up" in str(again)
    assert server.requests == []


def test_a_resolver_that_hung_is_asked_again_when_it_has_answered(server, connect, resolver):
    transport = connect(server.url, total_seconds=0.05)
    unavailable(transport)
    resolver.set()
    transport._left_behind.join(TIMEOUT)
    transport._total_seconds = TIMEOUT

    assert transport.send(Endpoint.EVENTS, BODY).status == 200


@pytest.mark.parametrize("act", [drip, drip_headers])
def test_a_reply_that_drips_for_ever_ends_and_may_have_been_taken(server, connect, act):
    server.acts.append(act)
    transport = connect(server.url, total_seconds=0.3)

    error = unavailable(transport)
    transport._left_behind.join(TIMEOUT)

    assert error.is_sent
    assert not transport._left_behind.is_alive()
    assert transport.send(Endpoint.EVENTS, BODY).status == 200
    assert len(server.clients) == 2


def test_a_transport_gives_up_before_its_lease_ends():
    transport = HTTPTransport(make_settings())

    assert transport._total_seconds <= LEASE_SECONDS / 2


def test_a_batch_is_carried_though_no_thread_can_start_any_more(server, transport, monkeypatch):
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    transport.send(Endpoint.EVENTS, BODY)  # the server needs a thread for the connection
    monkeypatch.setattr(threading.Thread, "start", refuse)

    assert transport.send(Endpoint.EVENTS, BODY).status == 200


def test_a_bug_is_no_missing_reply(transport):
    with pytest.raises(TypeError):
        transport.send(Endpoint.PEOPLE, object())


def test_a_silent_handshake_was_never_sent(connect):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}"

        assert not unavailable(connect(url, connect_seconds=0.1)).is_sent


def test_a_failed_handshake_was_never_sent(server, connect):
    error = unavailable(connect(server.url.replace("http:", "https:")))

    assert not error.is_sent
    assert "no TLS there; check scheme and port" in str(error)
    assert server.requests == []


@pytest.fixture
def secure(server, tmp_path: Path) -> Callable[[str], str]:
    """Give the server a certificate that nobody signed, for a name; answer its file."""
    if shutil.which("openssl") is None:
        pytest.skip("makes its certificate with openssl")

    def give(name: str) -> str:
        command = "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=localhost -days 2"
        names = ["-addext", f"subjectAltName={name}", "-keyout", "key", "-out", "cert"]
        subprocess.run([*command.split(), *names], cwd=tmp_path, check=True, capture_output=True)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tmp_path / "cert", tmp_path / "key")
        server.socket = context.wrap_socket(server.socket, server_side=True)
        return str(tmp_path / "cert")

    return give


def test_a_certificate_that_nobody_signed_is_refused(server, connect, secure):
    secure("IP:127.0.0.1")

    error = unavailable(connect(server.url.replace("http:", "https:")))

    assert not error.is_sent
    assert "SSLCertVerificationError: self-signed certificate; if a proxy here opens" in str(error)
    assert server.requests == []


def test_a_certificate_of_another_host_is_refused_and_told_apart(
    server, connect, secure, monkeypatch
):
    monkeypatch.setenv("SSL_CERT_FILE", secure("DNS:portal.example"))

    error = unavailable(connect(server.url.replace("http:", "https:")))

    assert not error.is_sent
    assert "check MIXPANEL_API_HOST, and whether a proxy or a captive portal" in str(error)
    assert server.requests == []


def test_a_trusted_certificate_of_the_host_is_taken(server, connect, secure, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", secure("IP:127.0.0.1"))

    transport = connect(server.url.replace("http:", "https:"))

    assert transport.send(Endpoint.EVENTS, BODY).status == 200


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        pytest.param(9, "check the clock of this machine", id="not-valid-yet"),
        pytest.param(10, "check the clock of this machine", id="expired"),
        pytest.param(62, "check MIXPANEL_API_HOST", id="other-host"),
        pytest.param(64, "check MIXPANEL_API_HOST", id="other-address"),
        pytest.param(19, "SSL_CERT_FILE", id="unknown-authority"),
    ],
)
def test_a_refused_certificate_comes_with_what_to_do(code, remedy):
    error = ssl.SSLCertVerificationError(1, "foreign text")
    error.verify_code, error.verify_message = code, "it is bad"

    text = _remedy(error)

    assert text.startswith(": it is bad; ")
    assert remedy in text
    assert "foreign" not in text


@pytest.mark.parametrize("act", [hang, drop, garble, break_off])
def test_what_was_read_and_not_answered_may_have_been_taken(server, connect, act):
    server.acts.append(act)
    transport = connect(server.url)

    error = unavailable(transport)

    assert error.is_sent
    assert "gave no reply" in str(error)
    assert transport.send(Endpoint.EVENTS, BODY).status == 200


def test_a_host_that_hangs_up_on_a_large_body_may_have_taken_it(connect):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            client, _ = listener.accept()
            client.close()

        thread = threading.Thread(target=hang_up, daemon=True)
        thread.start()
        transport = connect(f"http://127.0.0.1:{listener.getsockname()[1]}")

        with pytest.raises(Unavailable) as caught:
            transport.send(Endpoint.PEOPLE, b"x" * 20_000_000)
        thread.join(TIMEOUT)

    assert caught.value.is_sent


def test_a_refusal_before_the_body_was_read_is_an_answer(connect):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def refuse() -> None:
            client, _ = listener.accept()
            with client:
                client.recv(100)
                client.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
                client.shutdown(socket.SHUT_WR)

        thread = threading.Thread(target=refuse, daemon=True)
        thread.start()
        transport = connect(f"http://127.0.0.1:{listener.getsockname()[1]}")
        reply = transport.send(Endpoint.PEOPLE, b"x" * 20_000_000)
        thread.join(TIMEOUT)

    assert reply.status == 413
