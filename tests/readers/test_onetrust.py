import pytest

from mp_asgi.readers.base import DENIED, NOTHING, STALE, UNREADABLE, Reading, Said
from mp_asgi.readers.onetrust import OneTrust
from tests.readers.rows import read_header, rows_of, state_of

CLOSED = "OptanonAlertBoxClosed=1970-01-01T00:00:05.000Z; "


@pytest.mark.parametrize(("header", "expected"), rows_of("onetrust"))
def test_real_cookies_are_read(header, expected):
    assert state_of(read_header(OneTrust(), header)) == expected


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        pytest.param(
            CLOSED + "OptanonConsent=groups=C0002:1", Reading(Said.GRANTED, 5.0), id="yes"
        ),
        pytest.param(CLOSED + "OptanonConsent=groups=C0002:0", Reading(Said.DENIED, 5.0), id="no"),
        pytest.param(
            "OptanonAlertBoxClosed=1970-01-01T00%3A00%3A05Z; OptanonConsent=groups=C0002%3A1",
            Reading(Said.GRANTED, 5.0),
            id="escaped-time",
        ),
        pytest.param(
            "OptanonAlertBoxClosed=x; OptanonConsent=groups=C0002:0", DENIED, id="no-without-a-time"
        ),
        pytest.param(
            "OptanonAlertBoxClosed=x; OptanonConsent=groups=C0002:1",
            UNREADABLE,
            id="yes-without-a-time",
        ),
        pytest.param("OptanonConsent=groups=C0002:1", NOTHING, id="template-default"),
        pytest.param("OptanonConsent=isGpcEnabled=1&groups=C0002:1", DENIED, id="gpc"),
        pytest.param(CLOSED.strip("; "), UNREADABLE, id="closed-and-no-groups"),
        pytest.param(CLOSED + "OptanonConsent=intType=1", UNREADABLE, id="groups-missing"),
        pytest.param(CLOSED + "OptanonConsent=groups=C0001:1", NOTHING, id="ours-not-asked"),
        pytest.param(CLOSED + "OptanonConsent=groups=C0002:2", UNREADABLE, id="neither-0-nor-1"),
        pytest.param(CLOSED + "OptanonConsent=groups=C0002", UNREADABLE, id="no-state"),
        pytest.param(
            CLOSED + "OptanonConsent=groups=C0002:1,C0002:0",
            Reading(Said.DENIED, 5.0),
            id="group-twice",
        ),
        pytest.param(
            CLOSED + "OptanonConsent=groups=C0002:1&groups=C0002:0", UNREADABLE, id="field-twice"
        ),
        pytest.param(
            CLOSED + "OptanonConsent=groups=C0002:1&group%73=C0002:0",
            UNREADABLE,
            id="field-twice-escaped",
        ),
        pytest.param(
            CLOSED + "OptanonConsent=groups=C0002:1&AwaitingReconsent=true", STALE, id="awaiting"
        ),
        pytest.param(
            CLOSED + "OptanonConsent=groups=C0002:1&AwaitingReconsent=tru",
            UNREADABLE,
            id="awaiting-unreadable",
        ),
        pytest.param(
            CLOSED + "OptanonConsent=groups=C0002:1&AwaitingReconsent%3Dtrue",
            UNREADABLE,
            id="awaiting-escaped-whole",
        ),
    ],
)
def test_only_a_closed_banner_and_a_clear_group_are_a_choice(header, expected):
    assert read_header(OneTrust(), header) == expected


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        pytest.param("A:1,B:1", Said.GRANTED, id="both"),
        pytest.param("A:1,B:0", Said.DENIED, id="one-refused"),
        pytest.param("A:1", Said.NOTHING, id="one-not-asked"),
    ],
)
def test_all_configured_groups_must_be_on(states, expected):
    reading = read_header(OneTrust(groups=("A", "B")), CLOSED + "OptanonConsent=groups=" + states)

    assert reading.said is expected


def test_no_group_at_all_is_a_mistake():
    with pytest.raises(ValueError, match="Name at least one"):
        OneTrust(groups=())
