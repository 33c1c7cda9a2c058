"""Write the log of delivery. What is said when is decided where it happens."""

import logging
from typing import Final


class Log:
    """A logger whose handlers can end no thread and undo no decision: they are the app's code.

    `logging` guards its own handlers only: another one may raise when a disk is full, or when
    whoever read its pipe has gone.

    Args:
        name: Of the logger.
    """

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def info(self, message: str, *values: object) -> None:
        """Say what happened, if anybody can hear it."""
        self._write(logging.INFO, message, values)

    def warning(self, message: str, *values: object) -> None:
        """Say what may want a look, if anybody can hear it."""
        self._write(logging.WARNING, message, values)

    def error(self, message: str, *values: object) -> None:
        """Say what wants mending, if anybody can hear it."""
        self._write(logging.ERROR, message, values)

    def _write(self, level: int, message: str, values: tuple[object, ...]) -> None:
        try:
            self._logger.log(level, message, *values, stacklevel=3)
        except BaseException:  # noqa: BLE001  # the line is lost; what it tells goes on
            return


logger: Final = Log("mp_asgi.delivery")
