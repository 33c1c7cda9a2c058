import logging

import pytest

from mp_asgi.delivery.log import Log


class Broken(logging.Handler):
    """What writes to a full disk, and does not guard itself as `logging`'s own handlers do."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self._error = error

    def emit(self, record):
        raise self._error


@pytest.fixture
def broken():
    """Answer what adds a handler that raises."""
    logger, added = logging.getLogger("mp_asgi"), []

    def add(error):
        added.append(Broken(error))
        logger.addHandler(added[-1])

    yield add
    for handler in added:
        logger.removeHandler(handler)


@pytest.mark.parametrize("error", [OSError(28, "full"), SystemExit()], ids=["full-disk", "exit"])
@pytest.mark.parametrize("level", ["info", "warning", "error"])
def test_a_handler_that_raises_is_nobodys_matter(broken, level, error):
    broken(error)

    getattr(Log("mp_asgi.delivery"), level)("%d events", 2)


@pytest.mark.parametrize("level", ["info", "warning", "error"])
def test_a_line_tells_its_level_its_logger_and_where_it_was_said(caplog, level):
    caplog.set_level(logging.INFO)

    getattr(Log("mp_asgi.delivery"), level)("%d events of %s", 2, "them")

    (record,) = caplog.records
    assert record.getMessage() == "2 events of them"
    assert (record.levelname.lower(), record.name) == (level, "mp_asgi.delivery")
    assert record.filename == "test_log.py"
