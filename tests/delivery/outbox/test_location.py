import errno
import os
import stat

import pytest

from mp_asgi.delivery.outbox import location
from mp_asgi.delivery.outbox.location import find_location, journal_directory, project_name
from mp_asgi.errors import OutboxUnavailable
from tests.support import make_settings


def find(environ=None, **settings):
    return find_location(make_settings(**{"outbox": "sqlite", **settings}), environ or {})


def problem_of(directory):
    """Answer why the directory cannot be used; nothing if it can."""
    try:
        find(state_directory=str(directory)).prepare()
    except OutboxUnavailable as error:
        return str(error)
    return ""


@pytest.fixture
def mounts(monkeypatch, tmp_path):
    """Answer what makes the kernel's list of file systems be another."""

    def write(*lines):
        path = tmp_path / "mounts"
        path.write_text("".join(f"{line} rw 0 0\n" for line in lines))
        monkeypatch.setattr(location, "MOUNTS", path)

    return write


@pytest.mark.parametrize(
    ("settings", "environ", "expected"),
    [
        pytest.param(
            {"state_directory": "/own"},
            {"STATE_DIRECTORY": "/systemd"},
            ("MP_ASGI_STATE_DIRECTORY", "/own"),
            id="the-setting-first",
        ),
        pytest.param(
            {},
            {"STATE_DIRECTORY": "/one:/two", "XDG_STATE_HOME": "/xdg"},
            ("STATE_DIRECTORY", "/one"),
            id="the-first-of-systemd",
        ),
        pytest.param(
            {},
            {"XDG_STATE_HOME": "/xdg", "LOCALAPPDATA": "/windows", "HOME": "/"},
            ("XDG_STATE_HOME", "/xdg/mp-asgi"),
            id="xdg",
        ),
        pytest.param(
            {},
            {"XDG_STATE_HOME": "", "LOCALAPPDATA": "/windows", "HOME": "/"},
            ("LOCALAPPDATA", "/windows/mp-asgi"),
            id="windows",
        ),
        pytest.param(
            {},
            {"XDG_STATE_HOME": "relative", "HOME": "/"},
            ("HOME", "/.local/state/mp-asgi"),
            id="home-as-xdg-is-relative",
        ),
        pytest.param(
            {},
            {"STATE_DIRECTORY": "relative", "XDG_STATE_HOME": "/xdg"},
            ("XDG_STATE_HOME", "/xdg/mp-asgi"),
            id="xdg-as-systemds-is-relative",
        ),
    ],
)
def test_the_most_explicit_directory_wins(settings, environ, expected):
    found = find(environ, **settings)

    assert (found.variable, str(found.outbox.parent)) == expected


def test_without_an_environment_the_processs_own_counts(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))

    found = find_location(make_settings(outbox="sqlite"))

    assert found.outbox.parent == tmp_path / "mp-asgi"


@pytest.mark.parametrize(
    ("environ", "reason"),
    [
        pytest.param({}, "HOME is not set", id="none"),
        pytest.param({"HOME": "relative"}, "HOME is not set", id="relative"),
        pytest.param({"HOME": "/nonexistent"}, "/nonexistent (from HOME) does not", id="gone"),
    ],
)
def test_who_has_no_home_is_told_what_to_set(environ, reason):
    with pytest.raises(OutboxUnavailable) as caught:
        find(environ)

    assert reason in str(caught.value)
    assert "MP_ASGI_STATE_DIRECTORY" in str(caught.value)


def test_every_file_has_the_name_of_its_project(tmp_path):
    settings = make_settings(outbox="sqlite", state_directory=str(tmp_path))
    name = project_name(settings)

    found = find_location(settings, {})

    assert len(name) == 16
    assert int(name, 16)
    assert found.outbox == tmp_path / f"{name}.sqlite3"
    assert found.spool == tmp_path / f"{name}.spool.sqlite3"
    assert found.journals == tmp_path / f"{name}.journals" == journal_directory(settings, {})


@pytest.mark.parametrize(
    "other",
    [
        pytest.param({"token": "0ther"}, id="another-token"),
        pytest.param({"api_host": "http://127.0.0.1:8000"}, id="a-stand-in"),
        pytest.param({"api_host": "notmixpanel.com"}, id="nearly-mixpanels"),
        pytest.param({"api_host": "api.mixpanel.com.example"}, id="below-another"),
    ],
)
def test_another_project_has_another_name(other):
    assert project_name(make_settings(**other)) != project_name(make_settings())


@pytest.mark.parametrize(
    "mended",
    [
        pytest.param({"region": "eu"}, id="region"),
        pytest.param({"api_host": "api-in.mixpanel.com"}, id="host"),
        pytest.param({"api_host": "https://API-EU.mixpanel.com:443/"}, id="url"),
    ],
)
def test_who_mends_the_region_goes_on_with_what_waits(mended):
    assert project_name(make_settings(**mended)) == project_name(make_settings())


def test_a_file_that_is_named_is_used_with_the_others_beside_it(tmp_path):
    found = find(outbox=f"sqlite:///{tmp_path}/mine.db", state_directory="/elsewhere")

    assert found.variable == "MP_ASGI_OUTBOX"
    assert found.outbox == tmp_path / "mine.db"
    assert found.journals.parent == tmp_path


@pytest.mark.parametrize(
    "settings",
    [{"outbox": "sqlite:///here/mine.db"}, {"state_directory": "here"}],
    ids=["file", "directory"],
)
def test_a_relative_path_starts_where_the_process_did(monkeypatch, tmp_path, settings):
    monkeypatch.chdir(tmp_path)
    found = find(**settings)
    monkeypatch.chdir("/")

    assert found.outbox.parent == tmp_path / "here"


@pytest.mark.parametrize(
    "settings",
    [{"outbox": "sqlite:///here/mine.db"}, {"state_directory": "here"}],
    ids=["file", "directory"],
)
def test_a_process_that_goes_elsewhere_stays_with_its_files(monkeypatch, tmp_path, settings):
    monkeypatch.chdir(tmp_path)
    given = make_settings(**{"outbox": "sqlite", **settings})
    monkeypatch.chdir("/")

    assert find_location(given).outbox.parent == tmp_path / "here"


def test_a_directory_is_made_for_its_owner_only_and_left_empty(tmp_path):
    directory = tmp_path / "new" / "state"

    assert problem_of(directory) == ""
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert list(directory.iterdir()) == []


def test_a_directory_that_is_there_keeps_its_mode(tmp_path):
    tmp_path.chmod(0o755)

    assert problem_of(tmp_path) == ""
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


def test_a_file_in_the_place_of_a_directory_is_a_problem(tmp_path):
    (tmp_path / "file").touch()

    problem = problem_of(tmp_path / "file")

    assert problem.startswith(f"{tmp_path}/file (from MP_ASGI_STATE_DIRECTORY) cannot be used: ")
    assert problem.endswith("in MP_ASGI_STATE_DIRECTORY.")


@pytest.mark.parametrize("call", ["mkdir", "tempfile"])
@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES], ids=["read-only", "forbidden"])
def test_a_directory_that_cannot_be_written_is_a_problem(monkeypatch, tmp_path, call, number):
    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    if call == "mkdir":
        monkeypatch.setattr(location.Path, "mkdir", fail)
    else:
        monkeypatch.setattr(location.tempfile, "NamedTemporaryFile", fail)

    assert os.strerror(number) in problem_of(tmp_path)


@pytest.mark.parametrize("mode", [0o777, 0o1777], ids=["open", "sticky"])
def test_a_directory_that_everybody_writes_is_a_problem(tmp_path, mode):
    tmp_path.chmod(mode)

    assert "can be written by everybody" in problem_of(tmp_path)


@pytest.mark.parametrize(
    ("owner", "user", "expected"),
    [
        pytest.param(0, 1000, "", id="root"),
        pytest.param(1000, 1000, "", id="this-user"),
        pytest.param(
            1001, 1000, "belongs to another user (1001; this process is 1000)", id="alien"
        ),
        pytest.param(1001, 0, "belongs to another user (1001; this process is 0)", id="as-root"),
    ],
)
def test_a_directory_belongs_to_this_user_or_to_root(monkeypatch, owner, user, expected):
    monkeypatch.setattr(os, "geteuid", lambda: user)
    found = os.stat_result((stat.S_IFDIR | 0o755, 0, 0, 1, owner, 0, 0, 0, 0, 0))

    assert location._find_danger(found) == expected


def test_whose_a_directory_is_is_told_where_that_may_be_why_it_cannot_be_used(
    monkeypatch, tmp_path
):
    owner = tmp_path.stat().st_uid
    is_own = location._tell_owner(tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)

    told = location._tell_owner(tmp_path)

    assert is_own == ""
    assert told == f" (it belongs to user {owner}; this process is {owner + 1})"


def test_modes_say_nothing_where_nobody_has_a_number(monkeypatch, tmp_path):
    tmp_path.chmod(0o777)
    monkeypatch.delattr(os, "geteuid")

    assert problem_of(tmp_path) == ""


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "fuse.sshfs", "9p", "gpfs", "lustre", "ceph"])
def test_a_network_file_system_is_a_problem(mounts, tmp_path, kind):
    mounts("/dev/root / ext4", f"host:/export {tmp_path} {kind}")

    assert f"network file system ({kind})" in problem_of(tmp_path / "state")


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param(["a / nfs", "b {} ext4"], id="deeper"),
        pytest.param(["b {} ext4", "a / nfs"], id="whatever-the-order"),
        pytest.param(["a {} nfs", "b {} ext4"], id="later"),
        pytest.param(["b / ext4", "a {}2 nfs"], id="beside"),
    ],
)
def test_the_file_system_is_that_of_the_nearest_mount(mounts, tmp_path, lines):
    mounts(*(line.format(tmp_path) for line in lines))

    assert problem_of(tmp_path) == ""


def test_a_mount_with_a_blank_in_its_name_is_found(mounts, tmp_path):
    mounts("b / ext4", rf"a {tmp_path}/a\040blank nfs")

    assert "network" in problem_of(tmp_path / "a blank")


def test_a_link_to_a_network_file_system_is_a_problem(mounts, tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "link").symlink_to("far")
    mounts("b / ext4", f"a {tmp_path}/far nfs")

    assert "network" in problem_of(tmp_path / "link")


def test_where_nobody_lists_file_systems_none_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(location, "MOUNTS", tmp_path / "none")

    assert problem_of(tmp_path) == ""
