import json

import pytest

from mp_asgi.events import Notice
from mp_asgi.ledger.record import read_notice_text
from tests.ledger.acts import USER, make_act, make_link
from tests.support import NOW


@pytest.fixture(params=["sqlite"], ids=["sqlite"])
def url(tmp_path) -> str:
    return str(tmp_path / "ledger.db")


def test_a_receipt_says_what_when_and_how_and_never_who(ledger):
    act = make_act(
        at=NOW + 0.5, version="v1", notice=Notice("en", "May we?"), basis="consent", region="DE"
    )
    ledger.append([act, make_link()])

    [record] = ledger.history(USER)
    text = record.to_json()

    receipt = json.loads(text)
    assert "\n" not in text
    assert receipt["header"] == {"record_id": record.id, "sequence": 1, "key_id": record.key_id}
    assert receipt["principal"] == {"keyed_hash": record.subject, "kind": "user"}
    assert receipt["processing"]["legal_basis"] == "consent"
    assert receipt["processing"]["jurisdiction"] == "DE"
    assert receipt["notice"]["text"] == "May we?"
    assert receipt["event"]["state"] == "granted"
    assert receipt["event"]["time"] == "2027-01-15T08:00:00.500+00:00"
    assert receipt["integrity"]["erased_by"] is None
    for raw in ("ada@example.org", "d-1", USER.hex(), USER.decode()):
        assert raw not in text


def test_the_receipt_of_an_erased_record_says_that_and_nothing_else(ledger):
    ledger.append([make_act(version="v1", evidence="klaro:00ff")])
    ledger.erase([USER], NOW + 1)

    receipt = json.loads(next(ledger.export()).to_json())

    assert receipt["event"] == {
        "state": "",
        "time": None,
        "revision": 0,
        "source": "",
        "evidence": "",
    }
    assert receipt["integrity"]["erased_by"] == 2


def test_a_spoilt_notice_is_shown_as_it_stands():
    assert read_notice_text("May we") == "May we"
