"""The exporter: reader and pollers in, one page out. The composition root is `celerymeter.exporter.service`."""

from celerymeter.exporter.service import run

__all__ = ["run"]
