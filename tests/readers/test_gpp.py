import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mp_asgi.readers.base import DENIED, NOTHING, UNREADABLE, Said
from mp_asgi.readers.bits import read_bits
from mp_asgi.readers.gpp import Gpp, OptOut, decode_gpp
from mp_asgi.readers.gpp_layouts import US_LAYOUTS
from mp_asgi.readers.tcf import MAX_AGE_SECONDS, Tcf
from tests.readers.rows import TESTS, read_header, rows_of, state_of

STRINGS = json.loads((TESTS / "fixtures" / "gpp_strings.json").read_text())["strings"]
LAYOUTS = json.loads((TESTS / "fixtures" / "gpp_us_layouts.json").read_text())
CASES = [pytest.param(case, id=case["name"].replace(" ", "-")) for case in STRINGS]
OPT_OUTS = list(OptOut)
TCF_AND_US = STRINGS[6]["gpp"]

# Encoded by @iabgpp/cmpapi 3.2.0: section, the one field that opts out, string.
ENCODED = """\
usnat SaleOptOut DBABLA~CVQaAAAAAABA.QA
usnat SharingOptOut DBABLA~CVQmAAAAAABA.QA
usnat TargetedAdvertisingOptOut DBABLA~CVQpAAAAAABA.QA
usnat Gpc DBABLA~CVQqAAAAAABA.YA
usnat none DBABLA~CVQqAAAAAABA.QA
usca SaleOptOut DBABBg~BUYAAABA.QA
usca SharingOptOut DBABBg~BUkAAABA.QA
usca Gpc DBABBg~BUoAAABA.YA
usca none DBABBg~BUoAAABA.QA
usva SaleOptOut DBABRg~BVYAABA
usva TargetedAdvertisingOptOut DBABRg~BVkAABA
usva none DBABRg~BVoAABA
usco SaleOptOut DBABJg~BVYAAEA.QA
usco TargetedAdvertisingOptOut DBABJg~BVkAAEA.QA
usco Gpc DBABJg~BVoAAEA.YA
usco none DBABJg~BVoAAEA.QA
usut SaleOptOut DBABFg~BVGAAAQA
usut TargetedAdvertisingOptOut DBABFg~BVJAAAQA
usut none DBABFg~BVKAAAQA
usct SaleOptOut DBABVg~BVYAAAEA.QA
usct TargetedAdvertisingOptOut DBABVg~BVkAAAEA.QA
usct Gpc DBABVg~BVoAAAEA.YA
usct none DBABVg~BVoAAAEA.QA
usfl SaleOptOut DBABAw~BVYAAABA
usfl TargetedAdvertisingOptOut DBABAw~BVkAAABA
usfl none DBABAw~BVoAAABA
usmt SaleOptOut DBABQw~BVYAAABA.QA
usmt TargetedAdvertisingOptOut DBABQw~BVkAAABA.QA
usmt Gpc DBABQw~BVoAAABA.YA
usmt none DBABQw~BVoAAABA.QA
usor SaleOptOut DBABIw~BVYAAAABAA.QA
usor TargetedAdvertisingOptOut DBABIw~BVkAAAABAA.QA
usor Gpc DBABIw~BVoAAAABAA.YA
usor none DBABIw~BVoAAAABAA.QA
ustx SaleOptOut DBABEw~BVYAAAQA.QA
ustx TargetedAdvertisingOptOut DBABEw~BVkAAAQA.QA
ustx Gpc DBABEw~BVoAAAQA.YA
ustx none DBABEw~BVoAAAQA.QA
usde SaleOptOut DBABUw~BVYAAAABAA.QA
usde TargetedAdvertisingOptOut DBABUw~BVkAAAABAA.QA
usde Gpc DBABUw~BVoAAAABAA.YA
usde none DBABUw~BVoAAAABAA.QA
usia SaleOptOut DBABCw~BVGAAAQA.QA
usia TargetedAdvertisingOptOut DBABCw~BVJAAAQA.QA
usia Gpc DBABCw~BVKAAAQA.YA
usia none DBABCw~BVKAAAQA.QA
usne SaleOptOut DBABSw~BVYAAAQA.QA
usne TargetedAdvertisingOptOut DBABSw~BVkAAAQA.QA
usne Gpc DBABSw~BVoAAAQA.YA
usne none DBABSw~BVoAAAQA.QA
usnh SaleOptOut DBABKw~BVYAAABA.QA
usnh TargetedAdvertisingOptOut DBABKw~BVkAAABA.QA
usnh Gpc DBABKw~BVoAAABA.YA
usnh none DBABKw~BVoAAABA.QA
usnj SaleOptOut DBABAYA~BVYAAAAAQA.QA
usnj TargetedAdvertisingOptOut DBABAYA~BVkAAAAAQA.QA
usnj Gpc DBABAYA~BVoAAAAAQA.YA
usnj none DBABAYA~BVoAAAAAQA.QA
ustn SaleOptOut DBABQYA~BVYAAAQA.QA
ustn TargetedAdvertisingOptOut DBABQYA~BVkAAAQA.QA
ustn Gpc DBABQYA~BVoAAAQA.YA
ustn none DBABQYA~BVoAAAQA.QA
usmn SaleOptOut DBABIYA~BVYAAAQA.QA
usmn TargetedAdvertisingOptOut DBABIYA~BVkAAAQA.QA
usmn Gpc DBABIYA~BVoAAAQA.YA
usmn none DBABIYA~BVoAAAQA.QA
usmd SaleOptOut DBABEYA~BRVg.QA
usmd TargetedAdvertisingOptOut DBABEYA~BRWQ.QA
usmd Gpc DBABEYA~BRWg.YA
usmd none DBABEYA~BRWg.QA
usin SaleOptOut DBABUYA~BRVg.AAA
usin TargetedAdvertisingOptOut DBABUYA~BRWQ.AAA
usin none DBABUYA~BRWg.AAA
usky SaleOptOut DBABCYA~BRVg.AAA
usky TargetedAdvertisingOptOut DBABCYA~BRWQ.AAA
usky none DBABCYA~BRWg.AAA
usri SaleOptOut DBABSYA~BRVg.AAA
usri TargetedAdvertisingOptOut DBABSYA~BRWQ.AAA
usri none DBABSYA~BRWg.AAA
"""
ALL = [line.split() for line in ENCODED.splitlines()]
ALL_CASES = [pytest.param(*row, id=f"{row[0]}-{row[1]}") for row in ALL]


def encode_bits(bits):
    bits += "0" * (-len(bits) % 6)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return "".join(alphabet[int(bits[at : at + 6], 2)] for at in range(0, len(bits), 6))


def header(*items, count=None):
    count = len(items) if count is None else count
    return encode_bits(f"000011000001{count:012b}" + "".join(items))


def read(text, **options):
    return Gpp(**options).read({"__gpp": text})


@pytest.mark.parametrize("case", CASES)
def test_a_string_of_the_iabs_own_library_is_read(case):
    assert state_of(read(case["gpp"])) == case["exp"]


@pytest.mark.parametrize("case", CASES)
def test_a_string_of_the_iabs_own_library_is_decoded_as_it_was_encoded(case):
    decoded = decode_gpp(case["gpp"])

    assert decoded is not None
    assert list(decoded.section_ids) == case["sectionIds"]
    for section in decoded.us:
        truth = case["sections"][str(section.section_id)]
        said = (section.sale, section.sharing, section.targeted)
        fields = ("SaleOptOut", "SharingOptOut", "TargetedAdvertisingOptOut")
        assert section.version == truth["Version"]
        assert [item and OPT_OUTS.index(item) for item in said] == [truth.get(f) for f in fields]
        assert section.gpc == truth.get("Gpc")


def test_the_sections_of_europe_and_of_us_privacy_are_decoded():
    europe, california = decode_gpp(TCF_AND_US), decode_gpp("DBABTA~1YNN")

    assert europe is not None
    assert europe.tcf is not None
    assert sorted(europe.tcf.purposes) == [1, 7, 8, 9, 10]
    assert california is not None
    assert (california.us_privacy, california.tcf) == ("1YNN", None)


@pytest.mark.parametrize(("section_id", "layout"), LAYOUTS.items(), ids=list(LAYOUTS))
def test_a_layout_is_that_of_the_standard(section_id, layout):
    ours = US_LAYOUTS[int(section_id)]
    places = {field: place for place, field in enumerate(layout["fields"][1:])}

    assert (ours.name, ours.sale, ours.sharing, ours.targeted) == (
        layout["name"],
        places["SaleOptOut"],
        places.get("SharingOptOut"),
        places.get("TargetedAdvertisingOptOut"),
    )


def test_every_layout_of_the_standard_is_known():
    assert {str(section_id) for section_id in US_LAYOUTS} == set(LAYOUTS)


@pytest.mark.parametrize(("name", "opted_out", "text"), ALL_CASES)
def test_exactly_the_field_that_opts_out_is_found_in_every_us_section(name, opted_out, text):
    decoded = decode_gpp(text)

    assert decoded is not None
    [section] = decoded.us
    found = {
        "SaleOptOut": section.sale is OptOut.OPTED_OUT,
        "SharingOptOut": section.sharing is OptOut.OPTED_OUT,
        "TargetedAdvertisingOptOut": section.targeted is OptOut.OPTED_OUT,
        "Gpc": section.gpc,
    }
    assert section.name == name
    assert [field for field, is_out in found.items() if is_out] == (
        [] if opted_out == "none" else [opted_out]
    )


@pytest.mark.parametrize(("name", "opted_out", "text"), ALL_CASES)
def test_an_opt_out_denies_in_every_us_section_and_nothing_grants(name, opted_out, text):
    expected = NOTHING if opted_out in {"none", "TargetedAdvertisingOptOut"} else DENIED

    assert read(text) is expected
    assert read(text, targeted=True) is (NOTHING if opted_out == "none" else DENIED)


@pytest.mark.parametrize(("header", "expected"), rows_of("iab-gpp") + rows_of("onetrust-gpp"))
def test_a_real_header_is_read(header, expected):
    assert state_of(read_header(Gpp(), header)) == expected


def test_a_grant_of_the_european_section_keeps_its_time():
    reading = read(TCF_AND_US)

    assert reading == (Said.GRANTED, 1_795_219_200.0, 1_795_219_200.0 + MAX_AGE_SECONDS)


def test_the_rule_for_the_european_section_can_be_set():
    assert read(TCF_AND_US, tcf=Tcf(purposes=(1, 2))).said is Said.DENIED


def test_an_opt_out_beside_a_european_grant_denies():
    assert read(TCF_AND_US.replace("CFQqAAAAAACA", "CFQaAAAAAACA")) is DENIED


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("DBAA", NOTHING, id="no-section"),
        pytest.param(header("0" + "00011") + "~anything", NOTHING, id="unknown-id-5"),
        pytest.param(header("0" + "0000000000000000011") + "~x", NOTHING, id="unknown-id-4181"),
        pytest.param(
            header("1" + "01011" + "11") + "~BVQqAAAACgA.QA~BUUAAACA.QA", DENIED, id="group"
        ),
        pytest.param(
            header("0" + "01011", "0" + "11") + "~BVQqAAAACgA~BUUAAACA", DENIED, id="steps"
        ),
        pytest.param("DBABLA~BVQqAAAACgA.QA.YA", DENIED, id="any-gpc-subsection"),
        pytest.param("DBABLA~BVQqAAAACgA.oA", NOTHING, id="subsection-of-another-type"),
        pytest.param("DBABUYA~BRWg.ZA", NOTHING, id="usin-sensitive-data-is-no-gpc"),
        pytest.param("DBABCYA~BRWg.ZA", NOTHING, id="usky-sensitive-data-is-no-gpc"),
        pytest.param("DBABSYA~BRWg.ZA", NOTHING, id="usri-sensitive-data-is-no-gpc"),
        pytest.param("DBABTA~1YYN", DENIED, id="us-privacy-opted-out"),
    ],
)
def test_a_string_is_read_by_its_sections(text, expected):
    assert read(text) is expected


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("DB", id="header-cut"),
        pytest.param("DBA", id="header-cut-in-the-count"),
        pytest.param("DBABLA", id="a-section-too-few"),
        pytest.param("DBABLA~CFQqAAAAAACA~CFQqAAAAAACA", id="a-section-too-many"),
        pytest.param("DBABLA~", id="empty-section"),
        pytest.param("~", id="nothing-but-a-separator"),
        pytest.param("DBABLA~!!!", id="no-base64url"),
        pytest.param("DCABLA~CFQqAAAAAACA", id="header-of-version-2"),
        pytest.param("CBABLA~CFQqAAAAAACA", id="header-of-another-type"),
        pytest.param("DBAB~CFQqAAAAAACA", id="ids-missing"),
        pytest.param("DBABAA~CFQqAAAAAACA", id="id-without-end"),
        pytest.param(header("0" + "0" * 19 + "11") + "~x", id="id-too-large"),
        pytest.param(header("1" + "11" + "0" * 17 + "11") + "~x", id="huge-group"),
        pytest.param(header("11111", "11111") + "~x~x~x", id="more-groups-than-sections"),
        pytest.param(header("0" + "01011", count=4_095) + "~CFQqAAAAAACA", id="huge-count"),
        pytest.param("DBABLA~C", id="section-of-a-version-alone"),
        pytest.param("DBABLA~CFQ", id="section-cut-in-the-opt-outs"),
        pytest.param("DBABLA~CFQ_AAAAAACA", id="opt-out-of-the-fourth-value"),
        pytest.param("DBABLA~DFQqAAAAAACA", id="unknown-version"),
        pytest.param("DBABBg~CUoAAACA", id="unknown-version-of-a-state"),
        pytest.param("DBABLA~CFQqAAAAAACA.", id="empty-subsection"),
        pytest.param("DBABLA~CFQqAAAAAACA.!", id="subsection-of-no-base64url"),
        pytest.param("DBABTA~2YNN", id="us-privacy-of-another-version"),
        pytest.param("DBABMA~BQuCLYA", id="european-section-of-version-1"),
        pytest.param(TCF_AND_US.replace("~CFQ", "~DFQ"), id="grant-beside-an-unknown-version"),
    ],
)
def test_what_cannot_be_decoded_is_unreadable(text):
    assert read(text) is UNREADABLE
    assert decode_gpp(text) is None


@pytest.mark.parametrize("case", CASES)
def test_no_beginning_of_a_string_permits_more_than_the_whole(case):
    whole = read(case["gpp"]).said

    said = {read(case["gpp"][:length]).said for length in range(len(case["gpp"]))}

    assert said <= {Said.UNREADABLE, Said.NOTHING, whole}


@pytest.mark.parametrize(
    ("zeros", "sections"),
    [pytest.param(18, 1, id="few-sections"), pytest.param(12, 2_000, id="many-sections")],
)
def test_ids_beyond_the_sections_are_never_written_out(zeros, sections):
    text = header(*["1" + "11" + "0" * zeros + "11"] * 300) + "~" * sections
    tracemalloc.start()

    try:
        reading = read(text)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert reading is UNREADABLE
    assert peak_bytes < 1_000_000


@given(
    st.text("DBACLMAQ~.-_1YN", max_size=60).map(lambda text: "DBA" + text)
    | st.text()
    | st.sampled_from(STRINGS).flatmap(
        lambda case: st.integers(0, len(case["gpp"])).map(lambda at: case["gpp"][:at] + "A~A")
    )
)
def test_no_text_raises_and_both_decoders_agree_what_is_readable(text):
    # A denial hides what cannot be read beside it.
    assert read(text) is DENIED or (read(text) is UNREADABLE) == (decode_gpp(text) is None)


def test_where_two_cookies_hold_a_string_an_opt_out_in_one_denies():
    cookies = {"__gpp": "DBABLA~CFQqAAAAAACA.QA", "OTGPPConsent": "DBABLA~BVQVAAAAAgA.QA"}

    assert Gpp().read(cookies) is DENIED


def test_another_cookie_can_be_named():
    reader = Gpp(cookie=("gpp",))

    assert reader.cookies == ("gpp",)
    assert reader.read({"gpp": "DBABTA~1YYN"}) is DENIED


def test_the_header_of_these_tests_is_that_of_the_library():
    assert read_bits(header("0" + "01011"))[:30] == read_bits("DBABLA")[:30]
