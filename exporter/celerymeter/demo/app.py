"""The demo's Celery application, a small shop: quick orders and e-mails, slow videos, scheduled reports.

The broker comes from Celery's own variables ``CELERY_BROKER_URL`` and ``CELERY_RESULT_BACKEND``, or from files that
``CELERY_BROKER_URL_FILE`` and ``CELERY_RESULT_BACKEND_FILE`` name. How often a task fails is an argument, so that the
sender decides how healthy the shop is.
"""

# mypy: disallow-untyped-decorators=False
# (Celery ships no types)

from __future__ import annotations

import os
import random
import time
from pathlib import Path

from celery import Celery, Task

import celerymeter.aggregate
import celerymeter.schedule
import celerymeter.stamp
from celerymeter.demo import AGGREGATE


class PaymentDeclined(Exception):
    """The bank refused the payment: a failure that a retry cannot help."""


class GatewayTimeout(Exception):
    """The payment gateway did not answer; a retry may help."""


class TemplateMissing(Exception):
    """An e-mail has no template."""


QUEUES = ("orders", "emails", "media", "reports")

app = Celery("shop")
app.conf.update(
    task_default_queue="orders",
    task_routes={f"{name}.*": {"queue": name} for name in QUEUES},
    task_send_sent_event=True,
    worker_send_task_events=True,
    result_expires=600,
    broker_connection_retry_on_startup=True,
    beat_schedule={
        "refresh the sales figures": {"task": "reports.refresh_sales", "schedule": 10.0},
        "send what is left in the outbox": {"task": "emails.flush_outbox", "schedule": 30.0},
    },
)
for setting, variable in (("broker_url", "CELERY_BROKER_URL_FILE"), ("result_backend", "CELERY_RESULT_BACKEND_FILE")):
    if variable in os.environ:
        app.conf[setting] = Path(os.environ[variable]).read_text().strip()
celerymeter.stamp.install()
if AGGREGATE in os.environ:
    app.conf.worker_send_task_events = False
    celerymeter.aggregate.install(app)
celerymeter.schedule.install(app)


def work(mean: float) -> None:
    """Sleep for about ``mean`` seconds, rarely for three times that."""
    time.sleep(min(random.lognormvariate(0.0, 0.35), 3.0) * mean)


def chance(ratio: float) -> bool:
    """Return True with this probability."""
    return random.random() < ratio


@app.task(name="orders.place")
def place_order(order: int) -> int:
    """Quick and reliable."""
    work(0.02)
    return order


@app.task(name="orders.charge_card", bind=True, max_retries=3)
def charge_card(self: Task, order: int, declined: float = 0.005, timeouts: float = 0.05) -> str:
    """Fails when the card is declined; retries up to three times when the gateway does not answer."""
    work(0.06)
    if chance(timeouts):
        raise self.retry(exc=GatewayTimeout("no answer from the gateway"), countdown=random.uniform(0.5, 2.0))
    if chance(declined):
        raise PaymentDeclined(f"order {order}")
    return "paid"


@app.task(name="orders.sync_stock", time_limit=2)
def sync_stock(hanging: float = 0.0) -> None:
    """Exceeds its time limit when the supplier does not answer."""
    work(0.1)
    if chance(hanging):
        time.sleep(60)


@app.task(name="emails.send_receipt")
def send_receipt(order: int, broken: float = 0.005) -> None:
    """Quick, rarely without a template."""
    work(0.03)
    if chance(broken):
        raise TemplateMissing(f"receipt {order}")


@app.task(name="emails.send_reminder")
def send_reminder(order: int) -> int:
    """Sent with an ETA, so that it waits in a worker."""
    work(0.05)
    return order


@app.task(name="emails.flush_outbox")
def flush_outbox() -> None:
    """Scheduled."""
    work(0.2)


@app.task(name="media.render_video")
def render_video(seconds: float = 3.0) -> None:
    """Slow, so that its queue grows."""
    work(seconds)


@app.task(name="reports.refresh_sales")
def refresh_sales() -> None:
    """Scheduled."""
    work(0.4)


@app.task(name="exports.push_to_warehouse")
def push_to_warehouse(order: int) -> int:
    """Sent to a queue that no worker of the demo consumes."""
    return order
