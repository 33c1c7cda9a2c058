import hashlib

import pytest

from mp_asgi.readers import (
    NO_MANAGERS,
    CookieEquals,
    Heard,
    ManagersSaid,
    make_reader,
    read_managers,
)
from mp_asgi.readers.base import DENIED, GRANTED, NOTHING, STALE, UNREADABLE, Reading, Said
from mp_asgi.readers.combine import MAX_COPIES, MAX_VALUE_BYTES
from mp_asgi.readers.onetrust import OneTrust

FIRST = CookieEquals("first", granted={"1", "yes"}, denied={"0"})
SECOND = CookieEquals("second", granted={"1"}, denied={"0"})


class Answering:
    """A reader of somebody else, that answers or fails as it is told."""

    name = "answering"

    def __init__(self, answer, cookies=("first",)):
        self.answer = answer
        self.cookies = cookies
        self.asked = []

    def read(self, cookies):
        self.asked.append(dict(cookies))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def hear(*readings):
    return ManagersSaid(
        tuple(Heard(f"r{number}", item, (), ()) for number, item in enumerate(readings))
    )


def test_a_reader_is_asked_only_about_its_own_cookies():
    reader = Answering(GRANTED, ("first", "pre*"))

    read_managers([reader], [("first", b"1"), ("other", b"1"), ("pre_x", b"\xff")])

    assert reader.asked == [{"first": "1", "pre_x": "\xff"}]


def test_a_reader_without_its_cookies_is_not_asked():
    reader = Answering(GRANTED)

    said = read_managers([reader], [("other", b"1")])

    assert (said.said, said.present, reader.asked) == (Said.NOTHING, (), [])


@pytest.mark.parametrize(
    ("answer", "present"), [(True, ("app-ask",)), (False, ("app-ask",)), (None, ())]
)
def test_a_callable_is_present_when_it_says_something(answer, present):
    def ask(cookies):
        return answer

    assert read_managers([make_reader(ask)], [("any", b"1")]).present == present


def test_a_manager_without_a_choice_is_present():
    assert read_managers([Answering(NOTHING)], [("first", b"1")]).present == ("answering",)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(KeyError("x"), id="fails"),
        pytest.param(RecursionError(), id="too-deep"),
        pytest.param(None, id="nothing"),
        pytest.param(True, id="truth"),
        pytest.param((Said.GRANTED, None, None), id="tuple"),
        pytest.param(Reading("granted"), id="text"),
        pytest.param(Reading(Said.GRANTED, float("nan")), id="time-is-no-number"),
        pytest.param(Reading(Said.GRANTED, None, float("inf")), id="end-is-infinite"),
        pytest.param(Reading(Said.GRANTED, "1970"), id="time-is-text"),
    ],
)
def test_a_reader_that_fails_or_answers_nonsense_is_unreadable(answer):
    assert read_managers([Answering(answer)], [("first", b"1")]).said is Said.UNREADABLE


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        pytest.param([b"1"], GRANTED, id="one"),
        pytest.param([b"1", b"1"], GRANTED, id="twice-the-same"),
        pytest.param([b"1", b"yes"], GRANTED, id="two-values-one-answer"),
        pytest.param([b"1", b"0"], DENIED, id="the-second-denies"),
        pytest.param([b"0", b"1"], DENIED, id="the-first-denies"),
        pytest.param([b"1", b"x"], UNREADABLE, id="one-unreadable"),
        pytest.param([b"1", b"yes"] * 2, GRANTED, id="four-copies"),
        pytest.param([b"1", b"yes"] * 2 + [b"1"], UNREADABLE, id="five-copies"),
        pytest.param([b"0", b"1"] * 3, DENIED, id="six-copies-one-denies"),
        pytest.param([b"1" * (MAX_VALUE_BYTES + 1)], UNREADABLE, id="too-long"),
        pytest.param([b"1", b"x" * (MAX_VALUE_BYTES + 1)], UNREADABLE, id="one-too-long"),
        pytest.param([b"0", b"x" * (MAX_VALUE_BYTES + 1)], DENIED, id="too-long-beside-a-denial"),
    ],
)
def test_copies_of_a_cookie_must_agree_and_any_denial_counts(values, expected):
    found = [("other", b"x"), *(("first", value) for value in values)]

    said = read_managers([FIRST], found)

    assert [item.reading for item in said.heard] == [expected]


def test_the_longest_value_is_read():
    reader = Answering(GRANTED)

    read_managers([reader], [("first", b"1" * MAX_VALUE_BYTES)])

    assert reader.asked


def test_of_denials_in_copies_the_newest_time_counts():
    consent = "groups=C0002:0"
    found = [("OptanonConsent", consent.encode())] + [
        ("OptanonAlertBoxClosed", f"1970-01-01T00:00:0{second}Z".encode()) for second in (5, 7, 6)
    ]

    assert read_managers([OneTrust()], found).at == 7.0


def test_combinations_of_copies_are_bounded():
    reader = Answering(GRANTED, ("a", "b", "c"))
    found = [(name, b"%d" % number) for name in "abc" for number in range(MAX_COPIES)]

    said = read_managers([reader], found)

    assert said.said is Said.UNREADABLE
    assert len(reader.asked) == 16


@pytest.mark.parametrize(
    ("readings", "said", "name"),
    [
        pytest.param([], Said.NOTHING, "", id="nobody"),
        pytest.param([NOTHING], Said.NOTHING, "", id="no-choice"),
        pytest.param([NOTHING, GRANTED], Said.GRANTED, "r1", id="one-grants"),
        pytest.param([GRANTED, STALE], Said.STALE, "r1", id="stale-beats-granted"),
        pytest.param([STALE, UNREADABLE], Said.UNREADABLE, "r1", id="unreadable-beats-stale"),
        pytest.param([UNREADABLE, GRANTED, DENIED], Said.DENIED, "r2", id="denied-beats-all"),
    ],
)
def test_who_permits_least_decides(readings, said, name):
    managers = hear(*readings)

    assert (managers.said, managers.name) == (said, name)
    assert managers.present == tuple(f"r{number}" for number in range(len(readings)))


@pytest.mark.parametrize(
    ("readings", "at", "until"),
    [
        pytest.param([Reading(Said.GRANTED, 5.0), Reading(Said.GRANTED, 4.0)], 4.0, None, id="old"),
        pytest.param([Reading(Said.GRANTED, 5.0), GRANTED], None, None, id="one-tells-none"),
        pytest.param(
            [Reading(Said.GRANTED, None, 9.0), Reading(Said.GRANTED, None, 8.0), GRANTED],
            None,
            8.0,
            id="least-end",
        ),
        pytest.param([Reading(Said.DENIED, 5.0), Reading(Said.DENIED, 6.0)], 6.0, None, id="new"),
        pytest.param([Reading(Said.DENIED, 5.0), DENIED], 5.0, None, id="one-denial-tells"),
        pytest.param([DENIED, Reading(Said.GRANTED, 5.0, 6.0)], None, None, id="denial-untold"),
        pytest.param([STALE, Reading(Said.GRANTED, 5.0)], None, None, id="stale"),
    ],
)
def test_the_time_is_the_safe_one(readings, at, until):
    managers = hear(*readings)

    assert (managers.at, managers.until) == (at, until)


def test_evidence_is_a_hash_of_the_raw_value_of_who_decided():
    said = read_managers([FIRST, SECOND], [("first", b"1"), ("second", b"0")])

    assert said.evidence() == "second:" + hashlib.sha256(b"0").hexdigest()
    assert said.heard[0].evidence() == "first:" + hashlib.sha256(b"1").hexdigest()


def test_evidence_of_copies_is_bounded():
    said = read_managers([FIRST], [("first", b"%d" % number) for number in range(9)])

    assert len(said.evidence().split()) == MAX_COPIES


def test_nothing_heard_has_no_evidence():
    assert NO_MANAGERS.evidence() == ""
