from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from types import SimpleNamespace

import pytest

from mp_asgi import ANONYMOUS, StoredConsent
from mp_asgi.consent.policy import AppAnswer
from mp_asgi.late import ask_consent, ask_user
from mp_asgi.readers import Said
from tests.support import RecordingSink

CONNECTION = {"type": "http"}
AT = datetime(2026, 11, 1, 12, tzinfo=UTC)


class Failing:
    """An app's code that fails."""

    def __call__(self, connection):
        raise RuntimeError("secret of the app")


def answering(answer):
    return lambda connection: answer


@pytest.mark.parametrize("ask", [ask_user, ask_consent])
def test_the_app_is_asked_about_this_connection(ask):
    asked = []

    ask(asked.append, CONNECTION, RecordingSink())

    assert asked == [CONNECTION]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        pytest.param("U1", "U1", id="text"),
        pytest.param(42, "42", id="number"),
        pytest.param(ANONYMOUS, ANONYMOUS, id="certainly-nobody"),
        pytest.param(None, None, id="cannot-tell"),
    ],
)
def test_a_user_is_read(answer, expected):
    sink = RecordingSink()

    assert ask_user(answering(answer), CONNECTION, sink) == expected
    assert not sink.counts


@pytest.mark.parametrize(
    "identify_from",
    [
        pytest.param(Failing(), id="fails"),
        pytest.param(answering("undefined"), id="forbidden"),
        pytest.param(answering(object()), id="no-id"),
        pytest.param(answering(10**5_000), id="beyond-printing"),
    ],
)
def test_a_user_that_cannot_be_read_is_nobody_known_and_counted(identify_from):
    sink = RecordingSink()

    assert ask_user(identify_from, CONNECTION, sink) is None
    assert sink.counts == {("identify_from_failed", ""): 1}
    [(topic, message)] = sink.warnings
    assert topic == "identify_from"
    assert "secret" not in message


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        pytest.param(None, AppAnswer(), id="no-answer"),
        pytest.param(True, AppAnswer(Said.GRANTED), id="yes"),
        pytest.param(False, AppAnswer(Said.DENIED), id="no"),
        pytest.param(StoredConsent(True), AppAnswer(Said.GRANTED), id="stored-yes"),
        pytest.param(StoredConsent(False), AppAnswer(Said.DENIED), id="stored-no"),
        pytest.param(StoredConsent(True, 5.5), AppAnswer(Said.GRANTED, 5.5), id="seconds"),
        pytest.param(StoredConsent(True, 5), AppAnswer(Said.GRANTED, 5), id="whole-seconds"),
        pytest.param(
            StoredConsent(True, AT), AppAnswer(Said.GRANTED, AT.timestamp()), id="datetime"
        ),
        pytest.param(
            StoredConsent(True, AT.replace(tzinfo=None)),
            AppAnswer(Said.GRANTED, AT.timestamp()),
            id="naive-is-utc",
        ),
        pytest.param(
            StoredConsent(True, AT.astimezone(timezone(timedelta(hours=5)))),
            AppAnswer(Said.GRANTED, AT.timestamp()),
            id="another-zone",
        ),
        pytest.param(StoredConsent(False, AT), AppAnswer(Said.DENIED), id="no-with-a-time"),
        pytest.param(
            StoredConsent(False, "yesterday"), AppAnswer(Said.DENIED), id="no-with-any-time"
        ),
    ],
)
def test_a_stored_choice_is_read(answer, expected):
    sink = RecordingSink()

    assert ask_consent(answering(answer), CONNECTION, sink) == expected
    assert not sink.counts


@pytest.mark.parametrize(
    "consent_from",
    [
        pytest.param(Failing(), id="fails"),
        pytest.param(answering("granted"), id="text"),
        pytest.param(answering(1), id="number"),
        pytest.param(answering(SimpleNamespace(granted=True, at=None)), id="look-alike"),
        pytest.param(answering(StoredConsent("yes")), id="stored-text"),
        pytest.param(answering(StoredConsent(1)), id="stored-number"),
        pytest.param(answering(StoredConsent(True, "2026-11-01")), id="time-as-text"),
        pytest.param(answering(StoredConsent(True, Decimal(5))), id="time-as-decimal"),
        pytest.param(answering(StoredConsent(True, True)), id="time-as-bool"),
        pytest.param(answering(StoredConsent(True, float("nan"))), id="time-is-no-number"),
    ],
)
def test_a_choice_that_cannot_be_read_is_unreadable_and_counted(consent_from):
    sink = RecordingSink()

    assert ask_consent(consent_from, CONNECTION, sink) == AppAnswer(Said.UNREADABLE)
    assert sink.counts == {("consent_from_failed", ""): 1}
    [(topic, message)] = sink.warnings
    assert topic == "consent_from"
    assert "secret" not in message


@pytest.mark.parametrize(
    ("ask", "answer", "named"),
    [
        pytest.param(ask_consent, "secret", "not str", id="consent-as-text"),
        pytest.param(ask_consent, StoredConsent("secret"), "type str", id="stored-as-text"),
        pytest.param(ask_consent, StoredConsent(True, "secret"), "not str", id="time-as-text"),
        pytest.param(ask_user, ["secret"], "not list", id="user-as-a-list"),
        pytest.param(ask_user, True, "not bool", id="user-as-truth"),
    ],
)
def test_a_wrong_answer_is_told_by_its_type_and_never_by_its_value(ask, answer, named):
    sink = RecordingSink()

    ask(answering(answer), CONNECTION, sink)

    [(_, message)] = sink.warnings
    assert named in message
    assert "secret" not in message
