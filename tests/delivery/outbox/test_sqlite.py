import json
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from mp_asgi.delivery.outbox import sqlite as sqlite_module
from mp_asgi.delivery.outbox.base import Outbox, Refusal, Ticket
from mp_asgi.delivery.outbox.sqlite import SQLiteOutbox
from mp_asgi.errors import OutboxUnavailable
from mp_asgi.events import Endpoint
from mp_asgi.settings import Settings
from tests.delivery.outbox.contract import (
    EVENTS,
    OutboxContract,
    bury_all,
    ids_of,
    imbalance,
    make_alias,
    names,
    take,
)
from tests.support import NOW, FakeClock, full_disk, make_entry, make_settings

PATIENCE = 120.0  # seconds for processes of their own on a busy machine

PUT_AND_TAKE = """
import json, sys
from pathlib import Path
from mp_asgi.delivery.outbox.sqlite import SQLiteOutbox
from tests.delivery.outbox.contract import take
from tests.support import NOW, make_entry, make_settings

outbox, me = SQLiteOutbox(Path(sys.argv[1]), make_settings()), sys.argv[2]
taken = []
for number in range(150):
    outbox.put([make_entry(f"{me}-{number}-{part}") for part in "abc"], NOW)
    leased = take(outbox, max_messages=4)
    taken += [message.name for item in leased for message in item.entry.messages]
    outbox.release([item.id for item in leased[:1]], NOW) if number % 10 == 0 else None
    gone = leased[number % 10 == 0 :]
    if number % 10 == 0:
        taken = taken[: len(taken) - len(leased)] + [item.entry.messages[0].name for item in gone]
    assert outbox.ack([item.id for item in gone]) == len(gone)
print(json.dumps(taken))
"""

PUT_FOR_EVER = """
import sys
from pathlib import Path
from mp_asgi.delivery.outbox.sqlite import SQLiteOutbox
from tests.delivery.outbox.contract import take
from tests.support import NOW, make_entry, make_settings

outbox = SQLiteOutbox(Path(sys.argv[1]), make_settings(outbox_max_messages=10_000_000))
for number in range(10_000_000):
    outbox.put([make_entry(f"{number}-{part}", size_bytes=500) for part in range(20)], NOW)
    print(number, flush=True)
"""


def read(path: Path, statement: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(statement).fetchall()


def write(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(statement)


def bytes_on_disk(path: Path) -> bytes:
    return b"".join(found.read_bytes() for found in sorted(path.parent.iterdir()))


class TestSQLiteOutbox(OutboxContract):
    @pytest.fixture(autouse=True)
    def place(self, tmp_path):
        self._place = tmp_path

    def make(self, settings: Settings) -> Outbox:
        # Ids begin where the clock is.
        return SQLiteOutbox(self._place / f"{len(self._made)}.sqlite", settings, clock=FakeClock(0))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox.sqlite"


@pytest.fixture
def outbox(path: Path):
    outbox = SQLiteOutbox(path, make_settings(), clock=FakeClock(NOW + 100))
    yield outbox
    assert imbalance(outbox) == 0
    outbox.close()


def test_it_says_that_others_share_it_and_that_it_lasts(outbox):
    assert (outbox.is_shared, outbox.is_durable) == (True, True)


def test_what_is_put_is_there_for_the_next_process(outbox, path):
    outbox.put([make_entry("a")], NOW, Ticket("journal", 1))
    outbox.close()

    later = SQLiteOutbox(path, make_settings())

    assert later.put([make_entry("a")], NOW, Ticket("journal", 1)).stored == 0
    assert names(take(later)) == [["a"]]
    assert later.stats().totals == {("accepted", ""): 1}
    later.close()


def test_two_who_share_it_take_nothing_twice_and_obey_the_same_stops(outbox, path):
    other = SQLiteOutbox(path, make_settings())
    outbox.put([make_entry("a"), make_entry("b", device=b"x")], NOW)

    first, second = take(outbox, max_messages=1), take(other)
    other.forget([b"device"], NOW, NOW)

    assert (names(first), names(second)) == ([["a"]], [["b"]])
    assert outbox.ack([item.id for item in first]) == 0
    assert outbox.put([make_entry("c")], NOW).stopped == 1
    other.close()


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_that_put_and_take_at_once_lose_and_double_nothing(outbox, path, processes):
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PUT_AND_TAKE, str(path), str(number)], stdout=subprocess.PIPE
        )
        for number in range(processes)
    ]
    outputs = [process.communicate(timeout=PATIENCE)[0] for process in started]
    taken = [name for output in outputs for name in json.loads(output)]
    for item in take(outbox, NOW + 61, max_bytes=10**9, max_messages=10**6):
        taken += [message.name for message in item.entry.messages]

    put = [f"{me}-{n}-{part}" for me in range(processes) for n in range(150) for part in "abc"]
    assert sorted(taken) == sorted(put)
    assert imbalance(outbox) == 0


def test_what_was_acknowledged_survives_a_kill_in_mid_write(outbox, path):
    acknowledged = -1
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", PUT_FOR_EVER, str(path)], stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) == 40:
                break
        process.send_signal(signal.SIGKILL)
        rest, _ = process.communicate(timeout=PATIENCE)
        acknowledged += (int(rest.split()[-1]) if rest.split() else 40) + 1
        assert outbox.stats().depth >= 20 * (acknowledged + 1)
        assert outbox.stats().depth % 20 == 0
        assert imbalance(outbox) == 0

    assert read(path, "PRAGMA integrity_check") == [("ok",)]


def test_stats_and_backlog_cost_the_same_at_every_depth(path):
    outbox = SQLiteOutbox(path, make_settings())
    costs = []
    for depth in (50, 5000):
        outbox.put([make_entry("a", device=b"%d" % n) for n in range(depth)], NOW)
        take(outbox, max_messages=1)
        connection = outbox._database._local.lent.connection
        steps = []
        connection.set_progress_handler(lambda steps=steps: steps.append(1), 1)
        outbox.backlog(EVENTS, NOW)
        outbox.stats()
        connection.set_progress_handler(None, 1)
        costs.append(len(steps))
    outbox.close()

    assert costs[1] < 2 * costs[0]


def test_an_erase_leaves_nothing_on_the_disk(outbox, path):
    outbox.put([make_entry("Erased Event", size_bytes=20_000)], NOW)
    outbox.put([make_entry("Erased Letter", endpoint=Endpoint.PEOPLE)], NOW)
    (leased,) = take(outbox, endpoint=Endpoint.PEOPLE)
    outbox.bury(leased.id, [Refusal(0, "rejected", "Erased Reply")], NOW)
    is_there = b"Erased" in bytes_on_disk(path)

    outbox.erase([b"device"], NOW, NOW)

    assert is_there
    assert b"Erased" not in bytes_on_disk(path)


def test_what_expires_gives_its_room_back(outbox, path):
    outbox.put([make_entry(*"abcdefghij", size_bytes=100_000)], NOW)
    outbox.close()
    before = path.stat().st_size

    outbox.expire(NOW + 31 * 86_400)
    outbox.close()

    assert path.stat().st_size < before / 5


def test_a_ticket_of_a_source_that_is_long_gone_is_forgotten(outbox, path):
    outbox.put([make_entry("a")], NOW, Ticket("old", 1))
    outbox.put([make_entry("b")], NOW + 1, Ticket("new", 1))

    outbox.expire(NOW + 30 * 86_400 + 0.5)

    assert read(path, "SELECT source FROM tickets") == [("new",)]


def test_a_stop_mark_is_pruned_when_its_time_is_over(outbox, path):
    outbox.forget([b"gone"], NOW, NOW)

    outbox.expire(NOW + 30 * 86_400)
    before = len(read(path, "SELECT * FROM marks"))
    outbox.expire(NOW + 30 * 86_400 + 1)

    assert (before, read(path, "SELECT * FROM marks")) == (1, [])


def test_a_stop_mark_that_is_renewed_is_young_again(outbox, path, monkeypatch):
    monkeypatch.setattr(sqlite_module, "MAX_STOP_MARKS", 3)
    outbox.forget([b"0", b"1", b"2"], NOW, NOW)
    outbox.forget([b"0"], NOW, NOW)  # no fourth one: nothing is given up
    outbox.forget([b"2"], NOW, NOW)
    is_open = outbox.put([make_entry("a", device=b"x")], NOW).stored == 1

    outbox.forget([b"another"], NOW, NOW)

    assert is_open
    assert read(path, "SELECT key FROM marks ORDER BY number") == [(b"0",), (b"2",), (b"another",)]


def test_what_is_gone_leaves_no_lease_behind(outbox, path):
    outbox.put([make_entry("a", "b", user=b"user"), make_alias("c", "d")], NOW)
    for endpoint in (EVENTS, Endpoint.ALIASES):
        outbox.release([item.id for item in take(outbox, endpoint=endpoint)], NOW)
        for item in take(outbox, endpoint=endpoint):
            outbox.split(item.id)
        outbox.ack([item.id for item in take(outbox, endpoint=endpoint)])

    assert read(path, "SELECT * FROM holds") == read(path, "SELECT * FROM entries") == []


def test_both_halves_remember_the_attempts(outbox):
    outbox.put([make_entry("a", "b")], NOW)
    (leased,) = take(outbox)
    outbox.release([leased.id], NOW)

    outbox.split(leased.id)

    assert [item.attempts for item in take(outbox)] == [1, 1]


def test_a_lease_counts_no_attempt_and_forgets_none(outbox):
    outbox.put([make_entry("a")], NOW)
    for moment in (NOW, NOW + 60):
        outbox.release([item.id for item in take(outbox, moment)], moment)

    (leased,) = take(outbox, NOW + 120)
    (again,) = take(outbox, NOW + 240)

    assert (leased.attempts, again.attempts) == (2, 2)


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(lambda outbox: outbox.put([make_entry("a")], NOW), id="put"),
        pytest.param(lambda outbox: outbox.backlog(EVENTS, NOW), id="backlog"),
        pytest.param(take, id="lease"),
        pytest.param(lambda outbox: outbox.ack([1]), id="ack"),
        pytest.param(lambda outbox: outbox.erase([b"device"], NOW, NOW), id="erase"),
        pytest.param(lambda outbox: outbox.stats(), id="stats"),
    ],
)
def test_a_storage_that_fails_raises_its_own_error_only(tmp_path, call):
    (tmp_path / "file").touch()
    outbox = SQLiteOutbox(tmp_path / "file" / "outbox.sqlite", make_settings())

    with pytest.raises(OutboxUnavailable, match=r"outbox\.sqlite"):
        call(outbox)
    outbox.close()


def test_a_full_disk_refuses_a_put_whole_and_serves_what_waits(outbox):
    outbox.put([make_entry("a")], NOW)

    with full_disk(200_000), pytest.raises(OutboxUnavailable, match=r"outbox\.sqlite"):
        outbox.put([make_entry("b"), make_entry("c", size_bytes=900_000)], NOW)

    assert outbox.stats().totals == {("accepted", ""): 1}
    assert names(take(outbox)) == [["a"]]


def overwrite(path: Path, first_byte: int) -> None:
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(first_byte)
        file.write(b"\xa5" * (size - first_byte))


def damage_entries(path: Path) -> None:
    """Overwrite the pages of the entries, as a disk might."""
    ((root,),) = read(path, "SELECT rootpage FROM sqlite_master WHERE name = 'entries'")
    with path.open("r+b") as file:
        file.seek(4096 * (root - 1))
        file.write(b"\xa5" * 4096)


def test_a_damaged_file_is_counted_and_nothing_new_is_lost(outbox, path):
    outbox.put([make_entry("lost")], NOW)
    outbox.close()
    damage_entries(path)

    assert outbox.put([make_entry("kept", at=NOW + 200)], NOW).stored == 1

    assert outbox.stats().totals == {("accepted", ""): 1, ("quarantined", ""): 1}
    assert names(take(outbox)) == [["kept"]]


def test_the_stop_marks_of_a_damaged_file_hold(outbox, path):
    outbox.forget([b"gone"], NOW, NOW)
    outbox.close()
    damage_entries(path)

    result = outbox.put([make_entry("a", device=b"gone"), make_entry("b")], NOW)

    assert (result.stopped, result.stored) == (1, 1)


def test_what_a_damaged_file_stopped_for_lost_marks_stays_stopped(outbox, path, monkeypatch):
    monkeypatch.setattr(sqlite_module, "MAX_STOP_MARKS", 1)
    outbox.forget([b"gone", b"other"], NOW, NOW)
    outbox.close()
    damage_entries(path)

    assert outbox.put([make_entry("a", device=b"third")], NOW).stopped == 1


def test_where_no_stop_mark_can_be_read_nothing_of_before_is_sent(outbox, path):
    outbox.forget([b"gone"], NOW, NOW)
    outbox.close()
    overwrite(path, 0)

    before, after = make_entry("a", at=NOW + 100), make_entry("b", at=NOW + 100.1)

    assert outbox.put([before], NOW + 100).stopped == 1
    assert outbox.put([after], NOW + 101).stored == 1


def test_a_clock_that_was_ahead_at_the_damage_stops_nothing_for_years(path):
    clock = FakeClock(NOW + 3650 * 86_400)
    outbox = SQLiteOutbox(path, make_settings(), clock=clock)
    path.write_bytes(b"garbage" * 1000)

    before = outbox.put([make_entry("a")], NOW)
    after = outbox.put([make_entry("b", at=NOW + 1)], NOW + 1)

    assert (before.stopped, after.stored) == (1, 1)
    outbox.close()


def test_what_was_leased_from_a_deleted_file_settles_nothing_in_the_new_one(path):
    clock = FakeClock()
    mine, other = (SQLiteOutbox(path, make_settings(), clock=clock) for _ in range(2))
    mine.put([make_entry("old"), make_entry("older")], NOW)
    leased = take(mine)
    path.unlink()
    clock.advance(0.001)
    other.put([make_entry("new"), make_entry("newer")], NOW)

    assert mine.ack([item.id for item in leased]) == 0
    assert other.stats().depth == 2
    mine.close()
    other.close()


def open_reader(path: Path) -> sqlite3.Connection:
    """Answer what a backup does, or a shell that somebody forgot."""
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM entries").fetchall()
    return reader


def test_what_is_erased_while_another_reads_is_told_and_goes_later(
    outbox, path, monkeypatch, caplog
):
    monkeypatch.setattr(sqlite_module, "CLEAR_SECONDS", 0.0)
    outbox.put([make_entry("Erased")], NOW)
    reader = open_reader(path)

    removed = outbox.erase([b"device"], NOW, NOW)
    reader.close()
    is_there = b"Erased" in bytes_on_disk(path)
    outbox.expire(NOW)

    assert removed == 1
    assert is_there
    assert b"Erased" not in bytes_on_disk(path)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "stays in its log for now: another program reads" in caplog.text


@pytest.mark.parametrize("call", ["forget", "purge"])
def test_what_is_deleted_leaves_the_log_when_time_comes_to_expire(outbox, path, call):
    if call == "forget":
        outbox.put([make_entry("Gone")], NOW)
        outbox.forget([b"device"], NOW, NOW)
    else:
        outbox.purge(ids_of(bury_all(outbox, make_entry("Gone"))))

    outbox.expire(NOW)

    assert b"Gone" not in bytes_on_disk(path)


def test_an_erasure_tells_of_a_damaged_file_which_is_deleted_in_time(outbox, path, caplog):
    outbox.put([make_entry("Erased")], NOW)
    outbox.close()
    damage_entries(path)
    outbox.stats()
    take(outbox)
    caplog.clear()

    outbox.erase([b"device"], NOW, NOW)
    before = {found.name for found in path.parent.glob("*.corrupt-*")}
    outbox.expire(NOW + 100 + 30 * 86_400)
    still = {found.name for found in path.parent.glob("*.corrupt-*")}
    outbox.expire(NOW + 101 + 30 * 86_400)

    assert before == still >= {f"outbox.sqlite.corrupt-{NOW + 100:.0f}"}
    assert f"may still be in {path}.corrupt-{NOW + 100:.0f}, which was damaged" in caplog.text
    assert not [*path.parent.glob("*.corrupt-*")]


def test_what_was_leased_from_a_damaged_file_settles_nothing_in_the_new_one(outbox, path):
    outbox.put([make_entry("a")], NOW)
    horizon = outbox.horizon()
    (leased,) = take(outbox)
    outbox.close()
    damage_entries(path)
    outbox._clock.advance(1)
    outbox.put([make_entry("b", at=NOW + 200)], NOW)

    assert outbox.ack([leased.id]) == 0
    assert outbox.is_past(horizon)
    assert not outbox.is_past(outbox.horizon())


def test_two_that_meet_the_same_damage_go_on_with_one_new_file(outbox, path):
    other = SQLiteOutbox(path, make_settings(), clock=FakeClock())
    outbox.put([make_entry("lost")], NOW)
    other.stats()
    write(path, "PRAGMA wal_checkpoint(TRUNCATE)")
    damage_entries(path)

    outbox.put([make_entry("a", at=NOW + 200)], NOW)
    other.put([make_entry("b", at=NOW + 200)], NOW)

    assert names(take(outbox)) == [["a"], ["b"]]
    assert outbox.stats().totals == {("accepted", ""): 2, ("quarantined", ""): 1}
    other.close()


@pytest.mark.parametrize(
    "harm",
    [
        pytest.param("UPDATE entries SET messages = x'0102'", id="too-short"),
        pytest.param("UPDATE entries SET messages = 'text'", id="of-another-type"),
        pytest.param("UPDATE entries SET messages = CAST(messages || 'x' AS BLOB)", id="too-long"),
        pytest.param("UPDATE entries SET messages = substr(messages, 1, 20)", id="cut-off"),
        pytest.param("UPDATE entries SET endpoint = 9", id="of-no-endpoint"),
        pytest.param("DELETE FROM state", id="without-a-state"),
    ],
)
def test_a_row_that_nobody_wrote_is_damage(outbox, path, harm):
    outbox.put([make_entry("a")], NOW)
    write(path, harm)

    assert take(outbox) == []
    assert outbox.stats().totals == {("quarantined", ""): 1}


def test_letters_are_found_by_their_numbers_among_many(outbox):
    letters = bury_all(outbox, *(make_entry(str(number)) for number in range(5)))

    assert outbox.purge(ids_of(letters)[1:4]) == 3
    assert [letter.message.name for letter in outbox.dead()] == ["0", "4"]


def test_a_file_of_another_token_is_refused_and_left_as_it_is(tmp_path):
    path = tmp_path / "outbox.sqlite3"
    mine = SQLiteOutbox(path, make_settings(token="mine"))
    mine.put([make_entry("a")], NOW)

    with pytest.raises(OutboxUnavailable, match="the outbox of another MIXPANEL_TOKEN"):
        take(SQLiteOutbox(path, make_settings(token="other")))

    assert names(take(mine)) == [["a"]]


def test_a_project_that_moves_to_another_region_goes_on_with_what_waits(tmp_path):
    path = tmp_path / "outbox.sqlite3"
    SQLiteOutbox(path, make_settings(region="us")).put([make_entry("a")], NOW)

    assert names(take(SQLiteOutbox(path, make_settings(region="eu")))) == [["a"]]


def test_a_log_that_a_reader_keeps_from_being_emptied_is_seen_in_the_stats(tmp_path):
    path = tmp_path / "outbox.sqlite"
    outbox = SQLiteOutbox(path, make_settings(), clock=FakeClock())
    outbox.put([make_entry("a")], NOW)
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM state").fetchall()
        outbox.put([make_entry("b", size_bytes=500_000)], NOW)
        outbox.expire(NOW)
        kept = outbox.stats().log_bytes

    outbox.expire(NOW)

    assert kept > 500_000
    assert outbox.stats().log_bytes == 0
    outbox.close()
