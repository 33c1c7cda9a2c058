"""Give every test of the ledger each database that this machine has."""

import importlib.util
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mp_asgi.ledger import Ledger
from tests.ledger.acts import make_ledger, run_sql
from tests.ledger.servers import find_postgresql, run_mariadb, run_postgresql

TABLES = ("schema", "heads", "records", "notices", "links")


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    programs = find_postgresql()
    if programs is None:
        pytest.skip("PostgreSQL is not installed here: apt-get install postgresql")
    with run_postgresql(programs) as url:
        yield url


@pytest.fixture(scope="session")
def mariadb() -> Iterator[str]:
    if shutil.which("mariadbd") is None or importlib.util.find_spec("pymysql") is None:
        pytest.skip("MariaDB or PyMySQL is not installed here: apt-get install mariadb-server")
    with run_mariadb() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def url(request, tmp_path) -> str:
    """Answer an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.db'}"
    url = request.getfixturevalue(request.param)
    for table in TABLES:
        run_sql(url, f"DROP TABLE IF EXISTS mp_asgi_{table}")
    return url


@pytest.fixture
def make(url) -> Iterator[Callable[..., Ledger]]:
    """Answer how to make one more ledger in that database."""
    made: list[Ledger] = []

    def make_(*keys: str, **more: Any) -> Ledger:
        made.append(make_ledger(url, *keys, **more))
        return made[-1]

    yield make_
    for ledger in made:
        ledger.close()


@pytest.fixture
def open_ledger(make) -> Callable[..., Ledger]:
    """Likewise, and opened."""

    def open_(*keys: str, **more: Any) -> Ledger:
        ledger = make(*keys, **more)
        ledger.open()
        return ledger

    return open_


@pytest.fixture
def ledger(open_ledger) -> Ledger:
    return open_ledger()
