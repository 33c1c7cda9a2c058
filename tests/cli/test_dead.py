import io
import json
import stat

import pytest

from mp_asgi.cli.outbox import LETTERS_AT_ONCE
from mp_asgi.delivery.outbox.base import Refusal
from tests.cli.depot import BASIS, on_both_storages
from tests.support import NOW

pytestmark = on_both_storages


class Terminal(io.StringIO):
    def isatty(self):
        return True


class BreaksOff:
    """An outbox of which the first letters can be read; then something happens."""

    def __init__(self, outbox, error, meanwhile=lambda: None):
        self._outbox = outbox
        self._error = error
        self._meanwhile = meanwhile

    def dead(self, after=0, limit=100):
        if after:
            self._meanwhile()
            if self._error:
                raise self._error
        return self._outbox.dead(after, limit)

    def __getattr__(self, name):
        return getattr(self._outbox, name)


def list_ids(depot, *options):
    return [row["id"] for row in depot.read_json("dead", "list", *options)]


def test_a_list_says_what_died_and_why_and_nothing_of_its_person(depot):
    depot.bury("Signed Up", reply="'properties.time' is invalid")

    code, out, err = depot.call("dead", "list")

    assert (code, err) == (0, "")
    assert out == (
        "1  2027-01-15T08:00:00Z  /import  Signed Up  rejected  'properties.time' is invalid\n"
    )


@pytest.mark.parametrize(
    ("reply", "shown"),
    [
        pytest.param("properties.$email: 'a@b.example' is wrong", "'***' is wrong", id="a-value"),
        pytest.param("x: 'o'neil@b.example' is wrong", "x: '***' is wrong", id="a-quote-in-it"),
        pytest.param("x: 'one' is wrong, 'two' is", "x: '***' is", id="several"),
        pytest.param('x: "one" and `two`', 'x: "***" and `***`', id="other-quotes"),
        pytest.param("x: 'o'neil@b.exam", "x: '***'", id="cut"),
        pytest.param("'event' must not be 'Paid'", "'event' must not be '***'", id="behind-a-name"),
        pytest.param(
            "'$insert_id' may have '-' only", "'$insert_id' may have '-' only", id="names"
        ),
        pytest.param("it can't be", "it can't be", id="an-apostrophe"),
    ],
)
def test_a_list_masks_what_the_reply_quotes_of_its_person(depot, reply, shown):
    depot.bury("A", reply=reply)

    _, out, _ = depot.call("dead", "list")

    assert out.endswith(f"{shown}\n")
    assert depot.read_json("dead", "list")[0]["reply"].endswith(shown)
    assert depot.read_json("dead", "show", "1")["reply"] == reply


def test_a_list_of_nothing_says_so(depot):
    assert depot.call("dead", "list") == (0, "No dead letters.\n", "")
    assert depot.read_json("dead", "list") == []


def test_no_name_and_no_reply_plays_with_the_terminal_or_fills_it(depot):
    depot.bury("\x1b[31m" + "n" * 99, reply="\x1b]0;" + "r" * 99)

    _, out, _ = depot.call("dead", "list")

    assert "\x1b" not in out
    assert len(out) < 160


def test_a_list_has_the_newest_and_says_how_many_are_older(depot):
    depot.bury("A", "B", "C")

    _, out, _ = depot.call("dead", "list", "--limit", "2")

    first, *rows = out.splitlines()
    assert first == "1 older letter not shown; --limit shows more."
    assert [row.split()[3] for row in rows] == ["B", "C"]


def test_a_list_can_be_of_one_reason(depot):
    depot.bury("A", reason="expired")
    depot.bury("B")

    assert list_ids(depot, "--reason", "rejected") == [2]


@pytest.mark.parametrize("limit", ["0", "-1", "x", "²"])
def test_a_limit_is_a_number_from_1(depot, limit):
    with pytest.raises(SystemExit) as stop:
        depot.call("dead", "list", "--limit", limit)

    assert stop.value.code == 2


@pytest.mark.parametrize("digits", [20, 5_000])
@pytest.mark.parametrize("command", [("show",), ("replay",), ("purge", "--yes")], ids=" ".join)
def test_a_number_that_no_letter_has_is_wrong_usage(depot, command, digits):
    with pytest.raises(SystemExit) as stop:
        depot.call("dead", *command, "9" * digits)

    assert stop.value.code == 2


@pytest.mark.parametrize("digits", [20, 5_000])
def test_a_limit_may_be_as_large_as_one_likes(depot, digits):
    depot.bury("A")

    assert list_ids(depot, "--limit", "9" * digits) == [1]


def test_a_letter_is_shown_whole_and_it_is_said_that_this_is_personal(depot):
    depot.bury("Signed Up")

    code, out, err = depot.call("dead", "show", "1")

    head, _, message = out.partition("{")
    assert code == 0
    assert "personal data" in err
    assert head.splitlines()[:2] == ["id         1", "buried_at  2027-01-15T08:00:00Z"]
    assert json.loads("{" + message)["event"] == "Signed Up"
    assert depot.read_json("dead", "show", "1")["message"]["event"] == "Signed Up"


def test_a_letter_that_is_not_there_is_a_problem(depot):
    depot.bury("A", "B")
    depot.outbox.purge([1])

    code, out, err = depot.call("dead", "show", "1")

    assert (code, out) == (1, "")
    assert err.startswith("mp-asgi dead: There is no dead letter 1.")


@pytest.mark.parametrize(
    ("options", "left"),
    [
        pytest.param(("1", "3"), [2], id="numbers"),
        pytest.param(("--reason", "expired"), [1, 3], id="reason"),
        pytest.param(("--all",), [], id="all"),
    ],
)
@pytest.mark.parametrize("command", [("replay",), ("purge", "--yes")], ids=["replay", "purge"])
def test_letters_are_chosen_by_number_by_reason_or_all(depot, command, options, left):
    depot.bury("A")
    depot.bury("B", reason="expired")
    depot.bury("C")

    code, _, _ = depot.call("dead", *command, *options)

    assert code == 0
    assert list_ids(depot) == left


@pytest.mark.parametrize("options", [(), ("1", "--all"), ("--all", "--reason", "expired")])
@pytest.mark.parametrize("command", ["replay", "purge"])
def test_what_is_chosen_must_be_clear(depot, command, options):
    with pytest.raises(SystemExit) as stop:
        depot.call("dead", command, *options)

    assert stop.value.code == 2


def test_what_is_replayed_waits_again(depot):
    depot.bury("A")

    _, out, _ = depot.call("dead", "replay", "--all")

    assert out == "1 dead letter put back, to be sent again.\n"
    assert depot.outbox.stats().depth == 1


def test_what_its_person_stopped_stays_dead_and_that_is_said(depot):
    depot.bury("A")
    depot.outbox.forget([b"user"], NOW, NOW)

    code, out, _ = depot.call("dead", "replay", "--all")

    assert code == 1
    assert "1 other not: its person stopped it" in out
    assert depot.read_json("dead", "replay", "1", code=1) == {
        "replayed": 0,
        "kept": 1,
        "no_room": 0,
    }


def test_letters_go_back_until_half_of_the_outbox_is_full(depot, monkeypatch):
    depot.bury(*"ABCDE")
    monkeypatch.setenv("MP_ASGI_OUTBOX_MAX_MESSAGES", "6")

    code, out, _ = depot.call("dead", "replay", "--all")

    assert code == 1
    assert out.startswith("3 dead letters put back, to be sent again.\n2 others not: the outbox is")
    assert list_ids(depot) == [4, 5]
    assert depot.outbox.stats().depth == 3


def test_letters_that_found_no_room_are_counted_apart(depot, monkeypatch):
    depot.bury(*"ABC")
    monkeypatch.setenv("MP_ASGI_OUTBOX_MAX_MESSAGES", "2")

    content = depot.read_json("dead", "replay", "1", "2", "3", "9", code=1)

    assert content == {"replayed": 1, "kept": 1, "no_room": 2}


def test_purging_without_a_terminal_needs_yes(depot, monkeypatch):
    depot.bury("A")
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))

    code, _, err = depot.call("dead", "purge", "--all")

    assert code == 2
    assert "--yes" in err
    assert list_ids(depot) == [1]


@pytest.mark.parametrize(
    ("answer", "code", "left"),
    [pytest.param("y\n", 0, [], id="yes"), pytest.param("\n", 1, [1], id="no")],
)
def test_purging_on_a_terminal_asks(depot, monkeypatch, answer, code, left):
    depot.bury("A")
    monkeypatch.setattr("sys.stdin", Terminal(answer))

    found, _, err = depot.call("dead", "purge", "--all")

    assert found == code
    assert err.startswith("Delete 1 dead letter for good? [y/N]")
    assert list_ids(depot) == left


def test_purging_what_is_not_there_is_a_problem(depot):
    depot.bury("A")

    code, out, _ = depot.call("dead", "purge", "1", "7", "--yes")

    assert code == 1
    assert out == "1 dead letter deleted.\n1 other not: there is no such letter.\n"
    assert depot.read_json("dead", "purge", "7", "--yes", code=1) == {"purged": 0, "missing": 1}


def test_purging_nothing_asks_nothing(depot):
    assert depot.call("dead", "purge", "--all") == (0, "0 dead letters deleted.\n", "")


def test_an_export_is_a_file_for_its_owner_that_backfill_reads(depot):
    depot.bury(*"ABC")
    file = depot.path / "dead.ndjson"

    code, out, _ = depot.call("dead", "export", str(file))

    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert code == 0
    assert "3 dead letters written" in out
    assert "personal data" in out
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [line["event"] for line in lines] == ["A", "B", "C"]
    assert lines[0]["mp_asgi"]["reason"] == "rejected"
    assert depot.outbox.stats().dead == 3


def test_an_export_replaces_no_file(depot):
    file = depot.write("precious")

    code, _, err = depot.call("dead", "export", file)

    assert code == 2
    assert file in err
    assert (depot.path / "events.ndjson").read_text() == "precious\n"


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_an_export_that_is_cut_off_leaves_nothing(depot, monkeypatch, error):
    depot.bury(*"ABC")
    broken = BreaksOff(depot.outbox, error)
    monkeypatch.setattr("mp_asgi.cli.outbox.open_outbox", lambda *_, **__: broken)
    directory = depot.path / "exports"
    directory.mkdir()

    code, _, err = depot.call("dead", "export", str(directory / "dead.ndjson"))

    assert (code, err.count("\n")) in {(1, 1), (2, 1)}
    assert list(directory.iterdir()) == []


def test_an_export_takes_no_name_that_was_taken_meanwhile(depot, monkeypatch):
    depot.bury("A")
    file = depot.path / "dead.ndjson"
    other = BreaksOff(depot.outbox, None, lambda: file.write_text("precious"))
    monkeypatch.setattr("mp_asgi.cli.outbox.open_outbox", lambda *_, **__: other)

    code, _, err = depot.call("dead", "export", str(file))

    assert (code, str(file) in err) == (2, True)
    assert file.read_text() == "precious"


def test_an_export_to_standard_output_is_nothing_but_lines(depot):
    depot.bury(*(f"E{number}" for number in range(LETTERS_AT_ONCE + 1)))

    code, out, err = depot.call("dead", "export", "-")

    assert (code, err) == (0, "")
    assert len([json.loads(line) for line in out.splitlines()]) == LETTERS_AT_ONCE + 1


def test_what_was_exported_can_be_imported(depot):
    depot.put_sendable(1)
    (leased,) = depot.lease()
    depot.outbox.bury(leased.id, [Refusal(0, "expired", "")], NOW)
    file = depot.path / "dead.ndjson"
    depot.call("dead", "export", str(file))

    code, _, _ = depot.call("backfill", str(file), *BASIS, is_now=True)

    assert code == 0
    assert [event["event"] for event in depot.standin.events] == ["Event 0"]


def test_without_an_outbox_it_is_one_sentence(depot, monkeypatch):
    monkeypatch.setenv("MP_ASGI_OUTBOX", f"sqlite:///{depot.path}/nowhere.db")

    code, out, err = depot.call("dead", "list")

    assert (code, out) == (1, "")
    assert err.startswith("mp-asgi dead: There is no outbox ")
    assert err.count("\n") == 1
    assert "error" in depot.read_json("dead", "list", code=1)
