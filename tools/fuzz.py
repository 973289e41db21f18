"""Coverage-guided fuzzing of the parsers: `python -m tools.fuzz [TARGET ...] [--minutes 10] [--folder FOLDER]`.

Each target is a test of `tests/security/test_fuzz.py`. libFuzzer (`pip install atheris`) mutates the choices that
hypothesis makes, and keeps what reaches new code. A target runs in processes of its own, one after the other, until
these have used the minutes of CPU; the command prints what each one executed, and fails if one found anything. A
finding is shrunk by running its test again.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import random
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
    "addresses": "test_addresses",
}
MAX_CHOICES = 4096
"""Bytes of choices for one input."""
SEEDS = 200
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
    one = getattr(test_fuzz, TARGETS[target]).hypothesis.fuzz_one_input
    # Choices that are missing are zeros: without them hypothesis would run nothing for an input that is too short.
    atheris.Setup([target, *options], lambda choices: one(choices + bytes(MAX_CHOICES)))
    atheris.Fuzz()


def sow(corpus: Path) -> None:
    """Write choices of any kind to begin with: libFuzzer makes none that are long by itself."""
    corpus.mkdir(parents=True, exist_ok=True)
    for number in range(SEEDS):
        (corpus / f"seed{number}").write_bytes(random.Random(number).randbytes(8 * (number + 1)))


def run(target: str, *, minutes: float, folder: Path) -> bool:
    """Fuzz one target in other processes and print the outcome; return whether nothing was found."""
    corpus, output = folder / target, folder / f"{target}.log"
    sow(corpus)
    began, before, executed, code = time.monotonic(), cpu_of_children(), 0, 0
    output.unlink(missing_ok=True)
    while code == 0 and (left := minutes * 60 - (cpu_of_children() - before)) > 1:
        code, units = run_once(target, corpus, output, seconds=left)
        executed += units
    print(
        f"{target}: {executed} inputs in {(cpu_of_children() - before) / 60:.1f} min of CPU"
        f" ({(time.monotonic() - began) / 60:.1f} min), {len(list(corpus.iterdir())) - SEEDS} kept for new code:"
        f" {'nothing found' if code == 0 else f'FOUND, see {output}'}",
        flush=True,
    )
    return code == 0


def run_once(target: str, corpus: Path, output: Path, *, seconds: float) -> tuple[int, int]:
    """Fuzz for seconds by the clock, of which a busy machine gives only a part; return exit status and inputs."""
    options = [
        str(corpus),
        f"-max_total_time={math.ceil(seconds)}",
        f"-max_len={MAX_CHOICES}",
        f"-timeout={LONGEST}",
        f"-rss_limit_mb={MAX_MEMORY}",
        f"-artifact_prefix={corpus.parent}/{target}-",
        "-len_control=0",
        "-print_final_stats=1",
    ]
    with output.open("a+") as log:
        start = log.tell()
        command = [sys.executable, "-m", "tools.fuzz", "--child", target, *options]
        code = subprocess.run(command, stdout=log, stderr=log, check=False).returncode
        log.seek(start)
        executed = re.search(r"stat::number_of_executed_units:\s*(\d+)", log.read())
    return code, int(executed.group(1)) if executed else 0


def cpu_of_children() -> float:
    """Return the seconds of CPU of all processes that have ended."""
    times = os.times()
    return times.children_user + times.children_system


def main() -> None:
    """Run from the command line."""
    if sys.argv[1:2] == ["--child"]:
        fuzz(sys.argv[2], sys.argv[3:])
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", choices=[[], *TARGETS], help=", ".join(TARGETS))
    parser.add_argument("--minutes", type=float, default=10.0, help="of CPU for each target")
    parser.add_argument(
        "--folder", type=Path, default=Path(".fuzz"), help="for logs, findings and what reached new code"
    )
    chosen = parser.parse_args()
    fine = [run(target, minutes=chosen.minutes, folder=chosen.folder) for target in chosen.targets or TARGETS]
    sys.exit(0 if all(fine) else 1)


if __name__ == "__main__":
    main()
