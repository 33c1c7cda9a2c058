"""What holds for every test: no deadline on a busy machine, no settings from outside."""

import os
from collections.abc import Iterator

import hypothesis
import pytest

from tests.probes import Project, open_project

# With the default of 200 ms a correct property failed on a busy machine.
hypothesis.settings.register_profile(
    "house", deadline=None, derandomize=bool(os.environ.get("CI")), max_examples=100
)
hypothesis.settings.load_profile("house")


@pytest.fixture(autouse=True)
def clean_environ(monkeypatch):
    """Hide the developer's own settings from the tests."""
    for name in list(os.environ):
        if name.startswith(("MIXPANEL_", "MP_ASGI_")):
            monkeypatch.delenv(name)


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
