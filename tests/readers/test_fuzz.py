import pytest
from hypothesis import given
from hypothesis import strategies as st

from mp_asgi.readers import READERS, Said, read_managers
from mp_asgi.readers.base import Reading
from tests.readers import fuzz

READERS_OF_ALL = fuzz.all_readers()
NAMES = [name.rstrip("*") for reader in READERS_OF_ALL for name in reader.cookies]


def test_no_damage_is_taken_for_consent():
    report = fuzz.run(4_000)

    assert report.violations == []
    assert report.reads > 0
    assert set(report.said) >= {"granted", "denied", "unreadable", "nothing", "stale"}


def test_every_reader_says_where_its_decision_stands():
    assert set(fuzz.PLACES) == set(READERS)


class Gullible:
    """A reader that takes anything but a clear no for a yes, as some do."""

    name = "klaro"
    cookies = ("klaro",)

    def read(self, cookies):
        return Reading(Said.DENIED if "false" in cookies["klaro"] else Said.GRANTED)


class Failing:
    name = "klaro"
    cookies = ("klaro",)

    def read(self, cookies):
        raise KeyError("x")


@pytest.mark.parametrize(
    ("reader", "told"),
    [
        pytest.param(Gullible(), "klaro was denied, is granted", id="gullible"),
        pytest.param(Failing(), "klaro raised", id="failing"),
    ],
)
def test_a_reader_that_takes_damage_for_consent_is_found(reader, told):
    header = b"klaro=mixpanel%22%3Afalse"
    damage = fuzz.Damage(header[:-1], len(header) - 1, len(header))

    [problem] = fuzz.check(
        reader, Said.DENIED, header, damage, kind=fuzz._truncate, report=fuzz.Report()
    )

    assert problem.startswith(told)


@given(st.lists(st.tuples(st.sampled_from(NAMES), st.binary(max_size=60)), max_size=8))
def test_no_cookie_breaks_the_readers_together(found):
    assert isinstance(read_managers(READERS_OF_ALL, found).said, Said)


@pytest.mark.parametrize("reader", READERS_OF_ALL, ids=[item.name for item in READERS_OF_ALL])
@given(text=st.text(st.characters(max_codepoint=255), max_size=200))
def test_no_text_breaks_a_reader(reader, text):
    cookies = dict.fromkeys([name.replace("*", "5") for name in reader.cookies], text)

    assert isinstance(reader.read(cookies), Reading)
