"""The hook in beat: what is due, what was sent and what could not be sent becomes visible to the exporter.

Call `install` once in the module that defines your Celery app; it acts in the process that runs beat, with whatever
scheduler (Celery's own, django-celery-beat, RedBeat, ``worker -B``), and nowhere else.

    from celery import Celery

    import celerymeter.schedule

    app = Celery("shop", broker="redis://localhost:6379/0")
    celerymeter.schedule.install(app)

A thread publishes through the event exchange: a ``beat-heartbeat`` every 5 s, a ``beat-sent`` or ``beat-failed`` for
each entry that was due, the whole schedule as ``beat-schedule`` each minute and when it changes, ``beat-offline`` at
the end. Beat never waits for it, and no error of it reaches beat.

This package needs the standard library and Celery, nothing else.
"""

from __future__ import annotations

from typing import Any

from celery.signals import beat_embedded_init, beat_init

from celerymeter.schedule.observer import observe

_SIGNALS = (beat_init, beat_embedded_init)


def install(app: Any) -> None:
    """Observe the beat of ``app`` when this process runs it; calling it again changes nothing."""

    def begin(sender: Any, **_: object) -> None:
        if sender.app is _real(app):
            observe(sender)

    for signal in _SIGNALS:
        signal.connect(begin, weak=False, dispatch_uid=_uid(app))


def uninstall(app: Any) -> None:
    """Observe no beat that starts from now on."""
    for signal in _SIGNALS:
        signal.disconnect(dispatch_uid=_uid(app))


def _real(app: Any) -> Any:
    """Return the app behind a proxy (``celery.current_app``)."""
    return app._get_current_object() if hasattr(app, "_get_current_object") else app


def _uid(app: Any) -> str:
    return f"{__name__}-{id(_real(app))}"
