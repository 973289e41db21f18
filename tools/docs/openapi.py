"""``python -m tools.docs.openapi`` writes the OpenAPI document of the default settings to ``exporter/openapi.json``."""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.control.access import control_settings

from celerymeter.control.app import create_app, document, text
from celerymeter.control.parts import build

COMMITTED = Path(__file__).parents[2] / "exporter" / "openapi.json"


def main() -> None:
    """Write the document if it changed."""
    settings = control_settings()
    with TemporaryDirectory() as folder:
        parts = build(settings, Path(folder))
        made = text(document(create_app(settings, parts)))
        parts.store.close()
    if made != COMMITTED.read_text(encoding="utf-8"):
        COMMITTED.write_text(made, encoding="utf-8")
        sys.stdout.write("exporter/openapi.json written\n")


if __name__ == "__main__":
    main()
