"""Track the secrets of each request and task, so that logs and error reports can be masked without the middleware."""

from typing import Any

from celery.signals import task_postrun, task_prerun
from django.core.signals import request_finished, request_started
from django.dispatch import receiver

from .._internal.request_secrets import start_tracking, stop_tracking


@receiver(request_started, dispatch_uid="django_phi_oidc.leak_guard")
def track_request(**kwargs: Any) -> None:
    start_tracking()


@receiver(request_finished, dispatch_uid="django_phi_oidc.leak_guard")
def forget_request(**kwargs: Any) -> None:
    stop_tracking()


def track_task(task: Any = None, **kwargs: Any) -> None:
    # An eager task belongs to the request that calls it.
    if not task.request.is_eager:
        start_tracking()


def forget_task(task: Any = None, **kwargs: Any) -> None:
    if not task.request.is_eager:
        stop_tracking()


task_prerun.connect(track_task, dispatch_uid="django_phi_oidc.leak_guard")
task_postrun.connect(forget_task, dispatch_uid="django_phi_oidc.leak_guard")
