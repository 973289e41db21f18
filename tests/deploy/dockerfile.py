"""exporter/Dockerfile and .dockerignore, parsed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "exporter" / "Dockerfile"
IGNORE = ROOT / ".dockerignore"


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction: ``RUN`` and what follows it."""

    keyword: str
    rest: str

    @property
    def words(self) -> list[str]:
        """Its arguments; of the form without a shell those of the JSON list."""
        return list(json.loads(self.rest)) if self.rest.startswith("[") else self.rest.split()


def instructions() -> list[Instruction]:
    """Every instruction in order, with continued lines joined and comments left out."""
    text = re.sub(r"^\s*#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [Instruction(*line.split(maxsplit=1)) for line in lines if line.strip()]


def last_stage() -> dict[str, Instruction]:
    """The instructions of the image that is shipped; of equal ones the last."""
    found = instructions()
    start = max(index for index, each in enumerate(found) if each.keyword == "FROM")
    return {each.keyword: each for each in found[start:]}


def copied() -> set[str]:
    """Return the paths that are copied out of the build context."""
    copies = [each.words for each in instructions() if each.keyword == "COPY" and not each.words[0].startswith("--")]
    return {source for *sources, _ in copies for source in sources}


def allowed() -> set[str]:
    """Return the paths that .dockerignore lets into the build context; the rest of it takes things out."""
    lines = [line for line in IGNORE.read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    return {line[1:] for line in lines if line.startswith("!")}


def build_context(target: Path) -> Path:
    """The build context of this checkout, without what git ignores, laid out in ``target``."""
    argv = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *sorted(allowed())]
    listed = subprocess.run(argv, cwd=ROOT, check=True, capture_output=True, text=True)
    for name in listed.stdout.splitlines():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target / name)
    return target
