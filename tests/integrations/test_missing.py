"""A ready name whose framework is missing says what to install."""

import subprocess
import sys

import pytest

BLOCKER = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {missing!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocker())
from mp_asgi import Settings, SettingsError
try:
    Settings(enabled=False, identify_from={name!r})
except SettingsError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("name", "missing", "remedy"),
    [
        ("django", "django", 'pip install "mp-asgi[django]"'),
        ("flask-login", "flask_login", "pip install flask-login"),
    ],
    ids=["django", "flask-login"],
)
def test_a_ready_name_whose_framework_is_missing_says_what_to_install(
    name: str, missing: str, remedy: str
) -> None:
    code = BLOCKER.format(name=name, missing=missing)

    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert f"{name} is missing. Run: {remedy}" in run.stdout
