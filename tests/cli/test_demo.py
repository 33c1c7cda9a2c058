"""`mp-asgi demo` as a process: it says where, answers there, and ends when it is told to."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from mp_asgi.cli import main

ANSWER_SECONDS = 30
# As httpx names itself it is a bot, and nothing of it is sent.
BROWSER = {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"}


@contextmanager
def running(*options: str, **variables: str) -> Iterator[tuple["subprocess.Popen[str]", list[str]]]:
    """Start the demo and give it with the addresses that it printed."""
    command = [sys.executable, "-m", "mp_asgi", "demo", *options]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | variables,
    ) as demo:
        try:
            assert demo.stdout is not None
            text = ""
            for line in demo.stdout:
                text += line
                if "Ctrl-C" in line:
                    break
            yield demo, re.findall(r"http://127\.0\.0\.1:\d+", text)
        finally:
            demo.kill()


def stop(demo: "subprocess.Popen[str]", number: signal.Signals) -> tuple[int, str]:
    demo.send_signal(number)
    _, errors = demo.communicate(timeout=ANSWER_SECONDS)
    return demo.returncode, errors


@pytest.mark.parametrize("options", [[], ["--wsgi"]], ids=["asgi", "wsgi"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
def test_both_addresses_answer_and_a_signal_ends_it(
    options: list[str], number: signal.Signals
) -> None:
    with running(*options) as (demo, (shop, standin)):
        assert "Hearth" in httpx.get(shop, timeout=ANSWER_SECONDS).text
        assert "Mixpanel stand-in" in httpx.get(standin, timeout=ANSWER_SECONDS).text

        assert stop(demo, number) == (0, "")


@pytest.mark.parametrize("options", [[], ["--wsgi"]], ids=["asgi", "wsgi"])
def test_an_event_arrives_whatever_the_shell_is_set_to(options: list[str]) -> None:
    shell = {
        "MIXPANEL_TOKEN": "real",
        "MIXPANEL_API_HOST": "http://127.0.0.1:1",
        "MIXPANEL_ENABLED": "0",
        "MP_ASGI_NONSENSE": "1",
    }

    with running(*options, **shell) as (demo, (shop, standin)):
        with httpx.Client(base_url=shop, timeout=ANSWER_SECONDS, headers=BROWSER) as visitor:
            visitor.post("/consent", json={"decision": "grant"}).raise_for_status()
            visitor.post("/track", json={"event": "Ordered"}).raise_for_status()
        # Stopping the demo would deliver it, too; a person waits for it in the page.
        deadline = time.monotonic() + ANSWER_SECONDS
        while not (events := httpx.get(standin + "/_mp/events").json()):
            assert time.monotonic() < deadline

        assert [event["event"] for event in events] == ["Ordered"]
        assert events[0]["properties"].get("token") != "real"
        assert stop(demo, signal.SIGTERM) == (0, "")


@pytest.mark.parametrize("options", [[], ["--wsgi"]], ids=["asgi", "wsgi"])
def test_nothing_is_left_on_the_disk(options: list[str], tmp_path: Path) -> None:
    temporary, state = tmp_path / "temporary", tmp_path / "state"
    temporary.mkdir()

    with running(*options, TMPDIR=str(temporary), XDG_STATE_HOME=str(state)) as (demo, (shop, _)):
        with httpx.Client(base_url=shop, timeout=ANSWER_SECONDS, headers=BROWSER) as visitor:
            visitor.post("/consent", json={"decision": "grant"}).raise_for_status()
            visitor.post("/track", json={"event": "Ordered"}).raise_for_status()

        assert [path.name[:13] for path in temporary.iterdir()] == ["mp-asgi-demo-"]
        assert stop(demo, signal.SIGTERM) == (0, "")
    assert list(temporary.iterdir()) == []
    assert not state.exists()


@pytest.mark.parametrize(
    ("mode", "people"),
    [
        pytest.param("simplified", [["$device:{}", "ada"]], id="simplified-joins"),
        pytest.param("original", [["{}", "ada"]], id="original-joins"),
        pytest.param("legacy", [["ada"], ["{}"]], id="legacy-joins-only-at-sign-up"),
    ],
)
def test_shop_and_standin_follow_the_id_merge_of_the_shell(
    mode: str, people: list[list[str]]
) -> None:
    with running(MP_ASGI_IDENTITY=mode) as (_, (shop, standin)):
        with httpx.Client(base_url=shop, timeout=ANSWER_SECONDS, headers=BROWSER) as visitor:
            visitor.post("/consent", json={"decision": "grant"}).raise_for_status()
            visitor.post("/track", json={"event": "Seen"}).raise_for_status()
            visitor.post("/login", json={"user": "ada"}).raise_for_status()
            visitor.post("/track", json={"event": "Ordered"}).raise_for_status()
        deadline = time.monotonic() + ANSWER_SECONDS
        while len(events := httpx.get(standin + "/_mp/events").json()) < 2 + (mode == "original"):
            assert time.monotonic() < deadline

        seen = httpx.get(standin + "/_mp/visitors").json()

    device_id = next(e["properties"]["$device_id"] for e in events if e["event"] == "Seen")
    expected = [sorted(name.format(device_id) for name in names) for names in people]
    assert seen["mode"] == mode
    assert sorted(sorted(one["distinct_ids"]) for one in seen["visitors"]) == sorted(expected)


def test_an_unknown_id_merge_is_a_problem(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MP_ASGI_IDENTITY", "modern")

    code = main(["demo"])

    assert code == 1
    assert "'modern'. Use simplified or original or legacy." in capsys.readouterr().err


def test_a_taken_default_port_is_left_alone() -> None:
    with running() as (_, first), running() as (_, second):
        assert not set(first) & set(second)
        assert httpx.get(second[0], timeout=ANSWER_SECONDS).status_code == 200


@pytest.mark.parametrize("option", ["--port", "--standin-port"])
def test_a_taken_port_that_was_named_is_a_problem(
    option: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", os.environ.copy())
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])

        code = main(["demo", option, port])

    assert code == 1
    assert f"{option} {port} is taken" in capsys.readouterr().err


@pytest.mark.parametrize("port", ["0", "65536", "x"])
def test_no_port_is_wrong_usage(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["demo", "--port", port])

    assert caught.value.code == 2
    assert f"'{port}' is no port; use 1 to 65535" in capsys.readouterr().err
