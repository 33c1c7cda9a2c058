import io
import sys

import pytest

from mp_asgi.cli.progress import SECONDS_BETWEEN_LINES, Bar, Lines, make_progress
from tests.support import FakeClock


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_elsewhere_it_is_a_line_now_and_then():
    stream, clock = io.StringIO(), FakeClock()
    progress = make_progress(stream, clock)

    for second in range(12):
        progress.show("Waiting", second, 12)
        clock.advance(1.0)
    progress.show("Waiting", 12, 12)
    progress.close()

    assert isinstance(progress, Lines)
    assert stream.getvalue().splitlines() == [
        *("Waiting: 0 of 12", "Waiting: 5 of 12", "Waiting: 10 of 12", "Waiting: 12 of 12")
    ]
    assert SECONDS_BETWEEN_LINES == 5.0


def test_a_new_title_is_a_line_at_once():
    stream = io.StringIO()
    progress = make_progress(stream, FakeClock())

    progress.show("First", 0, 9)
    progress.show("Second", 0, 9)

    assert stream.getvalue().splitlines() == ["First: 0 of 9", "Second: 0 of 9"]


def test_on_a_terminal_it_is_a_bar_for_each_title():
    pytest.importorskip("rich", reason="the bar is rich's")
    stream = Terminal()
    progress = make_progress(stream)

    progress.show("Waiting", 1, 4)
    progress.show("Asking", 0, 2)
    progress.show("Waiting", 4, 4)
    progress.close()

    assert isinstance(progress, Bar)
    assert "Waiting" in stream.getvalue()
    assert "Asking" in stream.getvalue()
    assert "100%" in stream.getvalue()


def test_a_bar_that_never_began_leaves_nothing():
    pytest.importorskip("rich", reason="the bar is rich's")
    stream = Terminal()

    make_progress(stream).close()

    assert stream.getvalue().strip() == ""


def test_without_rich_a_terminal_gets_lines(monkeypatch):
    monkeypatch.setitem(sys.modules, "rich.console", None)

    assert isinstance(make_progress(Terminal()), Lines)


def test_it_is_never_on_standard_output(capsys):
    make_progress().show("Waiting", 0, 1)

    out, err = capsys.readouterr()
    assert (out, err) == ("", "Waiting: 0 of 1\n")
