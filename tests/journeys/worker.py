"""A Celery app for a worker and beat in a process of their own: `celery -A tests.journeys.worker worker -B`."""

import os

from celery import Celery

from django_phi_oidc.schedule import beat_schedule

app = Celery("portal", broker=os.environ["TEST_BROKER_URL"])
app.conf.update(
    beat_schedule=beat_schedule(every=1.0),
    beat_schedule_filename=os.environ["TEST_BEAT_FILE"],
    task_default_queue=os.environ["TEST_QUEUE"],
    task_ignore_result=True,
)
app.autodiscover_tasks()
