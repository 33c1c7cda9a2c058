"""Run a real PostgreSQL and a real MariaDB, each alone in a directory, on a socket file."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

WAIT = 60  # seconds after which a server that does not start fails the tests


def find_postgresql() -> Path | None:
    """Answer the directory of the newest PostgreSQL's programs."""
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
    found = shutil.which("pg_ctl") or (places and places[-1])
    return Path(found).parent if found else None


@contextmanager
def run_postgresql(programs: Path) -> Iterator[str]:
    """Answer the URL of a server that lives as long as the block."""
    with _home("postgres") as (home, user):
        place = ["-D", str(home / "db")]
        options = f"-k {home} -c listen_addresses='' -c fsync=off"
        log = ["-l", str(home / "log")]
        _run(user, programs / "initdb", *place, "-U", "postgres", "-A", "trust", "-E", "UTF8")
        _run(user, programs / "pg_ctl", *place, *log, "-w", "-o", options, "start")
        try:
            yield f"postgresql://postgres@/postgres?host={home}"
        finally:
            _run(user, programs / "pg_ctl", *place, "-m", "immediate", "stop")


@contextmanager
def run_mariadb() -> Iterator[str]:
    """Likewise."""
    with _home("mysql") as (home, user):
        place, socket = f"--datadir={home}/db", home / "socket"
        normal = "--auth-root-authentication-method=normal"
        _run(user, "mariadb-install-db", "--no-defaults", place, normal, "--skip-test-db")
        server = [
            "mariadbd",
            "--no-defaults",
            place,
            f"--socket={socket}",
            "--skip-networking",
            "--innodb-flush-log-at-trx-commit=0",
        ]
        with (home / "log").open("wb") as log:
            process = subprocess.Popen(server, user=user, stdout=log, stderr=log, cwd=home)
        try:
            client = ["--no-defaults", "-uroot", f"--socket={socket}"]
            _run(user, "mariadb-admin", *client, f"--wait={WAIT}", "create", "ledger")
            yield f"mysql://root@localhost/ledger?unix_socket={socket}"
        finally:
            process.terminate()
            process.wait(WAIT)


@contextmanager
def _home(name: str) -> Iterator[tuple[Path, str | None]]:
    # Neither server runs as root.
    user = None
    with tempfile.TemporaryDirectory(prefix="mp-", ignore_cleanup_errors=True) as directory:
        with suppress(KeyError):
            user = pwd.getpwnam(name).pw_name if os.geteuid() == 0 else None
        if user:
            shutil.chown(directory, user)
        yield Path(directory), user


def _run(user: str | None, *command: str | Path) -> None:
    silent = subprocess.DEVNULL
    subprocess.run(
        command, user=user, stdout=silent, stderr=silent, timeout=WAIT, cwd="/", check=True
    )
