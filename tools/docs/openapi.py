"""``python -m tools.docs.openapi`` writes the OpenAPI document of the default settings to ``exporter/openapi.json``."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from tests.control.access import control_settings

from celerymeter.control.app import create_app, document, text
from celerymeter.control.parts import build

COMMITTED = Path(__file__).parents[2] / "exporter" / "openapi.json"


def main() -> None:
    """Write the document."""
    settings = control_settings()
    with TemporaryDirectory() as folder:
        parts = build(settings, Path(folder))
        made = document(create_app(settings, parts))
        parts.store.close()
    COMMITTED.write_text(text(made), encoding="utf-8")


if __name__ == "__main__":
    main()
