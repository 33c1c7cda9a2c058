import pytest

from mp_asgi.ledger import UnusableLedger
from mp_asgi.ledger.keys import Keyring
from tests.ledger.acts import NEW, OLD, USER


def test_the_last_key_writes_and_all_are_used_for_look_ups():
    keyring = Keyring([OLD, NEW])

    assert keyring.newest.subject_of(USER) == keyring.subjects_of(USER)[-1]
    assert keyring.subjects_of(USER)[0] == Keyring([OLD]).newest.subject_of(USER)
    assert keyring.owners([USER]) == dict.fromkeys(keyring.subjects_of(USER), USER)


def test_a_key_listed_twice_is_one_key():
    keyring = Keyring([NEW, OLD, NEW])

    assert len(keyring.subjects_of(USER)) == 2
    assert keyring.newest.id == Keyring([NEW]).newest.id


def test_each_use_has_a_key_of_its_own():
    key = Keyring([NEW]).newest

    assert len({NEW.encode(), key.subjects, key.chain}) == 3
    assert NEW.encode() not in {key.subjects, key.chain}
    assert key.id not in key.subjects.hex()


@pytest.mark.parametrize(
    ("secrets", "words"),
    [
        pytest.param([], "no key", id="none"),
        pytest.param([NEW, "n" * 31], "31 bytes", id="too-short"),
    ],
)
def test_keys_that_protect_nothing_are_refused(secrets, words):
    with pytest.raises(UnusableLedger, match=words):
        Keyring(secrets)


def test_the_message_about_a_short_key_does_not_show_it():
    with pytest.raises(UnusableLedger) as raised:
        Keyring(["hunter2"])

    assert "hunter2" not in str(raised.value)
