import hashlib

import pytest

from mp_asgi.events import Notice
from mp_asgi.ledger import chain, verification
from tests.ledger.acts import DENIED, DEVICE, NEW, OLD, OTHER, USER, make_act, run_sql
from tests.support import NOW

R, H, N = "mp_asgi_records", "mp_asgi_heads", "mp_asgi_notices"
COLUMNS = (
    "project, key_id, digest, hash, id, subject, revision, kind, state, at, version, "
    "notice_digest, language, basis, model, region, source, evidence, salt, erased_by, seal"
)
# The same id twice would be refused.
COPIED = f"{COLUMNS.replace(' id,', ' NULL,')} FROM {R} WHERE seq=2"


@pytest.fixture
def filled(ledger):
    """Answer a ledger with records 1 to 4, the first erased by the last, and a notice."""
    ledger.append([make_act(key=OTHER)])
    ledger.append([make_act(notice=Notice("en", "May we?")), make_act(DENIED, NOW + 1, DEVICE)])
    ledger.erase([OTHER], NOW + 2)
    return ledger


def test_what_nobody_touched_is_intact(filled):
    found = filled.verify()

    assert (found.is_intact, found.problems) == (True, ())
    assert (found.records, found.erased) == (4, 1)
    assert found.head == list(filled.export())[-1].hash


def test_an_empty_ledger_is_intact_and_its_head_can_be_noted(ledger):
    head = ledger.verify().head

    assert ledger.verify(head).is_intact
    ledger.append([make_act()])
    assert ledger.verify(head).is_intact


def test_a_noted_head_is_found_again_after_more_acts(filled):
    head = filled.verify().head
    filled.append([make_act(DENIED, NOW + 9)])

    assert filled.verify(head).is_intact
    assert filled.verify("f" * 64).problems == (f"The noted record {'f' * 64} is missing.",)


@pytest.mark.parametrize(
    ("statements", "problem"),
    [
        pytest.param([f"UPDATE {R} SET state='granted' WHERE seq=3"],
                     "The content of record 3 was changed.", id="state"),
        pytest.param([f"UPDATE {R} SET at=at+1 WHERE seq=2"],
                     "The content of record 2 was changed.", id="time"),
        pytest.param([f"UPDATE {R} SET subject='{'0' * 64}' WHERE seq=2"],
                     "The content of record 2 was changed.", id="subject"),
        pytest.param([f"UPDATE {R} SET evidence='x:1' WHERE seq=2"],
                     "The content of record 2 was changed.", id="evidence"),
        pytest.param([f"UPDATE {R} SET digest='{'0' * 64}' WHERE seq=2"],
                     "Record 2 does not continue the chain.", id="digest"),
        pytest.param([f"UPDATE {R} SET hash='{'0' * 64}' WHERE seq=2"],
                     "Record 3 does not continue the chain.", id="hash"),
        pytest.param([f"UPDATE {R} SET key_id='unknown' WHERE seq=2"],
                     "Record 2 names the key unknown, which is missing.", id="key"),
        pytest.param([f"DELETE FROM {R} WHERE seq=1"],
                     "Record 1 is missing: 2 follows.", id="first-deleted"),
        pytest.param([f"DELETE FROM {R} WHERE seq=3"],
                     "Record 3 is missing: 4 follows.", id="middle-deleted"),
        pytest.param([f"DELETE FROM {R} WHERE seq=4"],
                     "The chain ends at record 4, but the last record is 3.", id="tail-deleted"),
        pytest.param([f"DELETE FROM {R}"],
                     "The chain ends at record 4, but the last record is 0.", id="all-deleted"),
        pytest.param([f"UPDATE {R} SET seq=9 WHERE seq=2", f"UPDATE {R} SET seq=2 WHERE seq=3",
                      f"UPDATE {R} SET seq=3 WHERE seq=9"],
                     "Record 2 does not continue the chain.", id="reordered"),
        pytest.param([f"INSERT INTO {R} (seq, {COLUMNS}) SELECT 5, {COPIED}"],
                     "Record 5 does not continue the chain.", id="inserted-at-the-end"),
        pytest.param([f"INSERT INTO {R} (seq, {COLUMNS}) SELECT -5, {COPIED}"],
                     "Record 1 is missing: -5 follows.", id="inserted-before-the-start"),
        pytest.param([f"DELETE FROM {R} WHERE seq=4",
                      f"UPDATE {H} SET seq=3, hash=(SELECT hash FROM {R} WHERE seq=3)"],
                     "The row of mp_asgi_heads that ends the chain was changed.", id="tail-and-head"),
        pytest.param([f"UPDATE {H} SET key_id='unknown'"],
                     "The row of mp_asgi_heads that ends the chain was changed.", id="head-key"),
        pytest.param([f"DELETE FROM {H}"],
                     "The row of mp_asgi_heads that ends the chain is missing.", id="head-deleted"),
        pytest.param([f"UPDATE {N} SET text='\"You must.\"'"],
                     f"The text of the notice {Notice('', 'May we?').digest} was changed.", id="notice"),
        pytest.param([f"DELETE FROM {N}"],
                     f"The notice {Notice('', 'May we?').digest} of record 2 is missing.",
                     id="notice-deleted"),
        pytest.param([f"UPDATE {R} SET erased_by=4 WHERE seq=2"],
                     "Record 2 was not erased by us.", id="erased-by-somebody"),
        pytest.param([f"UPDATE {R} SET erased_by=3 WHERE seq=1"],
                     "Record 1 was not erased by us.", id="another-tombstone"),
        pytest.param([f"UPDATE {R} SET version='v1' WHERE seq=1"],
                     "Record 1 was not erased by us.", id="erased-and-filled"),
        pytest.param([f"UPDATE {R} SET erased_by=NULL WHERE seq=1"],
                     "The content of record 1 was changed.", id="emptied"),
        pytest.param([f"UPDATE {R} SET state='denied' WHERE seq=4"],
                     "Record 1 is empty without a tombstone.", id="tombstone-changed"),
    ],
)  # fmt: skip
def test_every_change_by_hand_shows(filled, url, statements, problem):
    for statement in statements:
        run_sql(url, statement)

    found = filled.verify()

    assert not found.is_intact
    assert problem in found.problems


def test_a_content_changed_together_with_its_digest_shows_in_the_chain(filled, url):
    run_sql(url, f"UPDATE {R} SET region='DE' WHERE seq=2")
    with filled._store.reading() as connection:
        rows = verification._read_records(connection, filled._project)
        digest = chain.digest_of(list(rows)[1])

    run_sql(url, f"UPDATE {R} SET digest=:digest WHERE seq=2", digest=digest)

    assert filled.verify().problems == ("Record 2 does not continue the chain.",)


def test_a_database_put_back_as_a_whole_shows_against_a_noted_head(filled, url):
    [(seq, hash_, key_id, seal)] = run_sql(url, f"SELECT seq, hash, key_id, seal FROM {H}")
    filled.append([make_act(DENIED, NOW + 9)])
    head = filled.verify().head

    run_sql(url, f"DELETE FROM {R} WHERE seq=5")
    run_sql(
        url,
        f"UPDATE {H} SET seq=:seq, hash=:hash, key_id=:key_id, seal=:seal",
        seq=seq,
        hash=hash_,
        key_id=key_id,
        seal=seal,
    )

    assert filled.verify().is_intact
    assert filled.verify(head).problems == (f"The noted record {head} is missing.",)


def test_a_long_chain_is_read_to_its_end(ledger, url):
    ledger.append([make_act(at=NOW + at) for at in range(2 * verification.PAGE)])

    assert ledger.verify().records == 2 * verification.PAGE
    run_sql(url, f"UPDATE {R} SET region='DE' WHERE seq=1900")
    assert ledger.verify().problems == ("The content of record 1900 was changed.",)


def test_records_of_several_keys_hang_together(open_ledger):
    open_ledger(OLD).append([make_act()])
    both = open_ledger(OLD, NEW)
    both.append([make_act(DENIED, NOW + 1)])

    assert both.verify().is_intact
    assert len({record.key_id for record in both.history(USER)}) == 2


def test_the_start_of_a_chain_is_its_project():
    expected = hashlib.sha256(b"mp-asgi ledger p").hexdigest()

    assert chain.start_hash("p") == expected
