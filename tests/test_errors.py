import pytest

from mp_asgi.errors import InvalidEvent, MixpanelASGIError, NotConsented, SettingsError, Unavailable


@pytest.mark.parametrize(
    "error",
    [
        SettingsError(["a"]),
        InvalidEvent("too_large", "b"),
        NotConsented("c"),
        Unavailable("d", is_sent=True),
    ],
    ids=lambda error: type(error).__name__,
)
def test_one_name_catches_everything_of_ours(error):
    assert isinstance(error, MixpanelASGIError)


def test_every_problem_of_the_settings_is_on_its_own_line():
    error = SettingsError(["first", "second"])

    assert error.problems == ("first", "second")
    assert str(error) == "mp-asgi cannot start with these settings:\n  - first\n  - second"
    assert isinstance(error, ValueError)


def test_an_invalid_event_carries_the_counters_label():
    error = InvalidEvent("too_large", "too large")

    assert (error.reason, str(error)) == ("too_large", "too large")
    assert isinstance(error, ValueError)


@pytest.mark.parametrize("is_sent", [True, False])
def test_no_answer_tells_whether_the_request_may_have_been_read(is_sent):
    assert Unavailable("no answer", is_sent=is_sent).is_sent is is_sent
