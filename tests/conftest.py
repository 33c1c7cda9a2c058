"""What holds for every test: no deadline on a busy machine, no settings from outside."""

import importlib
import os
import signal
import uuid
from collections.abc import Iterator

import hypothesis
import pytest

from tests.probes import Project, open_project
from tests.support import NOW

# With the default of 200 ms a correct property failed on a busy machine; so did one whose values
# took too long to make.
hypothesis.settings.register_profile(
    "house",
    deadline=None,
    derandomize=bool(os.environ.get("CI")),
    max_examples=100,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("house")

# A shell's background jobs ignore Ctrl-C, and so would the processes that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def state_home(tmp_path_factory):
    """Keep the outboxes of servers that outlive a test out of the developer's home."""
    home = tmp_path_factory.mktemp("state")
    before = os.environ.get("XDG_STATE_HOME")
    os.environ["XDG_STATE_HOME"] = str(home)
    yield home
    os.environ.pop("XDG_STATE_HOME")
    if before is not None:
        os.environ["XDG_STATE_HOME"] = before


@pytest.fixture(autouse=True)
def clean_environ(monkeypatch, state_home):
    """Hide the developer's own settings from the tests; let no test see another's outbox."""
    for name in list(os.environ):
        if name.startswith(("MIXPANEL_", "MP_ASGI_", "STATE_DIRECTORY")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_STATE_HOME", str(state_home / uuid.uuid4().hex))


@pytest.fixture
def clients_clock(monkeypatch):
    """Let Mixpanel's own client live in the year of the tests' clocks."""
    monkeypatch.setattr("mixpanel.Mixpanel._now", lambda _: NOW)


@pytest.fixture
def metric_reader(monkeypatch):
    """Answer an exporter's end of an OpenTelemetry provider that the app has configured."""
    metrics = importlib.import_module("opentelemetry.sdk.metrics")
    reader = importlib.import_module("opentelemetry.sdk.metrics.export").InMemoryMetricReader()
    provider = metrics.MeterProvider(metric_readers=[reader], shutdown_on_exit=False)
    monkeypatch.setattr("opentelemetry.metrics._internal._METER_PROVIDER", provider)
    yield reader
    provider.shutdown()


@pytest.fixture
def project() -> Iterator[Project]:
    """Answer one Mixpanel project, with what arrived there."""
    with open_project() as project:
        yield project


@pytest.fixture
def other_project() -> Iterator[Project]:
    """Answer a second one, with another token."""
    with open_project(token="0ther") as project:
        yield project
