"""The Celery app of the worker that runs during the sustained load, with beat and the documented schedule."""

import os

from celery import Celery

from django_phi_oidc.schedule import beat_schedule

app = Celery("portal")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.conf.update(beat_schedule=beat_schedule(), beat_schedule_filename=os.environ["BENCH_BEAT_FILE"])
app.autodiscover_tasks()
