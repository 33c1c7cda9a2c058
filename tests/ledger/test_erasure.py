import pytest

from mp_asgi.events import Notice
from mp_asgi.ledger import LedgerUnavailable, Verification
from mp_asgi.ledger.erasure import purge
from tests.ledger.acts import (
    DENIED,
    DEVICE,
    ERASED,
    GRANTED,
    LIFTED,
    NEW,
    OLD,
    OTHER,
    PROJECT,
    USER,
    make_act,
    make_link,
    run_sql,
)
from tests.support import NOW

EMPTIED = "SELECT COUNT(*) FROM mp_asgi_records WHERE subject IS NULL"


def is_whole(verification: Verification, *, erased: int) -> bool:
    return verification.is_intact and verification.erased == erased


def test_an_erasure_leaves_a_tombstone_and_empty_records(ledger):
    ledger.append([make_act(evidence="klaro:00ff"), make_act(DENIED, NOW + 1), make_link()])
    before = list(ledger.export())

    assert ledger.erase([USER, DEVICE], NOW + 2) == 2

    first, second, user, device = ledger.export()
    assert [record.digest for record in (first, second)] == [record.digest for record in before]
    assert {record.erased_by for record in (first, second)} == {user.seq}
    assert (first.id, first.subject, first.evidence, first.at) == ("", "", "", None)
    assert (user.kind, device.kind) == ("user", "device")
    assert ledger.history(USER) == [user]
    assert ledger.current(USER).state is ERASED
    assert ledger.links_of_user(USER) == []
    assert is_whole(ledger.verify(), erased=2)


def test_an_erasure_touches_nobody_else(ledger):
    ledger.append([make_act(), make_act(key=OTHER), make_link(), make_link(device="d-2")])

    ledger.erase([DEVICE], NOW + 1)

    assert [record.state for record in ledger.history(USER)] == ["granted"]
    assert [record.state for record in ledger.history(OTHER)] == ["granted"]
    assert ledger.links_of_user(USER) == [make_link(device="d-2")]


def test_somebody_never_recorded_gets_a_tombstone_too(ledger):
    assert ledger.erase([USER], NOW) == 0

    [record] = ledger.export()
    assert (record.state, record.kind, record.source) == ("erased", "", "operator")
    assert is_whole(ledger.verify(), erased=0)


@pytest.mark.parametrize(
    "again", [pytest.param(NOW + 2, id="same-time"), pytest.param(NOW + 9, id="later")]
)
def test_erasing_twice_is_erasing_once(ledger, again):
    ledger.append([make_act()])

    assert ledger.erase([USER, USER], NOW + 2) == 1
    assert ledger.erase([USER], again) == 0

    assert [record.state for record in ledger.export()] == ["", "erased"]


@pytest.mark.parametrize("state", [GRANTED, LIFTED])
def test_a_later_grant_ends_a_tombstone_and_outlives_the_erasure_repeated(ledger, state):
    ledger.erase([USER], NOW)
    ledger.append([make_act(state, NOW + 1)])

    ledger.erase([USER], NOW)

    assert ledger.current(USER).state is state
    assert ledger.current(USER).allows(NOW + 1)
    assert not ledger.current(USER).allows(NOW)
    assert [record.state for record in ledger.export()] == ["erased", state.value]


def test_a_second_erasure_empties_what_came_between(ledger):
    ledger.erase([USER], NOW)
    ledger.append([make_act(GRANTED, NOW + 1)])

    assert ledger.erase([USER], NOW + 2) == 1

    assert [record.state for record in ledger.export()] == ["erased", "", "erased"]
    assert is_whole(ledger.verify(), erased=1)


def test_what_was_erased_does_not_come_back_with_a_retry(ledger):
    act, link = make_act(evidence="klaro:00ff"), make_link()
    ledger.append([act, link])
    ledger.erase([USER, DEVICE], NOW)

    ledger.append([act, link, make_act(DENIED, NOW - 5), make_link(device="d-2", at=NOW - 5)])

    assert [record.state for record in ledger.export()] == ["", "erased", "erased"]
    assert ledger.links_of_user(USER) == []


def test_a_link_from_after_the_tombstone_is_kept(ledger):
    ledger.erase([USER], NOW)
    link = make_link(at=NOW + 1)

    ledger.append([make_act(GRANTED, NOW + 1), link])

    assert ledger.links_of_user(USER) == [link]


def test_a_tombstone_that_arrives_with_older_acts_keeps_them_out(ledger):
    ledger.append([make_act(ERASED, NOW + 1), make_act(GRANTED, NOW), make_link()])

    assert [record.state for record in ledger.export()] == ["erased"]
    assert ledger.links_of_user(USER) == []


def test_what_an_older_key_wrote_is_erased_too(open_ledger):
    open_ledger(OLD).append([make_act(), make_link()])
    ledger = open_ledger(OLD, NEW)

    assert ledger.erase([USER], NOW + 1) == 1

    assert ledger.links_of_user(USER) == []
    assert ledger.current(USER).state is ERASED
    assert is_whole(ledger.verify(), erased=1)


def test_a_record_whose_key_is_gone_is_not_erased_in_silence(ledger, url):
    ledger.append([make_act()])
    run_sql(url, "UPDATE mp_asgi_records SET key_id = 'gone'")

    with pytest.raises(LedgerUnavailable, match="key gone is missing"):
        ledger.erase([USER], NOW + 1)

    assert ledger.current(USER).state is ERASED  # the tombstone came first and stays


def test_without_a_tombstone_nothing_is_emptied(ledger):
    ledger.append([make_act()])

    with ledger._store.writing() as connection:
        assert purge(connection, ledger._project, ledger._keyring, [USER]) == 0

    assert ledger.current(USER).state is GRANTED


def test_many_are_erased_at_once(ledger, url):
    keys = [bytes([high, low]) for high in range(5) for low in range(250)]
    ledger.append([make_act(key=key) for key in keys])

    assert ledger.erase(keys, NOW + 1) == len(keys)
    assert run_sql(url, EMPTIED) == [(len(keys),)]
    assert is_whole(ledger.verify(), erased=len(keys))


class TestOnAFile:
    @pytest.fixture(params=["sqlite"], ids=["sqlite"])
    def url(self, tmp_path) -> str:
        return str(tmp_path / "ledger.db")

    def read_all(self, tmp_path) -> bytes:
        return b"".join(path.read_bytes() for path in sorted(tmp_path.glob("ledger.db*")))

    def test_no_raw_id_is_ever_in_it(self, ledger, tmp_path):
        ledger.append([make_act(), make_act(key=DEVICE), make_link()])
        before = self.read_all(tmp_path)
        ledger.erase([USER], NOW + 1)

        for raw in (b"ada@example.org", b"d-1", USER, DEVICE, USER.hex().encode()):
            assert raw not in before
            assert raw not in self.read_all(tmp_path)

    def test_nothing_of_what_was_erased_remains_in_it(self, ledger, tmp_path, url):
        keys = [bytes([number]) * 8 for number in range(200)]
        for key in keys:
            act = make_act(key=key, evidence=f"klaro:{key.hex()}", version="secret-version")
            ledger.append([act, make_link()])
        [(token,)] = run_sql(url, "SELECT token FROM mp_asgi_links")
        ids = [record.id for record in ledger.export()]
        other = ledger._store._make_engine()
        with other.connect() as connection:  # keeps the log alive, as another process would
            connection.exec_driver_sql("SELECT COUNT(*) FROM mp_asgi_records").all()
            assert b"secret-version" in self.read_all(tmp_path)

            ledger.erase([*keys, USER, DEVICE], NOW + 1)

            left = self.read_all(tmp_path)
        assert b"klaro:" not in left
        assert b"secret-version" not in left
        assert token[:40].encode() not in left
        assert [name for name in ids if name.encode() in left] == []

    def test_a_reader_in_the_way_is_told(self, open_ledger):
        ledger = open_ledger(timeout_seconds=0.1)
        ledger.append([make_act(notice=Notice("en", "May we?"))])

        with ledger._store.reading() as connection:
            connection.exec_driver_sql("SELECT COUNT(*) FROM mp_asgi_records").all()
            with pytest.raises(LedgerUnavailable, match="Erase again"):
                ledger.erase([USER], NOW + 1)

        assert ledger.erase([USER], NOW + 1) == 0
        assert ledger.current(USER).state is ERASED


def test_the_name_of_a_project_is_not_in_its_tables(ledger, url):
    ledger.append([make_act()])

    [(project,)] = run_sql(url, "SELECT DISTINCT project FROM mp_asgi_records")
    assert PROJECT.decode() not in project


def test_a_digest_cannot_be_tried_out_after_the_erasure(ledger, url):
    ledger.append([make_act(), make_act(DENIED, NOW + 1)])
    before = run_sql(url, "SELECT DISTINCT salt FROM mp_asgi_records")
    ledger.erase([USER], NOW + 2)

    assert [len(salt) for (salt,) in before] == [32, 32]
    assert run_sql(url, "SELECT DISTINCT salt FROM mp_asgi_records WHERE seq < 3") == [(None,)]
