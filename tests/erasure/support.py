"""Real things for these tests: a ledger of one process, and people of the tests' project."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from mp_asgi.erasure.people import PeopleReader
from mp_asgi.errors import MixpanelASGIError
from mp_asgi.events import Act, ActState, Link
from mp_asgi.identity import IdentityMode
from mp_asgi.signing import CookieSigner
from mp_asgi.wire import KeyMaker
from tests.support import FakeClock

TOKEN = "t0ken"
KEYS = KeyMaker(TOKEN)
DEVICE = "3f2b8a52-2f5c-4e7b-9a50-0a7c1c1d2e3f"
OTHER_DEVICE = "9d2b8a52-2f5c-4e7b-9a50-0a7c1c1d2e3f"


def make_signer(key: str = "k" * 32) -> CookieSigner:
    return CookieSigner([key], "test.id", FakeClock())


def make_reader(mode: IdentityMode = IdentityMode.SIMPLIFIED) -> PeopleReader:
    return PeopleReader(KEYS, mode, make_signer())


def make_link(user_id: str, device_id: str, at: float, origins: str = "") -> Link:
    keys = KEYS.user_key(user_id), KEYS.device_key(device_id)
    return Link(user_id, device_id, *keys, at, origins)


@dataclass
class Line:
    """One record of `MemoryLedger`."""

    act: Act

    def to_json(self) -> str:
        return f'{{"state": "{self.act.state.value}"}}'


@dataclass
class MemoryLedger:
    """A ledger that keeps its promises in memory, and fails on request."""

    acts: list[Act] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    erased: list[tuple[list[bytes], float]] = field(default_factory=list)

    def append(self, items: Sequence[Act | Link]) -> None:
        self._fail("append")
        self.sizes.append(len(items))
        self.acts += [item for item in items if isinstance(item, Act)]

    def links_of_user(self, user_key: bytes) -> list[Link]:
        return [link for link in self.links if link.user_key == user_key]

    def history(self, key: bytes) -> list[Line]:
        return [Line(act) for act in self.acts if act.key == key]

    def erase(self, keys: Collection[bytes], at: float) -> int:
        self._fail("erase")
        gone = [act for act in self.acts if act.key in keys and act.state is not ActState.ERASED]
        self.acts = [act for act in self.acts if act not in gone]
        self.links = [link for link in self.links if not {link.user_key, link.device_key} & {*keys}]
        self.erased.append((list(keys), at))
        return len(gone)

    def _fail(self, what: str) -> None:
        if what in self.failures:
            self.failures.remove(what)
            raise MixpanelASGIError("The ledger gave no answer.")
