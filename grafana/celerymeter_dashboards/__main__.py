"""Write every dashboard to ``grafana/dashboards``, or to the folder given as the only argument."""

from __future__ import annotations

import sys
from pathlib import Path

from celerymeter_dashboards import exporter, overview, queues, schedules, tasks, workers
from celerymeter_dashboards.document import text

DASHBOARDS = (
    overview.dashboard,
    tasks.dashboard,
    queues.dashboard,
    workers.dashboard,
    schedules.dashboard,
    exporter.dashboard,
)
FOLDER = Path(__file__).parents[1] / "dashboards"


def write(folder: Path) -> list[Path]:
    """Write the files that changed and return their paths."""
    written = []
    for make in DASHBOARDS:
        document = make()
        path, made = folder / f"{document.uid}.json", text(document)
        if not path.exists() or path.read_text() != made:
            path.write_text(made)
            written.append(path)
    return written


def main() -> None:
    """Write the files that changed and name them."""
    for path in write(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER):
        print(path.relative_to(FOLDER.parents[1]) if path.is_relative_to(FOLDER) else path, "written")


if __name__ == "__main__":
    main()
