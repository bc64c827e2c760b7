"""The Celery app of the tests' host project."""

from celery import Celery

app = Celery("tests", set_as_current=True)
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
