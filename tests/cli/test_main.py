import subprocess
import sys

import pytest

from mp_asgi import __version__
from mp_asgi.cli import main


def test_the_version_is_the_packages(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])

    assert stop.value.code == 0
    assert capsys.readouterr().out == f"mp-asgi {__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["explode"]], ids=["no command", "unknown command"])
def test_wrong_usage_exits_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)

    assert stop.value.code == 2
    assert "usage: mp-asgi" in capsys.readouterr().err


def test_the_module_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "mp_asgi", "--version"], capture_output=True, text=True, check=True
    )

    assert done.stdout == f"mp-asgi {__version__}\n"


def test_a_reader_that_goes_away_is_no_error():
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {sys.executable} -m mp_asgi --help | head -c 1"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert "Traceback" not in done.stderr
