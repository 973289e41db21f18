"""The Celery application that real beats run in tests, with the hook unless ``CELERYMETER_TEST_HOOK`` is 0.

Its schedule comes as JSON from ``CELERYMETER_TEST_SCHEDULE``: seconds or a line of a crontab by the name of the
entry. All send `tests.add`, those named ``fail…`` send `tests.fail`. With ``CELERYMETER_TEST_DJANGO``, a file or
``postgresql://…``, Django has its database there.
"""

from __future__ import annotations

import json
import os
import select
import time
from pathlib import Path
from urllib.parse import urlsplit

from tests.apps.cron_line import crontab_of
from tests.apps.worker_app import BROKER, HOOK, SETTINGS, make_app

import celerymeter.schedule

SCHEDULE, DJANGO = "CELERYMETER_TEST_SCHEDULE", "CELERYMETER_TEST_DJANGO"


def set_up_django(database: str) -> None:
    """Let Django use a database of its own, and make django-celery-beat's tables."""
    import django
    from django.conf import settings
    from django.core.management import call_command

    settings.configure(
        DATABASES={"default": _database(database)},
        INSTALLED_APPS=["django_celery_beat"],
        USE_TZ=True,
        DEFAULT_AUTO_FIELD="django.db.models.AutoField",
    )
    django.setup()
    call_command("migrate", verbosity=0)


def _database(where: str) -> dict[str, object]:
    if "://" not in where:
        # A transaction that reads first and writes then is refused at once beside another writer: no timeout helps it.
        options = {"transaction_mode": "IMMEDIATE", "timeout": 60}
        return {"ENGINE": "django.db.backends.sqlite3", "NAME": where, "OPTIONS": options}
    url = urlsplit(where)
    engine, name = "django.db.backends.postgresql", url.path.lstrip("/")
    return {"ENGINE": engine, "NAME": name, "USER": url.username, "HOST": url.hostname, "PORT": url.port}


def faked_clock(file: Path) -> dict[str, str]:
    """Return the environment of a process whose clock is ahead by what stands in a file, such as ``-3600``."""
    from tests.servers import faketime

    return {
        "LD_PRELOAD": faketime(),
        "FAKETIME_TIMESTAMP_FILE": str(file),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


def _sleep(seconds: float) -> None:
    select.select([], [], [], seconds)


if "FAKETIME_TIMESTAMP_FILE" in os.environ:
    time.sleep = _sleep  # type: ignore[assignment]  # libfaketime 0.9.10 breaks clock_nanosleep, which Python calls
if BROKER in os.environ:
    if DJANGO in os.environ:
        set_up_django(os.environ[DJANGO])
    app = make_app(os.environ[BROKER])
    app.set_current()  # entries that a scheduler has stored know no other
    app.conf.update(json.loads(os.environ.get(SETTINGS, "{}")))  # crontabs read the time zone when they are made
    app.conf.beat_schedule = {
        name: {
            "task": "tests.fail" if name.startswith("fail") else "tests.add",
            "args": [] if name.startswith("fail") else [1, 2],
            "schedule": crontab_of(plan, app) if isinstance(plan, str) else float(plan),
        }
        for name, plan in json.loads(os.environ[SCHEDULE]).items()
    }
    app.conf.result_expires = None  # else Celery adds an entry of its own
    if os.environ.get(HOOK) != "0":
        celerymeter.schedule.install(app)
