"""Files of the control API that somebody else may write, read or replace are refused, and so are weak keys."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from celerymeter.control.audit.offline import read_rows, verify
from celerymeter.control.audit.trail import KEY_FILE, audit_key
from celerymeter.control.keys import check_strength
from celerymeter.control.store import DATABASE, LOCK, Store, locked, prepare_folder
from celerymeter.errors import SettingsError
from celerymeter.options import read_secret

KEY = b"the key of these tests' trails, long enough"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A state directory as the API makes it."""
    Store(tmp_path / "state").close()
    return tmp_path / "state"


@pytest.fixture
def reachable(tmp_path: Path) -> Iterator[Path]:
    """A folder that other users may enter; pytest's own is below one that they may not."""
    opened = [folder for folder in (tmp_path, *tmp_path.parents) if not folder.stat().st_mode & stat.S_IXOTH]
    modes = {folder: folder.stat().st_mode for folder in opened}
    for folder in opened:
        folder.chmod(0o711)
    yield tmp_path
    for folder, mode in modes.items():
        folder.chmod(stat.S_IMODE(mode))


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o702, 0o707, 0o733])
def test_a_folder_that_everybody_may_write_is_refused(tmp_path: Path, mode: int) -> None:
    """They could replace what is in it; the message says what to do."""
    tmp_path.chmod(mode)
    with pytest.raises(SettingsError, match=r"everybody may write there.*chmod o-w"):
        prepare_folder(tmp_path)


@pytest.mark.parametrize("mode", [0o700, 0o755, 0o2770, 0o2775])
def test_other_folders_are_accepted(tmp_path: Path, mode: int) -> None:
    """Also those that a group may write, as Kubernetes makes every volume."""
    tmp_path.chmod(mode)
    prepare_folder(tmp_path)


@pytest.mark.parametrize("name", [DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm", f"{DATABASE}-journal"])
@pytest.mark.parametrize("target", ["elsewhere", "missing", "self", "/dev/null"])
def test_a_link_in_place_of_the_database_is_refused(folder: Path, name: str, target: str) -> None:
    """A link with a target is refused, and so is one without."""
    (folder / "elsewhere").touch()
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to({"self": name}.get(target, target))
    with pytest.raises(SettingsError, match=f"{name} is a link"):
        Store(folder)


@pytest.mark.parametrize("name", [LOCK, KEY_FILE])
def test_a_link_in_place_of_the_lock_or_the_key_is_refused(folder: Path, tmp_path: Path, name: str) -> None:
    """Nothing is written, and no key is read, through a link."""
    target = tmp_path / "elsewhere"
    target.write_bytes(KEY)
    (folder / name).symlink_to(target)
    store = Store(folder)
    with pytest.raises(SettingsError, match=f"{name} is a link"), locked(folder):
        audit_key(store, None)
    store.close()
    assert target.read_bytes() == KEY


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_is_refused(folder: Path, make: Callable[[Path], None]) -> None:
    """A pipe would let the program wait for ever."""
    (folder / DATABASE).unlink()
    make(folder / DATABASE)
    with pytest.raises(SettingsError, match=DATABASE):
        Store(folder)


@pytest.mark.parametrize("mode", [0o602, 0o606, 0o666, 0o777])
def test_a_database_that_everybody_may_write_is_refused(folder: Path, mode: int) -> None:
    """At the start, and by the commands that read it."""
    (folder / DATABASE).chmod(mode)
    with pytest.raises(SettingsError, match=r"everybody may write"):
        Store(folder)
    with pytest.raises(SettingsError, match=r"everybody may write"):
        list(read_rows(folder))


@pytest.mark.parametrize("mode", [0o604, 0o644, 0o602, 0o666])
def test_an_audit_key_that_is_not_secret_is_refused(folder: Path, mode: int) -> None:
    """By the program and by `audit verify`."""
    (folder / KEY_FILE).write_bytes(KEY)
    (folder / KEY_FILE).chmod(mode)
    store = Store(folder)
    with pytest.raises(SettingsError, match=r"everybody may (read|write)"):
        audit_key(store, None)
    store.close()
    with pytest.raises(SettingsError, match=r"everybody may (read|write)"):
        verify(folder, key=None, head=None)


@pytest.mark.parametrize("key", [b"", b"k", b"k" * 31, b"k" * 32, b"\0" * 64, b"changeme" * 4])
def test_a_weak_audit_key_is_refused(folder: Path, key: bytes) -> None:
    """In the state directory, where it was silently taken, and in a file of the operator."""
    (folder / KEY_FILE).write_bytes(key)
    (folder / KEY_FILE).chmod(0o600)
    store = Store(folder)
    for given in (None, key):
        with pytest.raises(SettingsError, match=r"32 bytes|too easy to guess"):
            audit_key(store, given)
    store.close()
    with pytest.raises(SettingsError, match=r"32 bytes|too easy to guess"):
        verify(folder, key=None, head=None)


@pytest.mark.parametrize(
    "secret",
    [
        b"a" * 32,
        b"password" * 4,
        b"0123456789" * 4,
        b"abcdefghijklmnopqrstuvwxyz012345",
        b"password1password2password3password4",
        b"secret-secret-secret-secret-secret",
        bytes(range(64)),
        b"ab" * 500,
    ],
)
def test_a_long_secret_that_is_easily_guessed_is_refused(secret: bytes) -> None:
    """Its length alone says nothing; what `openssl rand` makes always passes."""
    with pytest.raises(SettingsError, match="too easy to guess"):
        check_strength(secret, at_least=32, option="--jwt-secret-file")
    for made in (os.urandom(32), os.urandom(16).hex().encode(), os.urandom(32).hex().encode()):
        assert check_strength(made, at_least=32, option="--jwt-secret-file") == made


@pytest.mark.parametrize("mode", [0o604, 0o644, 0o602, 0o666])
def test_a_secret_that_everybody_may_read_or_write_is_refused(reachable: Path, mode: int) -> None:
    """The message says what to do."""
    (reachable / "secret").write_bytes(KEY)
    (reachable / "secret").chmod(mode)
    with pytest.raises(SettingsError, match=r"--jwt-secret-file: everybody may (read|write) .*chmod o-"):
        read_secret(reachable / "secret", flag="--jwt-secret-file")


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o660, 0o400])
def test_other_secrets_are_accepted(reachable: Path, mode: int) -> None:
    """Kubernetes and Docker give them to a group; links, as Kubernetes makes them, are followed."""
    (reachable / "secret").write_bytes(KEY)
    (reachable / "secret").chmod(mode)
    (reachable / "link").symlink_to("secret")
    assert read_secret(reachable / "link", flag="--jwt-secret-file") == KEY.decode()


def test_a_secret_that_nobody_else_can_reach_may_have_any_mode_to_read(reachable: Path) -> None:
    """It lies in a folder of its owner alone; a public key is no secret anyway."""
    folder = reachable / "mine"
    folder.mkdir(mode=0o700)
    for path in (folder / "secret", reachable / "key.pem"):
        path.write_bytes(KEY)
        path.chmod(0o644)
    assert read_secret(folder / "secret", flag="--jwt-secret-file") == KEY.decode()
    assert read_secret(reachable / "key.pem", flag="--jwt-public-key-file", private=False) == KEY.decode()


def test_a_secret_file_without_an_end_is_read_no_further_than_is_needed() -> None:
    """/dev/zero would fill the memory."""
    with pytest.raises(SettingsError, match="too long"):
        read_secret(Path("/dev/zero"), flag="--jwt-secret-file")
