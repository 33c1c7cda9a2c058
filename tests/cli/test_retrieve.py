import json

import pytest

from tests.cli.people import DEVICE, USER_KEY


def test_a_user_is_retrieved_from_both_sides(office):
    code, out, _ = office.on_file("retrieve")

    assert code == 0
    assert f"user {USER_KEY.hex()[:12]}: 1 record in the ledger" in out
    assert '"state": "granted"' in out
    assert "Mixpanel, 1 user: PENDING, not ready; ask with --status task-1" in out
    assert "Mixpanel, 1 device: PENDING" in out
    assert "U1-secret" not in out


def test_json_holds_it_all(office):
    content = office.read_json("retrieve")

    assert content["kind"] == "retrieval"
    assert [person["subject"] for person in content["people"]] == ["user", "device"]
    assert content["people"][0]["records"][0]["event"]["state"] == "granted"
    assert content["jobs"][0] == {
        "task_id": "task-1",
        "status": "PENDING",
        "link": "",
        "subject": "user",
        "count": 1,
    }
    assert "id" not in content["people"][0]


def test_raw_ids_are_shown_only_if_asked(office):
    content = office.read_json("retrieve", "--reveal")

    assert [person["id"] for person in content["people"]] == ["U1-secret", DEVICE]


def test_waiting_brings_the_links_and_names_the_tasks_first(office):
    def sleep(seconds):
        office.clock.advance(seconds)
        office.standin.privacy.advance()

    office.sleep = sleep
    code, out, err = office.on_file("retrieve", "--wait")

    assert code == 0
    assert "SUCCESS, https://storage.example/task-1.zip" in out
    assert err.index("task task-1") < err.index("Jobs finished by Mixpanel")


def test_a_job_can_be_asked_for(office):
    office.on_file("retrieve")
    office.standin.privacy.finish()

    code, out, _ = office.call("retrieve", "--status", "task-1", "--json")

    assert (code, json.loads(out)["link"]) == (0, "https://storage.example/task-1.zip")


def test_a_job_is_asked_for_without_the_ledger(office, monkeypatch):
    office.on_file("retrieve")
    monkeypatch.setenv("MP_ASGI_LEDGER", str(office.path / "nowhere.db"))

    code, out, _ = office.call("retrieve", "--status", "task-1")

    assert (code, out) == (0, "PENDING\n")


def test_a_ledger_that_is_not_there_is_an_error_and_not_an_empty_one(office, monkeypatch):
    monkeypatch.setenv("MP_ASGI_LEDGER", str(office.path / "nowhere.db"))

    code, _, err = office.on_file("retrieve")

    assert (code, str(office.path / "nowhere.db") in err) == (1, True)
    assert not (office.path / "nowhere.db").exists()


def test_what_is_no_task_id_is_wrong_usage(office):
    with pytest.raises(SystemExit) as refused:
        office.call("retrieve", "--status", "\udcff")

    assert refused.value.code == 2


def test_without_a_token_the_local_part_is_printed(office, monkeypatch):
    monkeypatch.delenv("MIXPANEL_OAUTH_TOKEN")

    code, out, err = office.on_file("retrieve")

    assert code == 1
    assert "1 record in the ledger" in out
    assert "MIXPANEL_OAUTH_TOKEN is not set" in err
