"""Say where a subject stands after its acts, in whatever order they arrived. Pure."""

from collections.abc import Iterable
from typing import NamedTuple

from mp_asgi.events import ActState, Standing

from .moment import DENIALS, to_seconds


class PastAct(NamedTuple):
    """What a record says of one act.

    Attributes:
        at: Milliseconds since the epoch.
        seq: Its place in the chain.
        state: As it stands in the record.
        version: Of the notice; empty without one.
        source: What said it.
    """

    at: int
    seq: int
    state: str
    version: str = ""
    source: str = ""

    @property
    def is_denial(self) -> bool:
        """Whether it denies; a state that cannot be read does."""
        return _read_state(self.state).value in DENIALS


def stand(acts: Iterable[PastAct]) -> Standing:
    """Answer where at least one act leads: the newest rules, a denial before others of its time.

    A tombstone is a denial here. What ends it is a later `GRANTED`, or the `LIFTED` that the same
    person's grant writes to the account (RULES section 3).
    """
    ordered = sorted(acts, key=lambda act: (act.at, act.is_denial, act.seq))
    newest = ordered[-1]
    denials = [act.at for act in ordered if act.is_denial]
    denied_at = denials[-1] if denials else -1
    later = [act.at for act in ordered if act.at > denied_at]
    return Standing(
        _read_state(newest.state),
        to_seconds(newest.at),
        to_seconds(denied_at) if denials else None,
        to_seconds(later[0]) if later else None,
        newest.version,
        newest.source,
    )


def _read_state(text: str) -> ActState:
    try:
        return ActState(text)
    except ValueError:
        return ActState.DENIED  # somebody changed the row; `verify` tells
