"""Track the secrets of each Celery task, as `receivers.py` does for each request. Web processes do
not import this.
"""

from typing import Any

from celery.signals import task_postrun, task_prerun

from .._internal.request_secrets import start_tracking, stop_tracking


def track_task(task: Any = None, **kwargs: Any) -> None:
    # An eager task belongs to the request that calls it.
    if not task.request.is_eager:
        start_tracking()


def forget_task(task: Any = None, **kwargs: Any) -> None:
    if not task.request.is_eager:
        stop_tracking()


task_prerun.connect(track_task, dispatch_uid="django_phi_oidc.leak_guard")
task_postrun.connect(forget_task, dispatch_uid="django_phi_oidc.leak_guard")
