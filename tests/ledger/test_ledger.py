import itertools
import json
import multiprocessing
import os
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mp_asgi.errors import MixpanelASGIError
from mp_asgi.events import ActState, Notice, Standing, Subject
from mp_asgi.ledger import LedgerUnavailable, UnusableLedger
from mp_asgi.ledger.keys import Keyring
from tests.ledger.acts import (
    DENIED,
    DEVICE,
    ERASED,
    GRANTED,
    LIFTED,
    NEW,
    OLD,
    OTHER,
    USER,
    make_act,
    make_ledger,
    make_link,
    run_sql,
)
from tests.ledger.crowd import ACTS, append_acts, key_of
from tests.support import NOW, TIMEOUT, FakeClock

NOTICE = Notice("pt-BR", "Podemos contar visitas? \U0001f36a")


def test_an_act_is_recorded_with_everything_it_says(ledger):
    act = make_act(
        version="2026-11",
        notice=NOTICE,
        basis="consent",
        model="opt-in",
        region="BR",
        source="cmp:klaro",
        evidence="klaro:00ff",
    )

    ledger.append([act])

    [record] = ledger.history(USER)
    assert (record.seq, record.revision, record.kind, record.state) == (1, 1, "user", "granted")
    assert (record.at, record.version, record.language) == (NOW, "2026-11", "pt-BR")
    assert (record.notice_digest, record.notice_text) == (NOTICE.digest, NOTICE.text)
    assert (record.basis, record.model, record.region) == ("consent", "opt-in", "BR")
    assert (record.source, record.evidence) == ("cmp:klaro", "klaro:00ff")
    assert record.erased_by == 0


def test_an_act_without_a_notice_names_none(ledger):
    ledger.append([make_act()])

    [record] = ledger.history(USER)
    assert (record.notice_digest, record.language, record.notice_text) == ("", "", "")
    assert ledger.verify().is_intact


def test_a_notice_is_archived_once_for_each_language(ledger, url):
    english = NOTICE._replace(language="en")
    for at, notice in enumerate([NOTICE, NOTICE, english, NOTICE]):
        ledger.append([make_act(at=NOW + at, notice=notice)])

    languages = run_sql(url, "SELECT language FROM mp_asgi_notices ORDER BY language")
    assert [language for (language,) in languages] == ["en", "pt-BR"]
    assert ledger.verify().is_intact


def test_nothing_to_append_asks_for_nothing(make):
    make().append([])  # which was never opened


def test_a_chain_starts_at_one_and_has_no_gap(ledger):
    ledger.append([make_act(), make_act(key=DEVICE, subject=Subject.DEVICE)])
    ledger.append([make_act(DENIED, NOW + 1)])

    assert [record.seq for record in ledger.export()] == [1, 2, 3]
    assert [record.revision for record in ledger.history(USER)] == [1, 2]


def test_the_same_act_twice_is_one_record(ledger):
    act, other = make_act(), make_act(DENIED, NOW + 1)

    ledger.append([act, act])
    ledger.append([other, act])

    assert [record.state for record in ledger.export()] == ["granted", "denied"]


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(make_act(key=DEVICE), id="subject"),
        pytest.param(make_act(DENIED), id="state"),
        pytest.param(make_act(at=NOW + 1), id="time"),
        pytest.param(make_act(source="app"), id="source"),
    ],
)
def test_acts_that_differ_are_two_records(ledger, other):
    ledger.append([make_act(), other])

    assert len(list(ledger.export())) == 2


def test_an_append_that_fails_records_nothing_of_it(ledger, url):
    ledger.append([make_act()])
    run_sql(url, "DROP TABLE mp_asgi_links")

    with pytest.raises(LedgerUnavailable):
        ledger.append([make_act(DENIED, NOW + 1), make_link()])

    assert [record.state for record in ledger.export()] == ["granted"]


def test_what_a_column_cannot_hold_is_cleaned_and_never_an_error(ledger):
    ledger.append([make_act(region="D\0E\ud800", version="v" * 999, source="ü" * 999)])

    [record] = ledger.history(USER)
    assert (record.region, record.version, record.source) == ("DE?", "v" * 255, "ü" * 128)
    assert ledger.verify().is_intact


def test_a_notice_is_kept_as_it_is_whatever_it_holds(ledger):
    ledger.append([make_act(notice=Notice("x" * 99, "a\0b" + "long" * 30_000))])

    [record] = ledger.history(USER)
    assert record.notice_text.startswith("a\0blong")
    assert record.language == "x" * 64
    assert ledger.verify().is_intact


def test_an_act_from_the_future_is_of_now_and_still_one(open_ledger):
    clock = FakeClock(NOW + 5)
    ledger = open_ledger(clock=clock)
    act = make_act(at=NOW + 1e12)

    ledger.append([act])
    clock.advance(5)
    ledger.append([act])

    assert [record.at for record in ledger.export()] == [NOW + 5]


def test_each_key_with_records_stands_somewhere_and_the_others_are_absent(ledger):
    ledger.append([make_act(version="v1"), make_act(DENIED, NOW + 1, DEVICE, source="own")])

    assert ledger.standings([USER, DEVICE, OTHER]) == {
        USER: Standing(GRANTED, NOW, None, NOW, "v1", "own"),
        DEVICE: Standing(DENIED, NOW + 1, NOW + 1, None, "", "own"),
    }
    assert ledger.current(OTHER) is None


def test_the_newest_act_rules_in_whatever_order_two_hosts_append(ledger):
    acts = [make_act(DENIED, NOW + 2), make_act(GRANTED, NOW + 1), make_act(LIFTED, NOW + 3)]

    for act in acts:
        ledger.append([act])

    assert ledger.current(USER) == Standing(LIFTED, NOW + 3, NOW + 2, NOW + 3, "", "own")


def test_many_keys_are_answered_at_once(ledger):
    keys = [bytes([high, low]) for high in range(10) for low in range(250)]
    ledger.append([make_act(key=key) for key in keys[::500]])

    assert sorted(ledger.standings(keys)) == keys[::500]


def test_projects_in_one_database_know_nothing_of_each_other(ledger, open_ledger):
    other = open_ledger(project=b"other")
    ledger.append([make_act(notice=NOTICE), make_link()])
    other.append([make_act(DENIED, notice=NOTICE)])

    other.erase([USER], NOW + 1)

    assert ledger.current(USER) == Standing(GRANTED, NOW, None, NOW, "", "own")
    assert [link.device_key for link in ledger.links_of_user(USER)] == [DEVICE]
    assert [record.state for record in other.export()] == ["", "erased"]
    assert ledger.verify().is_intact
    assert other.verify().is_intact


def test_records_are_exported_in_order_and_within_the_time(ledger):
    ledger.append([make_act(at=NOW + at, key=bytes([at % 9])) for at in range(2100)])

    assert [record.seq for record in ledger.export()] == list(range(1, 2101))
    within = ledger.export(since=NOW + 7, until=NOW + 9)
    assert [record.at for record in within] == [NOW + 7, NOW + 8, NOW + 9]


def test_links_answer_both_ways_with_the_raw_ids(ledger):
    ledger.append([make_link(device="d-2", at=NOW + 1), make_link(), make_link(at=NOW + 5)])

    assert ledger.links_of_user(USER) == [make_link(), make_link(device="d-2", at=NOW + 1)]
    assert ledger.links_of_device(OTHER) == [make_link(device="d-2", at=NOW + 1)]
    assert ledger.links_of_device(USER) == []


@pytest.mark.parametrize(
    ("told", "kept"),
    [
        pytest.param(["m", "m"], "m", id="the-same"),
        pytest.param(["m", "d", "m"], "md", id="another"),
        pytest.param(["", "d"], "", id="after-nobody-said"),
        pytest.param(["d", ""], "", id="before-nobody-said"),
    ],
)
def test_a_link_says_every_origin_of_its_device(ledger, told, kept):
    other = make_link(device="d-2", at=NOW + 9, origins="s")
    links = [make_link(at=NOW + number, origins=item) for number, item in enumerate(told)]

    ledger.append([other, *links])

    assert ledger.links_of_user(USER) == [make_link(origins=kept), other]


def test_a_link_under_an_old_key_learns_another_origin(open_ledger):
    open_ledger(OLD).append([make_link(origins="m")])
    ledger = open_ledger(OLD, NEW)

    ledger.append([make_link(origins="d")])

    assert ledger.links_of_user(USER) == [make_link(origins="md")]
    assert open_ledger(OLD).links_of_user(USER) == [make_link(origins="md")]


def test_a_link_of_before_the_origins_is_read(ledger, url):
    ledger.append([make_link(origins="d")])
    names = json.dumps(["ada@example.org", "d-1", USER.hex(), DEVICE.hex()])
    token = Keyring([NEW]).newest.links.encrypt(names.encode()).decode()

    run_sql(url, "UPDATE mp_asgi_links SET token = :token", token=token)

    assert ledger.links_of_user(USER) == [make_link()]


def test_a_changed_link_stays_as_it_was_changed(ledger, url):
    ledger.append([make_link(origins="d")])
    run_sql(url, "UPDATE mp_asgi_links SET token = 'gAAA'")

    ledger.append([make_link(origins="m")])

    assert run_sql(url, "SELECT token FROM mp_asgi_links") == [("gAAA",)]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param("token = 'gAAA'", id="its-text"),
        pytest.param("device_subject = 'd'", id="whose-it-is"),
        pytest.param("key_id = 'k'", id="its-key"),
    ],
)
def test_a_changed_link_is_refused_and_told(ledger, url, change):
    ledger.append([make_link()])

    run_sql(url, f"UPDATE mp_asgi_links SET {change}")

    with pytest.raises(LedgerUnavailable, match="changed"):
        ledger.links_of_user(USER)
    assert "A link" in ledger.verify().problems[0]


def test_a_new_key_finds_what_the_old_one_wrote(open_ledger):
    act, later = make_act(), make_act(DENIED, NOW + 1)
    open_ledger(OLD).append([act, make_link()])
    ledger = open_ledger(OLD, NEW)

    ledger.append([act, make_link(), later])

    assert ledger.current(USER) == Standing(DENIED, NOW + 1, NOW + 1, None, "", "own")
    old, new = ledger.history(USER)
    assert old.key_id != new.key_id
    assert new.revision == 2
    assert ledger.links_of_user(USER) == [make_link()]
    assert ledger.verify().is_intact


def test_a_missing_key_stops_the_start(open_ledger, make):
    old = open_ledger(OLD)
    old.append([make_act()])

    with pytest.raises(UnusableLedger, match=r"fingerprint [0-9a-f]{16}\)\. List that key"):
        make(NEW).open()


def test_a_store_of_a_newer_version_stops_the_start(ledger, url, make):
    run_sql(url, "INSERT INTO mp_asgi_schema (version) VALUES (2)")

    with pytest.raises(UnusableLedger, match="has version 2, and this mp-asgi knows 1"):
        make().open()


def test_a_lost_head_stops_the_start_and_the_append(ledger, url):
    ledger.append([make_act()])
    run_sql(url, "DELETE FROM mp_asgi_heads")

    with pytest.raises(UnusableLedger, match="mp_asgi_heads"):
        ledger.open()
    with pytest.raises(LedgerUnavailable, match="no chain for this project"):
        ledger.append([make_act(DENIED, NOW + 1)])


def test_a_ledger_that_was_never_opened_answers_nothing(make):
    with pytest.raises(LedgerUnavailable):
        make().current(USER)


def test_a_closed_ledger_opens_again_by_itself(ledger):
    ledger.close()
    ledger.close()

    ledger.append([make_act()])

    assert ledger.current(USER)


def test_opening_at_once_in_many_threads_makes_one_store(make):
    ledgers = [make(timeout_seconds=TIMEOUT) for _ in range(6)]
    ready = threading.Barrier(len(ledgers))
    failures = []

    def open_one(ledger):
        ready.wait(TIMEOUT)
        try:
            ledger.open()
        except MixpanelASGIError as error:
            failures.append(error)

    threads = [threading.Thread(target=open_one, args=[ledger]) for ledger in ledgers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)

    assert failures == []
    assert make().verify().is_intact


def test_two_processes_share_one_chain_and_lose_nothing(ledger, url):
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=append_acts, args=(url, number)) for number in (1, 2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(10 * TIMEOUT)

    assert [process.exitcode for process in processes] == [0, 0]
    verification = ledger.verify()
    assert verification.is_intact
    assert verification.records == 2 * ACTS
    keys = {key_of(process, act) for process in (1, 2) for act in range(ACTS)}
    standings = ledger.standings(keys)
    assert standings.keys() == keys
    assert standings[key_of(1, 3)].at == NOW - 1003


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # the child only appends
def test_a_fork_uses_connections_of_its_own(ledger):
    ledger.append([make_act()])

    child = os.fork()
    if child == 0:
        status = 1
        try:
            ledger.append([make_act(DENIED, NOW + 1)])
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    ledger.append([make_act(GRANTED, NOW + 2)])

    assert status == 0
    assert [record.state for record in ledger.history(USER)] == ["granted", "denied", "granted"]
    assert ledger.verify().is_intact


def test_a_writer_that_never_ends_makes_the_others_unavailable_in_time(ledger, open_ledger):
    hasty = open_ledger(timeout_seconds=0.2)
    ledger.append([make_act()])

    with ledger._store.writing() as connection:
        connection.exec_driver_sql("UPDATE mp_asgi_heads SET seq = seq")
        with pytest.raises(LedgerUnavailable):
            hasty.append([make_act(DENIED, NOW + 1)])

        assert hasty.current(USER).state is GRANTED  # who only reads does not wait


numbers = itertools.count()


@given(
    st.lists(
        st.lists(
            st.tuples(st.integers(0, 6), st.sampled_from(ActState), st.sampled_from([USER, OTHER]))
        ),
        max_size=4,
    )
)
def test_standings_are_those_of_a_naive_model(tmp_path_factory, batches):
    path = tmp_path_factory.getbasetemp() / "model.db"
    ledger = make_ledger(str(path), project=bytes(next(numbers)))
    ledger.open()
    model: dict[bytes, set[tuple[int, bool, ActState]]] = {}
    for batch in batches:
        ledger.append([make_act(state, NOW + at, key) for at, state, key in batch])
        for at, state, key in batch:
            model.setdefault(key, set()).add((at, state in {DENIED, ERASED}, state))

    standings = ledger.standings([USER, OTHER])

    assert standings.keys() == model.keys()
    for key, acts in model.items():
        at, is_denied, _ = max(acts, key=lambda act: act[:2])
        standing = standings[key]
        denials = [NOW + when for when, is_denial, _ in acts if is_denial]
        assert (standing.at, standing.is_denied) == (NOW + at, is_denied)
        assert standing.denied_at == max(denials, default=None)
        after = [NOW + when for when, *_ in acts if not denials or NOW + when > max(denials)]
        assert standing.since == min(after, default=None)
    assert ledger.verify().is_intact
