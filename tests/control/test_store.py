"""The state directory: local, writable, durable, shared."""

from __future__ import annotations

import os
import re
import socket
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from celerymeter.control.store import (
    DATABASE,
    NETWORK,
    Store,
    locked,
    mounted_type,
    network_filesystem,
    prepare_folder,
    write_secret_once,
)
from celerymeter.errors import SettingsError, StateError

MOUNTS = [
    r"22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw",
    r"30 22 0:26 / /srv rw,relatime - nfs4 server:/export rw",
    r"31 30 0:27 / /srv/local rw - xfs /dev/sdb rw",
    r"32 22 0:28 / /mnt/with\040space rw shared:5 master:1 - cifs //server/share rw",
    r"33 22 0:29 / /home rw - ext4 /dev/sdc rw",
    r"34 22 0:30 / /home rw - fuse.sshfs me@host: rw",
]


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/var/lib", "ext4"),
        ("/srv/state", "nfs4"),
        ("/srv", "nfs4"),
        ("/srvx", "ext4"),
        ("/srv/local/state", "xfs"),
        ("/mnt/with space/state", "cifs"),
        ("/home/me", "fuse.sshfs"),
    ],
)
def test_the_innermost_mount_tells_the_file_system(path: str, kind: str) -> None:
    """Of two on one point the later one covers the other."""
    assert mounted_type(MOUNTS, Path(path)) == kind


def test_network_file_systems_are_known_by_name() -> None:
    """Those that people mount, and not this test's own folder."""
    assert {"nfs4", "cifs", "fuse.sshfs", "9p"} <= NETWORK
    assert network_filesystem(Path("/proc")) is None


def test_a_network_file_system_is_refused(tmp_path: Path) -> None:
    """Its locks cannot be trusted."""
    table = tmp_path / "mountinfo"
    table.write_text(f"30 22 0:26 / {tmp_path} rw,relatime - nfs4 server:/export rw\n")
    with pytest.raises(SettingsError, match=r"network file system \(nfs4\)"):
        prepare_folder(tmp_path / "state", mounts=table)


@pytest.mark.parametrize("broken", ["a file", "a database that is none", "a newer one"])
def test_what_cannot_be_used_is_refused_in_one_line(tmp_path: Path, broken: str) -> None:
    """At the start, naming the setting."""
    folder = tmp_path / "state"
    if broken == "a file":
        folder.write_text("x")
    elif broken == "a database that is none":
        folder.mkdir()
        (folder / DATABASE).write_bytes(b"no database" * 1000)
    else:
        store = Store(folder)
        with store.write() as connection:
            connection.execute("PRAGMA user_version = 99")
        store.close()
    with pytest.raises(SettingsError, match="--state-dir"):
        Store(folder)


def test_the_state_is_its_owners_alone(tmp_path: Path) -> None:
    """Folder and files."""
    store = Store(tmp_path / "state")
    store.declare("CREATE TABLE IF NOT EXISTS thing (x)")
    modes = [(tmp_path / "state").stat().st_mode] + [path.stat().st_mode for path in (tmp_path / "state").iterdir()]
    assert [mode & 0o077 for mode in modes] == [0] * 4
    store.close()


def _insert(connection: sqlite3.Connection, *tables: str) -> None:
    for table in tables:
        connection.execute(f"INSERT INTO {table} VALUES (1)")


def test_a_block_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """All of it or none, and the next block works."""
    store = Store(tmp_path)
    store.declare("CREATE TABLE IF NOT EXISTS thing (x)")
    with pytest.raises(StateError), store.write() as connection:
        _insert(connection, "thing", "nowhere")
    with store.write() as connection:
        connection.execute("INSERT INTO thing VALUES (2)")
    assert [row["x"] for row in store.read("SELECT x FROM thing")] == [2]
    store.close()


def test_a_full_disk_is_an_error_that_passes(tmp_path: Path) -> None:
    """Once there is room again, writing works again."""
    store = Store(tmp_path)
    store.declare("CREATE TABLE IF NOT EXISTS thing (x)")
    (pages,) = store._writer.execute("PRAGMA page_count").fetchone()
    store._writer.execute(f"PRAGMA max_page_count = {pages + 1}")
    with pytest.raises(StateError, match="full"), store.write() as connection:
        connection.execute(f"INSERT INTO thing VALUES (zeroblob({100 * 4096}))")
    store._writer.execute(f"PRAGMA max_page_count = {pages + 1000}")
    with store.write() as connection:
        connection.execute(f"INSERT INTO thing VALUES (zeroblob({100 * 4096}))")
    assert len(store.read("SELECT x FROM thing")) == 1
    store.close()


def test_errors_of_the_database_are_ours(tmp_path: Path) -> None:
    """Callers catch `StateError`, not sqlite3's."""
    store = Store(tmp_path)
    with pytest.raises(StateError), store.write() as connection:
        connection.execute("INSERT INTO nowhere VALUES (1)")
    with pytest.raises(StateError):
        store.read("SELECT * FROM nowhere")
    store.close()


def test_of_two_that_make_a_secret_at_once_one_wins(tmp_path: Path) -> None:
    """Both then hold the same."""
    assert {write_secret_once(tmp_path / "key", secret) for secret in (b"first", b"second")} == {b"first"}
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_one_process_has_a_state_directory(tmp_path: Path) -> None:
    """The next is refused with the pid and the host of the first; once that has ended, it may have it."""
    holder = f"pid {os.getpid()} on {re.escape(socket.gethostname())} since 20"
    with locked(tmp_path), pytest.raises(SettingsError, match=holder), locked(tmp_path, wait=0):
        pass
    with locked(tmp_path, wait=0):
        pass


def test_a_process_waits_for_one_that_is_ending(tmp_path: Path) -> None:
    """The worker of a process that was killed ends a little later."""
    with ThreadPoolExecutor(1) as pool:
        with locked(tmp_path):
            second = pool.submit(_lock_once, tmp_path)
            with pytest.raises(TimeoutError):
                second.result(timeout=0.3)
        second.result(timeout=5)


def _lock_once(folder: Path) -> None:
    with locked(folder):
        pass
