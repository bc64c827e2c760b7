"""Track the secrets of each request, so that logs and error reports can be masked without the
middleware.
"""

from typing import Any

from django.core.signals import request_finished, request_started
from django.dispatch import receiver

from .._internal.request_secrets import start_tracking, stop_tracking


@receiver(request_started, dispatch_uid="django_phi_oidc.leak_guard")
def track_request(**kwargs: Any) -> None:
    start_tracking()


@receiver(request_finished, dispatch_uid="django_phi_oidc.leak_guard")
def forget_request(**kwargs: Any) -> None:
    stop_tracking()
