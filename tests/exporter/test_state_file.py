"""The file that an exporter continues from: whole at any time, one process at a time, section by section."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import msgspec
import pytest

from celerymeter.errors import SettingsError, StateError
from celerymeter.exporter.state_file import StateFile


class Numbers:
    """A part of the exporter with something to keep."""

    def __init__(self, *numbers: int) -> None:
        self.numbers = list(numbers)

    def dump(self) -> object:
        """Return its numbers."""
        return self.numbers

    def load(self, saved: msgspec.Raw) -> None:
        """Continue with that."""
        self.numbers += msgspec.json.decode(saved, type=list[int])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the path of the file."""
    return tmp_path / "state.json"


def save(path: Path, **parts: Numbers) -> None:
    """Write the state file as a process does that ends."""
    file = StateFile(path)
    for name, part in parts.items():
        file.add(name, dump=part.dump, load=part.load)
    file.restore()
    file.save()
    file.close()


def test_every_section_continues(path: Path) -> None:
    save(path, a=Numbers(1), b=Numbers(2, 3))
    a, b = Numbers(), Numbers()
    save(path, a=a, b=b)
    assert (a.numbers, b.numbers) == ([1], [2, 3])
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_section_of_another_release_is_kept(path: Path) -> None:
    save(path, a=Numbers(1), later=Numbers(7))
    save(path, a=Numbers())
    later = Numbers()
    save(path, later=later)
    assert later.numbers == [7]


def test_a_section_that_cannot_be_used_starts_anew_alone(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.write_text(json.dumps({"version": 1, "saved_at": 1.0, "sections": {"a": {"not": "numbers"}, "b": [2]}}))
    path.chmod(0o600)
    a, b = Numbers(), Numbers()
    save(path, a=a, b=b)
    assert (a.numbers, b.numbers) == ([], [2])
    assert "the section a cannot be used and starts anew" in caplog.text


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"version": 2, "saved_at": 1, "sections": {}}', b"\xff\x00"])
def test_a_file_that_cannot_be_used_is_put_aside(path: Path, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    path.write_bytes(content)
    path.chmod(0o600)
    save(path, a=Numbers(1))
    assert path.with_name("state.json.unusable").read_bytes() == content
    assert json.loads(path.read_bytes())["sections"] == {"a": [1]}
    assert "cannot be used" in caplog.text


def test_two_exporters_do_not_share_it(path: Path) -> None:
    first = StateFile(path)
    with pytest.raises(SettingsError, match="another exporter uses"):
        StateFile(path)
    first.close()
    StateFile(path).close()


def test_its_folder_must_exist_and_be_ours(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="there is no folder"):
        StateFile(tmp_path / "nowhere" / "state.json")
    everybodys = tmp_path / "everybodys"
    everybodys.mkdir()
    everybodys.chmod(0o777)
    with pytest.raises(SettingsError, match="everybody may write"):
        StateFile(everybodys / "state.json")


def test_what_a_killed_one_had_begun_to_save_is_removed(path: Path) -> None:
    """Each would leave a draft under a name of its own."""
    draft = path.with_name(".state.json.12345.part")
    draft.write_text("{")
    StateFile(path).close()
    assert not draft.exists()


def test_a_full_disk_leaves_the_old_file_and_is_logged_once(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save(path, a=Numbers(1))
    before = path.read_bytes()
    file = StateFile(path)
    draft = path.with_name(f".state.json.{os.getpid()}.part")
    draft.mkdir()  # so that the new one cannot be written, not even by root
    file.add("a", dump=Numbers(2).dump, load=Numbers().load)
    with pytest.raises(StateError, match="cannot write"):
        file.save()
    with caplog.at_level(logging.WARNING):
        file.save_or_log()
        file.save_or_log()
    draft.rmdir()
    file.save_or_log()
    file.close()
    assert [record.message for record in caplog.records if "writ" in record.message] == [
        f"cannot write {path}: Is a directory",
        f"{path} can be written again",
    ]
    assert before != path.read_bytes()
