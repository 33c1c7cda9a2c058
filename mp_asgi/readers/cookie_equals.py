"""Read any cookie whose whole value says yes or no."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from .base import DENIED, GRANTED, UNREADABLE, Reading

_NOT_IN_NAME = re.compile("[^A-Za-z0-9]+")


@dataclass(frozen=True, slots=True, init=False)
class CookieEquals:
    """Read one cookie by its raw value; any other value is unreadable. It tells no time.

    Args:
        name: Of the cookie.
        granted: Values that say yes.
        denied: Values that say no.

    Attributes:
        name: Of the reader: `cookie-` and the cookie's, with `-` for what is no letter or digit.

    Raises:
        ValueError: A value says both, or values are given as one text.
    """

    name: str
    cookies: tuple[str, ...]
    granted: frozenset[str]
    denied: frozenset[str]

    def __init__(self, name: str, *, granted: Collection[str], denied: Collection[str]) -> None:
        if isinstance(granted, str) or isinstance(denied, str):
            raise ValueError(  # noqa: TRY004  # start-up collects ValueError
                f"The values of the cookie {name!r} are a text. Use a set, as in granted={{'1'}}."
            )
        both = frozenset(granted) & frozenset(denied)
        if both:
            raise ValueError(
                f"The cookie {name!r} says both yes and no by {min(both)!r}. Choose one."
            )
        object.__setattr__(self, "name", "cookie-" + _NOT_IN_NAME.sub("-", name).strip("-"))
        object.__setattr__(self, "cookies", (name,))
        object.__setattr__(self, "granted", frozenset(granted))
        object.__setattr__(self, "denied", frozenset(denied))

    def read(self, cookies: Mapping[str, str]) -> Reading:
        """Answer what the value says; see `Reader`."""
        value = cookies[self.cookies[0]]
        if value in self.granted:
            return GRANTED
        return DENIED if value in self.denied else UNREADABLE
