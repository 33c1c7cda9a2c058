import json

import pytest

from mp_asgi.cli.people import guard
from mp_asgi.erasure.people import UnreadablePeople
from mp_asgi.errors import MixpanelASGIError, SettingsError


def failing(error):
    def call():
        raise error

    return call


def test_what_went_well_keeps_its_exit_code():
    assert guard("erase", lambda: 7, as_json=True) == 7


FAILURES = [
    pytest.param(MixpanelASGIError("no answer"), 1, "mp-asgi erase: no answer", id="problem"),
    pytest.param(SettingsError(["X is not set."]), 1, "X is not set.", id="settings"),
    pytest.param(UnreadablePeople("line 1"), 2, "mp-asgi erase: line 1", id="wrong-list"),
    pytest.param(FileNotFoundError("ids"), 2, "mp-asgi erase: ids", id="missing-file"),
    pytest.param(KeyboardInterrupt(), 1, "mp-asgi erase: interrupted", id="ctrl-c"),
]


@pytest.mark.parametrize(("error", "code", "text"), FAILURES)
def test_a_failure_is_one_sentence_and_an_exit_code(capsys, error, code, text):
    assert guard("erase", failing(error), as_json=False) == code

    out, err = capsys.readouterr()
    assert (out, text in err) == ("", True)


@pytest.mark.parametrize(("error", "code", "text"), FAILURES)
def test_who_asked_for_json_gets_the_sentence_in_an_object_too(capsys, error, code, text):
    assert guard("erase", failing(error), as_json=True) == code

    out, err = capsys.readouterr()
    assert json.loads(out)["error"] in err
    assert text.removeprefix("mp-asgi erase: ") in json.loads(out)["error"]


def test_a_reader_that_goes_away_is_left_to_who_knows_about_it():
    with pytest.raises(BrokenPipeError):
        guard("erase", failing(BrokenPipeError()), as_json=False)
