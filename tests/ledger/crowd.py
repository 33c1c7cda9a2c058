"""Append from another process: what `multiprocessing` starts must be importable."""

from tests.ledger.acts import GRANTED, make_act, make_ledger
from tests.support import NOW

ACTS = 200


def key_of(process: int, act: int) -> bytes:
    return bytes([process, act % 50]) * 16  # 50 subjects, each with several acts


def append_acts(url: str, process: int) -> None:
    """Append one by one."""
    ledger = make_ledger(url, timeout_seconds=20.0)
    for act in range(ACTS):
        ledger.append([make_act(GRANTED, NOW - 1000.0 - act, key_of(process, act))])
    ledger.close()
