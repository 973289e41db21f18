"""The settings for batch revokes: Redis and RabbitMQ, and the releases of Celery that `make celeries` installs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from celerymeter.errors import ServerMissing

CACHE: Final = Path(__file__).parents[2] / ".cache"
OTHERS: Final = ("5.4", "5.6")
INSTALLED: Final = "installed"


@dataclass(frozen=True, slots=True)
class Setting:
    """A kind of broker, the Celery of the API and of its workers, and whether these aggregate."""

    broker: str = "redis"
    release: str = INSTALLED
    aggregate: bool = False

    def environment(self) -> Mapping[str, str]:
        """Variables under which Python finds that Celery first; raises `ServerMissing` where there is none."""
        if self.release == INSTALLED:
            return {}
        folder = CACHE / f"celery-{self.release}"
        if not (folder / ".installed").exists():
            raise ServerMissing(f"no Celery {self.release} in {folder}: run `make celeries`")
        return {"PYTHONPATH": str(folder)}


REDIS: Final = Setting()


def _param(setting: Setting) -> object:
    marks = () if setting == REDIS else (pytest.mark.slow,)
    mode = "-aggregate" if setting.aggregate else ""
    return pytest.param(setting, marks=marks, id=f"{setting.broker}-{setting.release}{mode}")


EVERYWHERE: Final = [
    *(_param(Setting(broker, release)) for broker in ("redis", "rabbitmq") for release in (INSTALLED, *OTHERS)),
    *(_param(Setting(broker, aggregate=True)) for broker in ("redis", "rabbitmq")),
]
"""Redis with the installed Celery always, the others with ``-m slow``."""
