"""Reach the app's own PostgreSQL, MySQL or MariaDB, with a bound on every wait.

A frozen server whose kernel still answers is beyond what the drivers bound on PostgreSQL.
"""

import math
from typing import Any, Final

from sqlalchemy import URL, Connection, Engine, create_engine

DRIVERS: Final = {
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
    "mysql": "mysql+pymysql",
    "mariadb": "mariadb+pymysql",
}


def make_server_engine(url: URL, timeout_seconds: float) -> Engine:
    """Answer an engine with few connections, each looked after before it is used again.

    Raises:
        ImportError: The driver is not installed.
    """
    return create_engine(
        url,
        connect_args=_bounds(url, timeout_seconds),
        isolation_level="READ COMMITTED",  # whatever the server's default: the head row locks
        pool_size=1,
        max_overflow=4,
        pool_timeout=timeout_seconds,
        pool_pre_ping=True,
        hide_parameters=True,
    )


def bound_statements(connection: Connection, timeout_seconds: float) -> None:
    """Bound the statements of this transaction, where the connection does not do so itself."""
    if connection.dialect.name == "postgresql":
        # LOCAL: behind a pooler the session is somebody else's next.
        milliseconds = math.ceil(timeout_seconds * 1000)
        connection.exec_driver_sql(f"SET LOCAL statement_timeout = {milliseconds}")


def _bounds(url: URL, timeout_seconds: float) -> dict[str, Any]:
    seconds = math.ceil(timeout_seconds)
    if url.get_backend_name() == "postgresql":
        return {
            "connect_timeout": seconds,
            "tcp_user_timeout": math.ceil(timeout_seconds * 1000),
            "prepare_threshold": None,  # prepared statements do not survive a pooler
        }
    return {
        "connect_timeout": seconds,
        "read_timeout": seconds,
        "write_timeout": seconds,
        "init_command": f"SET SESSION innodb_lock_wait_timeout = {seconds}",
    }
