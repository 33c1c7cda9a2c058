import csv
import io
import json
import sqlite3
from argparse import Namespace

import pytest

from mp_asgi.cli.consent import _revoke
from mp_asgi.cli.people import REAL_TIME, open_desktop
from mp_asgi.erasure.eraser import LEDGER_PEOPLE
from mp_asgi.events import Act, ActState, Subject
from tests.cli.people import USER_KEY
from tests.support import NOW


def test_what_a_person_chose_is_shown(office):
    office.write("U1-secret", "U2")

    code, out, _ = office.on_file("consent", "show")

    first, record, second = out.splitlines()
    assert code == 0
    assert first == f"user {USER_KEY.hex()[:12]}: 1 record"
    assert record == (
        "  2027-01-14T08:00:00.000+00:00  granted  by own  notice 2026-11  basis consent"
    )
    assert second.endswith(": 0 records")
    assert "U1-secret" not in out


def test_what_a_person_chose_is_shown_as_json_and_by_name_if_asked(office):
    (shown,) = office.read_json("consent", "show", "--reveal")

    assert shown["person"] == "user U1-secret"
    assert shown["records"][0]["event"]["state"] == "granted"


def test_a_denial_has_neither_notice_nor_basis(office):
    office.on_file("consent", "revoke")

    _, out, _ = office.on_file("consent", "show")

    assert out.splitlines()[-1].endswith("denied  by operator")


def test_a_revocation_is_a_denial_by_an_operator(office):
    code, out, _ = office.on_file("consent", "revoke")

    (*_, record) = office.ledger.history(USER_KEY)
    assert code == 0
    assert "Recorded a denial for 1 ID." in out
    assert (record.state, record.source) == ("denied", "operator")
    assert office.ledger.current(USER_KEY).is_denied


def test_a_revocation_can_answer_json(office):
    assert office.read_json("consent", "revoke") == {"revoked": 1, "denied_before": 0}


def test_a_revocation_that_is_repeated_records_nothing(office):
    office.on_file("consent", "revoke")
    office.clock.advance(60)
    office.write("U1-secret", "U2")

    _, out, _ = office.on_file("consent", "revoke")

    assert "Recorded a denial for 1 ID. 1 ID had one before. " in out
    assert len(office.ledger.history(USER_KEY)) == 2


class Counting:
    """A ledger that notes how many acts come in one transaction."""

    def __init__(self, ledger):
        self.standings = ledger.standings
        self.sizes = []

    def append(self, acts):
        self.sizes.append(len(acts))


def test_many_revocations_do_not_block_the_ledger(office):
    office.write(*(f"V{number}" for number in range(LEDGER_PEOPLE + 1)))
    ledger = Counting(office.ledger)

    with open_desktop(REAL_TIME) as desktop:
        _revoke(Namespace(file=str(office.ids), json=True), desktop, ledger)

    assert ledger.sizes == [LEDGER_PEOPLE, 1]


def export(office, *options):
    code, out, _ = office.call("consent", "export", *options)
    assert code == 0
    return out


@pytest.fixture
def year(office):
    """Record one denial a day, from New Year's Day 2026 on, at noon UTC."""
    first = 1_767_225_600.0 + 43_200
    acts = [
        Act(key=b"x", subject=Subject.USER, state=ActState.DENIED, at=first + day * 86_400)
        for day in range(3)
    ]
    office.ledger.append(acts)


@pytest.mark.parametrize("options", [(), ("--json",)], ids=["default", "json"])
def test_every_record_is_a_line(office, options):
    (line,) = export(office, *options).splitlines()

    assert json.loads(line)["event"]["state"] == "granted"


@pytest.mark.parametrize(
    ("options", "days"),
    [
        pytest.param(("--since", "2026-01-02", "--until", "2026-01-02"), ["02"], id="one-day"),
        pytest.param(("--until", "2026-01-02"), ["01", "02"], id="until"),
        pytest.param(("--until", "2026-01-02T12:00"), ["01", "02"], id="until-a-time"),
        pytest.param(("--until", "2026-01-02T13:00+02:00"), ["01"], id="until-elsewhere"),
        pytest.param(("--since", "2026-01-03", "--until", "2026-12-31"), ["03"], id="since"),
    ],
)
def test_days_are_days_of_utc(office, year, options, days):
    lines = export(office, *options).splitlines()

    assert [json.loads(line)["event"]["time"][8:10] for line in lines] == days


def test_a_table_has_one_row_a_record(office, year):
    rows = list(csv.DictReader(io.StringIO(export(office, "--csv"))))

    assert [row["event.state"] for row in rows] == ["granted", "denied", "denied", "denied"]
    assert rows[0]["notice.version"] == "2026-11"


@pytest.mark.parametrize("formula", ["=1+1", "+1", "-1", "@A1"])
def test_no_cell_is_a_formula(office, formula):
    office.ledger.append(
        [
            Act(
                key=b"x",
                subject=Subject.USER,
                state=ActState.DENIED,
                at=NOW - 9,
                region=formula,
            )
        ]
    )

    *_, row = csv.DictReader(io.StringIO(export(office, "--csv")))

    assert row["processing.jurisdiction"] == f"'{formula}"


def test_nothing_recorded_is_an_empty_table(office):
    assert export(office, "--csv", "--since", "2030-01-01") == ""


@pytest.mark.parametrize("option", ["--since", "--until"])
def test_what_is_no_date_is_wrong_usage(office, option):
    with pytest.raises(SystemExit) as refused:
        office.call("consent", "export", option, "yesterday")

    assert refused.value.code == 2
    assert "write 2026-11-30" in office.capsys.readouterr().err


def test_two_forms_at_once_are_wrong_usage(office):
    with pytest.raises(SystemExit) as refused:
        office.call("consent", "export", "--json", "--csv")

    assert refused.value.code == 2


def test_an_intact_ledger_verifies(office):
    head = office.ledger.verify().head

    code, out, _ = office.call("consent", "verify", "--head", head)
    as_json, content, _ = office.call("consent", "verify", "--json")

    assert (code, as_json) == (0, 0)
    assert out == f"Intact.\n1 record, 0 of them erased. Head: {head}\n"
    assert json.loads(content) == {
        "is_intact": True,
        "records": 1,
        "erased": 0,
        "head": head,
        "problems": [],
    }


@pytest.mark.parametrize("options", [(), ("--json",)], ids=["text", "json"])
def test_a_changed_record_fails_the_verification(office, options):
    with sqlite3.connect(office.path / "ledger.db") as database:
        database.execute("UPDATE mp_asgi_records SET state = 'denied'")
    database.close()

    code, out, _ = office.call("consent", "verify", *options)

    assert code == 1
    assert "The content of record 1 was changed." in out


def test_a_head_that_is_gone_fails_the_verification(office):
    code, out, _ = office.call("consent", "verify", "--head", "0" * 64)

    assert code == 1
    assert out.startswith("Not intact:\n  ")


@pytest.mark.parametrize("head", ["zz", "", "0" * 63, "G" * 64], ids=["word", "none", "63", "G"])
def test_what_is_no_head_is_wrong_usage(office, head):
    with pytest.raises(SystemExit) as refused:
        office.call("consent", "verify", "--head", head)

    assert refused.value.code == 2
    assert "write the 64 digits" in office.capsys.readouterr().err


@pytest.mark.parametrize("command", ["show", "export", "verify", "revoke"])
def test_a_ledger_that_is_not_there_is_an_error_and_not_an_empty_one(office, monkeypatch, command):
    monkeypatch.setenv("MP_ASGI_LEDGER", str(office.path / "nowhere.db"))

    code, out, err = office.call("consent", command, "--json")

    assert code == 1
    assert str(office.path / "nowhere.db") in err
    assert str(office.path / "nowhere.db") in json.loads(out)["error"]
    assert not (office.path / "nowhere.db").exists()


@pytest.mark.parametrize("command", ["show", "export", "verify", "revoke"])
def test_without_a_ledger_the_variable_is_named(office, without_ledger, command):
    code, _, err = office.call("consent", command)

    assert (code, "MP_ASGI_LEDGER is not set" in err) == (1, True)


def test_a_ledger_that_cannot_be_used_is_a_problem(office, monkeypatch):
    monkeypatch.setenv("MP_ASGI_LEDGER_KEYS", "m" * 32)

    code, _, err = office.call("consent", "verify")

    assert (code, "not listed" in err) == (1, True)
