"""Django's own logout, called by anybody, ends our session too."""

from typing import Any

from django.contrib.auth.signals import user_logged_out
from django.dispatch import receiver
from django.http import HttpRequest

from .. import clock
from ..audit.request import Actor, session_id_of
from .ending import end_session
from .models import EndReason
from .tasks import revoke_soon


@receiver(user_logged_out, dispatch_uid="django_phi_oidc.sessions")
def end_on_django_logout(*, request: HttpRequest | None, **kwargs: Any) -> None:
    """End the OIDC session of the request, before Django flushes the session that names it."""
    session_id = session_id_of(request.session) if request is not None else None
    if request is None or session_id is None:
        return
    origin = Actor.from_request(request).origin
    ended = end_session(session_id, EndReason.DJANGO_LOGOUT, origin=origin, now=clock.now())
    if ended:
        revoke_soon(ended.revocations)
