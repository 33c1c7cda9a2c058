import pytest
from hypothesis import given
from hypothesis import strategies as st

from mp_asgi.consent.choice import Choice, StoredConsent, mirror_source


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        pytest.param(Choice(True, "v1", 5, 2, "own"), b"1.g.v1.5.2.own", id="grant"),
        pytest.param(Choice(False, "", 5, 1, "own"), b"1.d..5.1.own", id="denial"),
        pytest.param(
            Choice(True, "", 5, 1, "gpc-override"), b"1.g..5.1.gpc-override", id="gpc-override"
        ),
        pytest.param(
            Choice(False, "", 5, 1, "unreadable"), b"1.d..5.1.unreadable", id="unreadable"
        ),
        pytest.param(
            Choice(True, "", 5, 1, "mirror:iab-tcf"), b"1.g..5.1.mirror:iab-tcf", id="mirror"
        ),
    ],
)
def test_a_choice_is_rendered_for_the_cookie_and_read_back(choice, expected):
    assert choice.render() == expected
    assert Choice.parse(expected) == choice


@given(
    st.builds(
        Choice,
        is_granted=st.booleans(),
        version=st.from_regex(r"[A-Za-z0-9_\-]{0,32}", fullmatch=True),
        at=st.integers(0, 2**40),
        revision=st.integers(0, 10**6),
        source=st.sampled_from(["own", "gpc-override", "unreadable"])
        | st.from_regex(r"mirror:[A-Za-z0-9\-]{1,64}", fullmatch=True),
    )
)
def test_what_is_rendered_is_read_back(choice):
    assert Choice.parse(choice.render()) == choice


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"granted", id="a-word"),
        pytest.param(b"1.g..5.1", id="too-few-fields"),
        pytest.param(b"1.g..5.1.own.", id="too-many-fields"),
        pytest.param(b"2.g..5.1.own", id="another-form"),
        pytest.param(b"1.G..5.1.own", id="another-state"),
        pytest.param(b"1...5.1.own", id="no-state"),
        pytest.param(b"1.g.\xff.5.1.own", id="version-not-ascii"),
        pytest.param(b"1.g..x.1.own", id="time-no-number"),
        pytest.param(b"1.g..5.x.own", id="revision-no-number"),
        pytest.param(b"1.g..5.1.other", id="unknown-source"),
        pytest.param(b"1.g..5.1.mirror", id="mirror-of-nothing"),
        pytest.param(b"1.g..5.1.mirror:", id="mirror-without-a-name"),
        pytest.param(b"1.g..5.1.mirror:a b", id="mirror-of-no-name"),
        pytest.param(b"1.g..5.1.mirror:a\n", id="mirror-with-a-line-end"),
        pytest.param(b"1.g..5.1.mirror:" + b"a" * 65, id="mirror-of-a-long-name"),
        pytest.param(b"1.g..5.1.own:klaro", id="own-with-a-name"),
        pytest.param(b"1.g.." + b"9" * 5_000 + b".1.own", id="time-beyond-python"),
    ],
)
def test_what_we_did_not_write_is_no_choice(value):
    assert Choice.parse(value) is None


@given(st.binary(max_size=60))
def test_reading_garbage_never_raises_and_never_grants(value):
    choice = Choice.parse(value)

    assert choice is None or not choice.is_granted or value.startswith(b"1.g.")


def test_an_apps_stored_answer_needs_no_time():
    assert StoredConsent(True).at is None


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        pytest.param(mirror_source(["klaro"]), ("klaro",), id="mirror"),
        pytest.param(mirror_source(["klaro", "iab-tcf"]), ("klaro", "iab-tcf"), id="of-two"),
        pytest.param("own", (), id="own"),
        pytest.param("gpc-override", (), id="gpc-override"),
        pytest.param("unreadable", (), id="unreadable"),
    ],
)
def test_a_mirror_names_its_consent_manager(source, expected):
    assert Choice(True, "", 5, 1, source).mirrored == expected
