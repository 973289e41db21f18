"""Coverage-guided fuzzing of the parsers: `python -m tools.fuzz [TARGET ...] [--minutes 10] [--folder FOLDER]`.

Each target is a test of `tests/security/test_fuzz.py`. libFuzzer (`pip install atheris`) mutates the choices that
hypothesis makes, and keeps what reaches new code. A target runs in a process of its own, one after the other; the
command prints what each one executed, and fails if one found anything. A finding is shrunk by running its test again.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import subprocess
import sys
import time
from pathlib import Path

TARGETS = {
    "events": "test_events",
    "envelopes": "test_envelopes",
    "replies": "test_replies",
    "heads": "test_heads",
    "web_config": "test_web_configs",
    "bindings": "test_bindings_of_any_bytes",
    "patterns": "test_bindings_as_kombu_has_them",
    "amqp": "test_amqp",
    "management": "test_management_api",
    "state_file": "test_state_files",
    "totals": "test_totals",
    "pushes": "test_pushes",
    "messages": "test_ends_of_messages",
    "credentials": "test_credentials",
}
MAX_CHOICES = 4096
"""Bytes of choices for one input."""
MAX_MEMORY = 2048
"""MB."""
LONGEST = 120
"""Seconds that one input may take; libFuzzer counts those too in which a busy machine does something else."""


def fuzz(target: str, options: list[str]) -> None:
    """Fuzz one target in this process, which libFuzzer ends."""
    import atheris

    with atheris.instrument_imports(include=["celerymeter", "amqp", "kombu.utils"]):
        from tests.security import test_fuzz
    logging.disable()
    test = getattr(test_fuzz, TARGETS[target])
    atheris.Setup([target, *options], test.hypothesis.fuzz_one_input)
    atheris.Fuzz()


def run(target: str, *, minutes: float, folder: Path) -> bool:
    """Fuzz one target in another process and print the outcome; return whether nothing was found."""
    corpus, output = folder / target, folder / f"{target}.log"
    corpus.mkdir(parents=True, exist_ok=True)
    options = [
        str(corpus),
        f"-max_total_time={minutes * 60:.0f}",
        f"-max_len={MAX_CHOICES}",
        f"-timeout={LONGEST}",
        f"-rss_limit_mb={MAX_MEMORY}",
        f"-artifact_prefix={folder}/{target}-",
        "-len_control=0",
        "-print_final_stats=1",
    ]
    began, before = time.monotonic(), os.times()
    with output.open("w") as log:
        command = [sys.executable, "-m", "tools.fuzz", "--child", target, *options]
        code = subprocess.run(command, stdout=log, stderr=log, check=False).returncode
    after, text = os.times(), output.read_text(errors="replace")
    executed = re.search(r"stat::number_of_executed_units:\s*(\d+)", text)
    print(
        f"{target}: {executed.group(1) if executed else '?'} inputs in {(time.monotonic() - began) / 60:.1f} min"
        f" ({(after.children_user - before.children_user) / 60:.1f} min of CPU),"
        f" {len(list(corpus.iterdir()))} kept for new code: {'nothing found' if code == 0 else f'FOUND, see {output}'}",
        flush=True,
    )
    return code == 0


def main() -> None:
    """Run from the command line."""
    if sys.argv[1:2] == ["--child"]:
        fuzz(sys.argv[2], sys.argv[3:])
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", choices=[[], *TARGETS], help=", ".join(TARGETS))
    parser.add_argument("--minutes", type=float, default=10.0, help="for each target")
    parser.add_argument(
        "--folder", type=Path, default=Path(".fuzz"), help="for logs, findings and what reached new code"
    )
    chosen = parser.parse_args()
    fine = [run(target, minutes=chosen.minutes, folder=chosen.folder) for target in chosen.targets or TARGETS]
    sys.exit(0 if all(fine) else 1)


if __name__ == "__main__":
    main()
