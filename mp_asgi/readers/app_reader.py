"""Read cookies with a callable of the app's own."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from .base import DENIED, GRANTED, NOTHING, UNREADABLE, Reading

_NOT_IN_NAME = re.compile("[^A-Za-z0-9]+")


@dataclass(frozen=True, slots=True)
class AppReader:
    """Ask `function` about all cookies that are not ours. It tells no time.

    Attributes:
        function: Answers True for granted, False for denied, None for no choice, from the
            cookies' raw values by name. Anything else is unreadable, as is an exception.
    """

    cookies: ClassVar[tuple[str, ...]] = ("*",)
    function: Callable[[Mapping[str, str]], object]

    @property
    def name(self) -> str:
        """`app-` and the function's name, with `-` for what is no letter or digit."""
        function = self.function
        words = getattr(function, "__name__", type(function).__name__)
        return "app-" + _NOT_IN_NAME.sub("-", words).strip("-")

    def read(self, cookies: Mapping[str, str]) -> Reading:
        """Answer what the function says; see `Reader`."""
        answer = self.function(cookies)
        if answer is None:
            return NOTHING
        if not isinstance(answer, bool):
            return UNREADABLE
        return GRANTED if answer else DENIED
