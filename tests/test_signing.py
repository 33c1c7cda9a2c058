import base64
import hashlib
import string

import itsdangerous
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mp_asgi.cookies import MAX_VALUE_BYTES
from mp_asgi.signing import CookieSigner, Unsigned
from tests.support import NOW, FakeClock

OLD, NEW, FOREIGN = "o" * 32, "n" * 32, "f" * 32
SALT = "mp_asgi.id.v1"
VALUE = b"1.some-device.1800000000.m..0."


def make_signer(*keys, salt=SALT):
    return CookieSigner(keys or (NEW,), salt, FakeClock())


def make_reference(key, salt=SALT):
    return itsdangerous.TimestampSigner(
        key, salt=salt, key_derivation="hmac", digest_method=hashlib.sha256
    )


def test_a_signed_value_verifies_and_is_current():
    signer = make_signer()

    assert signer.unsign(signer.sign(VALUE)) == Unsigned(VALUE, is_current=True)


def test_the_format_is_the_one_of_itsdangerous():
    token = make_signer().sign(VALUE)

    value, signed_at = make_reference(NEW).unsign(token, return_timestamp=True)

    assert (value, signed_at.timestamp()) == (VALUE, NOW)


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        pytest.param(NEW, Unsigned(VALUE, is_current=True), id="newest"),
        pytest.param(OLD, Unsigned(VALUE, is_current=False), id="on-its-way-out"),
        pytest.param(FOREIGN, None, id="dropped"),
    ],
)
def test_the_last_key_signs_and_every_listed_one_verifies(key, expected):
    token = make_signer(key).sign(VALUE)

    assert make_signer(OLD, NEW).unsign(token) == expected


def test_the_last_key_signs():
    token = make_signer(OLD, NEW).sign(VALUE)

    assert make_signer(NEW).unsign(token) == Unsigned(VALUE, is_current=True)


def test_a_signature_of_another_salt_does_not_pass():
    token = make_signer(salt="mp_asgi.consent.v1").sign(VALUE)

    assert make_signer().unsign(token) is None


def test_an_apps_own_signer_with_the_same_secret_cannot_mint_ours():
    token = itsdangerous.TimestampSigner(NEW).sign(VALUE)

    assert make_signer().unsign(token) is None


def test_a_timestamp_of_the_future_is_no_reason_to_refuse():
    ahead = CookieSigner((NEW,), SALT, FakeClock(NOW + 3_600))

    assert make_signer().unsign(ahead.sign(VALUE)) == Unsigned(VALUE, is_current=True)


GOOD = make_signer().sign(VALUE)


@pytest.mark.parametrize(
    "token",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b".", id="dot"),
        pytest.param(b"garbage", id="garbage"),
        pytest.param(VALUE, id="unsigned"),
        pytest.param(b"2" + GOOD[1:], id="tampered-value"),
        pytest.param(GOOD.replace(b".0.", b".9.", 1), id="tampered-in-the-middle"),
        pytest.param(GOOD[:-1], id="signature-too-short"),
        pytest.param(GOOD + b"A", id="signature-too-long"),
        pytest.param(GOOD[:-2] + b"AA", id="other-signature"),
        pytest.param(GOOD[:-43] + b"\xff" * 43, id="signature-not-ascii"),
        pytest.param(GOOD[:-43] + b"A" * 42 + b"!", id="signature-not-base64"),
        pytest.param(GOOD[:-43] + b"=" * 43, id="signature-of-padding"),
        pytest.param(GOOD + b"=", id="signature-with-padding"),
        pytest.param(GOOD[:-9] + b"!" + GOOD[-9:], id="signature-with-noise-inside"),
        pytest.param(b"\xc3\xa9" + GOOD, id="value-not-ascii"),
        pytest.param(GOOD + b"." + GOOD, id="twice"),
        pytest.param(b'"' + GOOD + b'"', id="quoted"),
    ],
)
def test_what_we_did_not_write_is_nothing(token):
    assert make_signer(OLD, NEW).unsign(token) is None


def test_a_signature_has_one_spelling():
    # The last of 43 characters carries two bits of nothing.
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    respelt = GOOD[:-1] + bytes([alphabet[alphabet.index(GOOD[-1]) + 1]])
    assert make_reference(NEW).unsign(respelt) == VALUE

    assert make_signer().unsign(respelt) is None


@pytest.mark.parametrize("size", range(0, len(GOOD), 7))
def test_a_truncated_token_is_nothing(size):
    assert make_signer().unsign(GOOD[:size]) is None


@pytest.mark.parametrize(
    ("extra_bytes", "is_read"),
    [pytest.param(0, True, id="at-the-limit"), pytest.param(1, False, id="beyond")],
)
def test_a_longer_cookie_than_browsers_keep_is_never_hashed(extra_bytes, is_read):
    signer = make_signer()
    overhead = len(signer.sign(b""))
    token = signer.sign(b"v" * (MAX_VALUE_BYTES - overhead + extra_bytes))

    assert (signer.unsign(token) is not None) is is_read


VALUES = st.binary(max_size=80)
KEYS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=100)


@given(value=VALUES, key=KEYS, salt=st.text("abc.", min_size=1))
def test_whatever_itsdangerous_signs_we_verify_and_the_other_way_round(value, key, salt):
    ours, theirs = make_signer(key, salt=salt), make_reference(key, salt)

    assert ours.unsign(theirs.sign(value)) == Unsigned(value, is_current=True)
    assert theirs.unsign(ours.sign(value)) == value


@given(data=st.data())
def test_nothing_verifies_here_that_itsdangerous_refuses(data):
    token = bytearray(GOOD)
    for _ in range(data.draw(st.integers(0, 3))):
        token[data.draw(st.integers(0, len(token) - 1))] = data.draw(st.integers(0, 255))
    token = bytes(token[: data.draw(st.integers(0, len(token)))]) or bytes(token)

    unsigned = make_signer().unsign(token)

    try:
        expected = make_reference(NEW).unsign(token)
    except itsdangerous.BadData:
        expected = None
    # Stricter in the spelling of a signature, never looser.
    assert unsigned is None or unsigned.value == expected


@given(st.binary(max_size=5_000))
def test_garbage_never_raises(token):
    assert make_signer(OLD, NEW).unsign(token) is None


@pytest.mark.parametrize("last", string.ascii_letters + string.digits + "-_")
def test_of_the_signatures_that_itsdangerous_reads_only_our_own_spelling_passes(last):
    # 43 characters have two bits that mean nothing: four spellings of one signature.
    token = GOOD[:-1] + last.encode()

    unsigned = make_signer().unsign(token)

    assert (unsigned is not None) is (token == GOOD)
    is_read = make_reference(NEW).validate(token)
    assert is_read or unsigned is None
    assert not is_read or base64.urlsafe_b64decode(token[-43:] + b"=") == SIGNATURE


SIGNATURE = base64.urlsafe_b64decode(GOOD[-43:] + b"=")
