import subprocess
import sys
from pathlib import Path

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


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a full device")
@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param("secret", id="at the end"),
        pytest.param("dead list --json", id="an error as JSON"),
    ],
)
def test_output_that_cannot_be_written_is_one_sentence(arguments):
    done = subprocess.run(
        ["bash", "-c", f"PYTHONUNBUFFERED= {sys.executable} -m mp_asgi {arguments} > /dev/full"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 2
    assert done.stderr.endswith("mp-asgi: standard output: No space left on device\n")
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a full device")
def test_an_error_that_cannot_be_written_as_json_is_still_told():
    command = f"PYTHONUNBUFFERED=1 MIXPANEL_TOKEN= {sys.executable} -m mp_asgi dead list --json"
    done = subprocess.run(
        ["bash", "-c", f"{command} > /dev/full"], capture_output=True, text=True, check=False
    )

    assert done.returncode == 1
    assert "MIXPANEL_TOKEN" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_reader_that_goes_away_is_no_error():
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {sys.executable} -m mp_asgi --help | head -c 1"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize(
    ("arguments", "code"), [("secret", 0), ("dead list --json", 1)], ids=["well", "a problem"]
)
def test_a_closed_stream_is_no_problem(arguments, code, closed):
    command = f"MIXPANEL_TOKEN= {sys.executable} -m mp_asgi {arguments} {closed}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)

    assert done.returncode == code
    assert "Traceback" not in done.stderr


def test_what_is_opened_later_gets_no_number_of_a_closed_stream():
    code = (
        "import os; from mp_asgi.cli import main; main(['secret']); "
        "os._exit(os.open('/', os.O_RDONLY))"
    )
    command = f'{sys.executable} -c "{code}" <&- >&- 2>&-'
    done = subprocess.run(["bash", "-c", command], check=False)

    assert done.returncode > 2
