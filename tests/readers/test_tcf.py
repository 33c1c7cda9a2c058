import json
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mp_asgi.readers.base import DENIED, UNREADABLE, Reading, Said
from mp_asgi.readers.tcf import MAX_AGE_SECONDS, Restriction, Tcf, decode_tc_string
from tests.readers.rows import TESTS, read_header, rows_of, state_of

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
STRINGS = json.loads((TESTS / "fixtures" / "tc_strings.json").read_text())["strings"]
CASES = [pytest.param(case, id=case["name"].replace(" ", "-")) for case in STRINGS]
RESTRICTED = STRINGS[-1]["tc"]  # purpose 8 is not allowed to vendor 5
SPARSE = STRINGS[4]["tc"]  # vendors 2 and 755
UPDATED = 1_700_000_000.0
NO_VENDORS = "0" * 17
TAIL = NO_VENDORS * 2 + "0" * 12


def number(value, width):
    return f"{value:0{width}b}"


def flags(numbers, width):
    return "".join("1" if index in numbers else "0" for index in range(1, width + 1))


def encode_bits(bits):
    bits += "0" * (-len(bits) % 6)
    return "".join(ALPHABET[int(bits[at : at + 6], 2)] for at in range(0, len(bits), 6))


def encode(*, version=2, purposes=(1, 8), interest=(), one_treatment=False, tail=TAIL):
    """Encode a core segment field by field, as the specification lists them."""
    deciseconds = int(UPDATED * 10)
    return encode_bits(
        number(version, 6)
        + number(deciseconds, 36) * 2
        + number(31, 12)
        + number(640, 12)
        + number(1, 6)
        + number(4, 6)
        + number(13, 6)
        + number(142, 12)
        + number(5, 6)
        + "10"
        + flags((), 12)
        + flags(purposes, 24)
        + flags(interest, 24)
        + ("1" if one_treatment else "0")
        + number(3, 6)
        + number(4, 6)
        + tail
    )


def vendors(*spans, highest=755):
    """Encode a list of vendors by ranges."""
    items = (
        "0" + number(first, 16) if first == last else "1" + number(first, 16) + number(last, 16)
        for first, last in spans
    )
    return number(highest, 16) + "1" + number(len(spans), 12) + "".join(items)


def ids(spans):
    return list(chain.from_iterable(spans))


def read(text, **options):
    return Tcf(**options).read({"euconsent-v2": text})


@pytest.mark.parametrize("case", CASES)
def test_a_string_of_the_iabs_own_library_is_decoded_as_it_was_encoded(case):
    decoded = decode_tc_string(case["tc"])

    assert decoded is not None
    assert {
        "purposeConsents": sorted(decoded.purposes),
        "purposeLI": sorted(decoded.purposes_interest),
        "specialFeatures": sorted(decoded.special_features),
        "vendorConsents": ids(decoded.vendors),
        "vendorLI": ids(decoded.vendors_interest),
        "created": decoded.created * 1000,
        "lastUpdated": decoded.updated * 1000,
        "cmpId": decoded.cmp_id,
        "cmpVersion": decoded.cmp_version,
        "consentScreen": decoded.screen,
        "consentLanguage": decoded.language,
        "vendorListVersion": decoded.vendor_list_version,
        "policyVersion": decoded.policy_version,
        "isServiceSpecific": decoded.is_service_specific,
        "purposeOneTreatment": decoded.has_purpose_one_treatment,
        "publisherCountryCode": decoded.country,
    }.items() <= case.items()


@pytest.mark.parametrize("case", CASES)
def test_a_string_of_the_iabs_own_library_is_read(case):
    reading = read(case["tc"])

    assert state_of(reading) == case["exp"]
    assert reading.at == case["lastUpdated"] / 1000


@pytest.mark.parametrize(("header", "expected"), rows_of("iab-tcf"))
def test_a_real_header_is_read(header, expected):
    assert state_of(read_header(Tcf(), header)) == expected


def test_a_restriction_of_the_publisher_is_decoded():
    decoded = decode_tc_string(RESTRICTED)

    assert decoded is not None
    assert decoded.restrictions == (Restriction(8, 0, (range(5, 6),)),)


def test_a_grant_ends_thirteen_months_after_the_last_update():
    assert read(encode()) == Reading(Said.GRANTED, UPDATED, UPDATED + MAX_AGE_SECONDS)


def test_a_denial_has_its_time():
    assert read(encode(purposes=())) == DENIED._replace(at=UPDATED)


@pytest.mark.parametrize("flipped", range(1, 25))
def test_of_all_purposes_only_one_and_eight_decide(flipped):
    purposes = {*range(1, 25)} - {flipped}

    said = read(encode(purposes=purposes)).said

    assert said is (Said.DENIED if flipped in {1, 8} else Said.GRANTED)


@pytest.mark.parametrize("only", range(1, 25))
def test_one_purpose_alone_is_a_denial(only):
    assert read(encode(purposes={only})).said is Said.DENIED


@given(
    purposes=st.sets(st.integers(1, 24)),
    interest=st.sets(st.integers(1, 24)),
    one_treatment=st.booleans(),
    needed=st.sets(st.integers(1, 24), min_size=1),
)
def test_granted_means_that_all_needed_purposes_have_consent(
    purposes, interest, one_treatment, needed
):
    text = encode(purposes=purposes, interest=interest, one_treatment=one_treatment)

    said = read(text, purposes=tuple(needed)).said

    has_all = needed <= purposes | ({1} if one_treatment else set())
    assert said is (Said.GRANTED if has_all else Said.DENIED)


@pytest.mark.parametrize(
    ("text", "vendor_id", "expected"),
    [
        pytest.param(SPARSE, 2, Said.GRANTED, id="flag"),
        pytest.param(SPARSE, 755, Said.GRANTED, id="last"),
        pytest.param(SPARSE, 3, Said.DENIED, id="not-there"),
        pytest.param(SPARSE, 756, Said.DENIED, id="beyond-the-last"),
        pytest.param(
            encode(tail=number(3, 16) + "0" + "101" + vendors(highest=65_535) + "0" * 12),
            4,
            Said.DENIED,
            id="what-follows-the-flags-is-no-flag",
        ),
        pytest.param(
            encode(tail=number(3, 16) + "0" + "101" + NO_VENDORS + "0" * 12),
            3,
            Said.GRANTED,
            id="last-flag",
        ),
        pytest.param(
            encode(tail=number(3, 16) + "0" + "101" + NO_VENDORS + "0" * 12),
            2,
            Said.DENIED,
            id="flag-not-set",
        ),
        pytest.param(
            encode(tail=vendors((2, 2), (10, 20)) + NO_VENDORS + "0" * 12),
            20,
            Said.GRANTED,
            id="end-of-a-range",
        ),
        pytest.param(
            encode(tail=vendors((10, 20), (30, 30)) + NO_VENDORS + "0" * 12),
            21,
            Said.DENIED,
            id="between-ranges",
        ),
        pytest.param(
            encode(tail=NO_VENDORS + vendors((5, 5)) + "0" * 12),
            5,
            Said.DENIED,
            id="legitimate-interest",
        ),
        pytest.param(RESTRICTED, 5, Said.DENIED, id="not-allowed-by-the-publisher"),
        pytest.param(RESTRICTED, 6, Said.GRANTED, id="another-is-not-allowed"),
        pytest.param(STRINGS[0]["tc"], 800, Said.GRANTED, id="range-to-the-last"),
        pytest.param(STRINGS[2]["tc"], 5, Said.DENIED, id="vendor-without-purposes"),
    ],
)
def test_a_vendor_that_is_asked_for_must_have_consent(text, vendor_id, expected):
    assert read(text, vendor_id=vendor_id).said is expected


@pytest.mark.parametrize(
    ("purpose", "kind", "expected"),
    [
        pytest.param(8, 0, Said.DENIED, id="not-allowed"),
        pytest.param(8, 1, Said.GRANTED, id="only-with-consent"),
        pytest.param(8, 2, Said.DENIED, id="only-by-legitimate-interest"),
        pytest.param(7, 0, Said.GRANTED, id="another-purpose"),
    ],
)
def test_a_restriction_of_our_purpose_leaves_only_consent(purpose, kind, expected):
    restriction = number(purpose, 6) + number(kind, 2) + number(1, 12) + "1" + number(4, 16)
    tail = vendors((1, 9)) + NO_VENDORS + number(1, 12) + restriction + number(6, 16)

    assert read(encode(tail=tail), vendor_id=5).said is expected


def test_letters_that_are_none_are_shown_as_a_question():
    text = encode()
    decoded = decode_tc_string(text[:18] + "_" + text[19:])

    assert decoded is not None
    assert decoded.language == "?N"


def test_what_follows_the_core_segment_does_not_matter():
    assert read(encode() + ".!!!.").said is Said.GRANTED


def test_a_string_is_read_whatever_its_length_leaves_over_four():
    texts = [encode() + "A" * extra for extra in range(4)]

    assert {read(text).said for text in texts} == {Said.GRANTED}


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("C", id="version-alone"),
        pytest.param(".", id="empty-segments"),
        pytest.param("granted", id="word"),
        pytest.param(encode(version=1), id="version-1"),
        pytest.param(encode(version=3), id="version-3"),
        pytest.param(encode()[1:], id="first-character-lost"),
        pytest.param("B" + encode()[1:], id="first-character-off"),
        pytest.param(encode().replace("A", "+", 1), id="base64-of-another-alphabet"),
        pytest.param(encode() + "=", id="filled-up"),
        pytest.param(encode() + " ", id="space"),
        pytest.param(encode()[:20] + "é" + encode()[21:], id="beyond-ascii"),
        pytest.param(encode(tail=""), id="no-vendors"),
        pytest.param(encode(tail=number(60_000, 16) + "0" + TAIL), id="more-flags-than-bits"),
        pytest.param(encode(tail=NO_VENDORS * 2 + "000"), id="restriction-count-cut"),
        pytest.param(
            encode(tail=NO_VENDORS * 2 + number(1, 12) + number(8, 8) + number(1, 12) + "0000"),
            id="last-range-cut",
        ),
        pytest.param(
            encode(tail=number(9, 16) + "1" + number(4_095, 12) + "0" * 60), id="huge-range-count"
        ),
        pytest.param(
            encode(tail=NO_VENDORS * 2 + number(4_095, 12) + "0" * 60), id="huge-restriction-count"
        ),
        pytest.param(
            encode(tail=NO_VENDORS * 2 + number(1, 12) + number(8, 8) + number(4_095, 12)),
            id="huge-range-count-in-a-restriction",
        ),
    ],
)
def test_what_cannot_be_decoded_is_unreadable(text):
    assert read(text) is UNREADABLE
    assert decode_tc_string(text) is None


@pytest.mark.parametrize("length", range(len(STRINGS[0]["tc"].partition(".")[0]) - 3))
def test_a_string_cut_in_any_field_is_unreadable(length):
    # The last characters of this one only fill up the octet.
    assert read(STRINGS[0]["tc"][:length]) is UNREADABLE
    assert decode_tc_string(STRINGS[0]["tc"][:length]) is None


@given(st.text(ALPHABET + ".", max_size=200).map(lambda text: "CQtAQoAQt" + text) | st.text())
def test_no_text_raises_and_both_decoders_agree_what_is_readable(text):
    reading = read(text, vendor_id=5)

    assert (reading is UNREADABLE) == (decode_tc_string(text) is None)


def test_where_two_cookies_hold_a_string_both_must_grant():
    cookies = {"euconsent-v2": encode(), "eupubconsent-v2": encode(purposes=())}

    assert Tcf().read(cookies).said is Said.DENIED


def test_another_cookie_can_be_named():
    reader = Tcf(cookie=("tc",))

    assert reader.cookies == ("tc",)
    assert reader.read({"tc": encode()}).said is Said.GRANTED


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param({"purposes": ()}, "at least one", id="no-purpose"),
        pytest.param({"purposes": (0,)}, "from 1 to 24", id="purpose-0"),
        pytest.param({"purposes": (1, 25)}, "from 1 to 24", id="purpose-25"),
        pytest.param({"vendor_id": -1}, "up to 65535", id="negative-vendor"),
        pytest.param({"vendor_id": 65_536}, "up to 65535", id="vendor-too-large"),
    ],
)
def test_options_that_cannot_be_met_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Tcf(**options)
