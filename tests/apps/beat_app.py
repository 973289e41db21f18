"""The Celery application that real beats run in tests, with the hook unless ``CELERYMETER_TEST_HOOK`` is 0.

Its schedule comes as JSON from ``CELERYMETER_TEST_SCHEDULE``: seconds by the name of the entry. All send `tests.add`,
those named ``fail…`` send `tests.fail`. With ``CELERYMETER_TEST_DJANGO``, a file, Django has its database there.
"""

from __future__ import annotations

import json
import os
import select
import time
from pathlib import Path

from tests.apps.worker_app import BROKER, SETTINGS, make_app

import celerymeter.schedule

SCHEDULE, HOOK, DJANGO = "CELERYMETER_TEST_SCHEDULE", "CELERYMETER_TEST_HOOK", "CELERYMETER_TEST_DJANGO"


def set_up_django(database: str) -> None:
    """Let Django use a database of its own, and make django-celery-beat's tables."""
    import django
    from django.conf import settings
    from django.core.management import call_command

    settings.configure(
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": database}},
        INSTALLED_APPS=["django_celery_beat"],
        USE_TZ=True,
        DEFAULT_AUTO_FIELD="django.db.models.AutoField",
    )
    django.setup()
    call_command("migrate", verbosity=0)


def faked_clock(file: Path) -> dict[str, str]:
    """Return the environment of a process whose clock is ahead by what stands in a file, such as ``-3600``."""
    return {
        "LD_PRELOAD": "/usr/$LIB/faketime/libfaketime.so.1",
        "FAKETIME_TIMESTAMP_FILE": str(file),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


def _sleep(seconds: float) -> None:
    select.select([], [], [], seconds)


if "FAKETIME_TIMESTAMP_FILE" in os.environ:
    time.sleep = _sleep  # type: ignore[assignment] # libfaketime 0.9.10 breaks clock_nanosleep, which Python calls
if BROKER in os.environ:
    if DJANGO in os.environ:
        set_up_django(os.environ[DJANGO])
    app = make_app(os.environ[BROKER])
    app.conf.beat_schedule = {
        name: {
            "task": "tests.fail" if name.startswith("fail") else "tests.add",
            "args": [] if name.startswith("fail") else [1, 2],
            "schedule": float(seconds),
        }
        for name, seconds in json.loads(os.environ[SCHEDULE]).items()
    }
    app.conf.result_expires = None  # else Celery adds an entry of its own
    app.conf.update(json.loads(os.environ.get(SETTINGS, "{}")))
    if os.environ.get(HOOK) != "0":
        celerymeter.schedule.install(app)
