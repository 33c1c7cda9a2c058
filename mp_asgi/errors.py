"""Name everything this package raises. A visitor's bad input is never one of these."""

from collections.abc import Sequence


class MixpanelASGIError(Exception):
    """The root of the tree: catch it to catch everything of ours."""


class SettingsError(MixpanelASGIError, ValueError):
    """The settings cannot be used; the message lists every problem at once.

    Attributes:
        problems: One sentence each, naming the variable, the value and the remedy.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        lines = "".join(f"\n  - {problem}" for problem in self.problems)
        super().__init__(f"mp-asgi cannot start with these settings:{lines}")


class InvalidEvent(MixpanelASGIError, ValueError):
    """An event or a profile update cannot be sent as it is.

    Attributes:
        reason: The counter's label, for example `unserialisable`.
    """

    def __init__(self, reason: str, message: str) -> None:
        self.reason = reason
        super().__init__(message)


class NotConsented(MixpanelASGIError):
    """A hand-over was built without a granted decision. Always a bug of ours, never sent."""


class Unavailable(MixpanelASGIError):
    """Mixpanel gave no answer.

    Attributes:
        is_sent: Whether the request may have been read, so that its answer is lost and
            repeating it could count twice what has no dedupe key.
    """

    def __init__(self, message: str, *, is_sent: bool) -> None:
        self.is_sent = is_sent
        super().__init__(message)


class OutboxUnavailable(MixpanelASGIError):
    """The storage behind an outbox failed or cannot be used. The message says which and why."""
