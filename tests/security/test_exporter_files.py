"""Files with secrets, and files that are written: who else may change or read them, and links."""

from __future__ import annotations

import logging
import os
import resource
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.httpd.conftest import Authority

from celerymeter.cli.bundle import command as bundle
from celerymeter.cli.report import _write
from celerymeter.errors import SettingsError
from celerymeter.files import write_new
from celerymeter.httpd import MetricsServer, WebConfig, load_web_config
from celerymeter.httpd.web_config import TlsConfig

USERS = "basic_auth_users: {alice: $2b$04$abcdefghijklmnopqrstuuO0CnfWg.cXHbU1QE7Tr1QYoDOn2rGdW}\n"


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user of the machine reaches, as /etc is; pytest's own are closed to others."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        folder.chmod(0o755)
        yield folder


@pytest.mark.parametrize("mode", [0o666, 0o606, 0o622, 0o602])
def test_a_web_config_that_everybody_may_write_is_refused(open_folder: Path, mode: int) -> None:
    """Anybody who may write it chooses the passwords."""
    path = open_folder / "web.yml"
    path.write_text(USERS)
    path.chmod(mode)
    if not mode & 0o002:
        assert load_web_config(path).users
        return
    with pytest.raises(SettingsError, match="everybody may write"):
        load_web_config(path)


@pytest.mark.parametrize(("mode", "warns"), [(0o644, True), (0o604, True), (0o640, False), (0o600, False)])
def test_password_hashes_that_everybody_may_read_are_a_warning(
    open_folder: Path, caplog: pytest.LogCaptureFixture, mode: int, warns: bool
) -> None:
    """They can be guessed at elsewhere."""
    path = open_folder / "web.yml"
    path.write_text(USERS)
    path.chmod(mode)
    with caplog.at_level(logging.WARNING):
        assert load_web_config(path).users
    assert ("everybody may read" in caplog.text) == warns


@pytest.mark.parametrize(
    "content", [b"\xff\xfe", b"a: b\n" * 20_000, b"- a", b"&a [*a, *a]", b"!!python/name:os.system x"]
)
def test_a_web_config_that_is_none_is_one_line(open_folder: Path, content: bytes) -> None:
    """Nothing in it is run."""
    path = open_folder / "web.yml"
    path.write_bytes(content)
    with pytest.raises(SettingsError):
        load_web_config(path)


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o602, 0o666])
def test_a_private_key_of_everybody_is_refused(authority: Authority, open_folder: Path, mode: int) -> None:
    """The server does not start with it, and says what to do."""
    certificate, key = authority.issue(f"files{mode}")
    mine = open_folder / "server.key"
    mine.write_bytes(key.read_bytes())
    mine.chmod(mode)
    config = WebConfig(tls=TlsConfig(certificate, mine))
    with pytest.raises(SettingsError, match=r"everybody may (read|write) .*chmod o-r"):
        MetricsServer("127.0.0.1:0", page=list, healthy=str, ready=str, web_config=config)
    mine.chmod(0o600)
    MetricsServer("127.0.0.1:0", page=list, healthy=str, ready=str, web_config=config)


@pytest.mark.parametrize("draft", [".report.json.part", ".report.json.{pid}.part"])
def test_the_draft_of_a_report_follows_no_link(tmp_path: Path, draft: str) -> None:
    """One that somebody put there in advance, in a folder like /tmp."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / draft.format(pid=os.getpid())).symlink_to(victim)
    _write(b"report", tmp_path / "report.json")
    assert victim.read_text() == "precious"
    assert (tmp_path / "report.json").read_text() == "report"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes links of another user")
def test_a_report_follows_no_link_of_another_user(tmp_path: Path) -> None:
    """Nor does it replace it."""
    victim, link = tmp_path / "victim", tmp_path / "report.json"
    victim.write_text("precious")
    link.symlink_to(victim)
    os.chown(link, 65534, 65534, follow_symlinks=False)
    with pytest.raises(SettingsError, match="a link of another user"):
        _write(b"report", link)
    assert victim.read_text() == "precious"


def test_an_export_follows_no_link(tmp_path: Path) -> None:
    """With --force either."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    target = tmp_path / "out"
    (target / "alerts").mkdir(parents=True)
    (target / "alerts" / "README.md").symlink_to(victim)
    bundle.main(["export", str(target), "--force"], standalone_mode=False)
    assert victim.read_text() == "precious"
    assert "Alerts" in (target / "alerts" / "README.md").read_text()


def test_a_file_that_cannot_be_written_leaves_no_draft(tmp_path: Path) -> None:
    """For example because its place is a folder."""
    (tmp_path / "out").mkdir()
    with pytest.raises(OSError, match="out"):
        write_new(tmp_path / "out", b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_full_disk_leaves_no_draft(tmp_path: Path) -> None:
    """The old file stays. A limit of the size of files is as good as a full disk."""
    path = tmp_path / "out"
    path.write_bytes(b"old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, before[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            write_new(path, b"x" * 4096)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert [(each.name, each.read_bytes()) for each in tmp_path.iterdir()] == [("out", b"old")]
