from collections.abc import Callable

import pytest
from django.contrib.auth.signals import user_logged_out
from django.test import Client

from django_phi_oidc.audit.events import Action
from django_phi_oidc.sessions.models import OIDCSession
from tests.sessions.conftest import ScriptedOP, SignedIn, django_session_exists, events

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"]),
    pytest.mark.urls("tests.sessions.urls"),
]


def test_end_on_django_logout_ends_once_and_tells_who(op: ScriptedOP, sign_in: Callable[..., SignedIn]) -> None:
    signed_in = sign_in()
    signed_in.client().get("/leave/")
    assert OIDCSession.objects.get().end_reason == "django_logout"
    (event,) = events(Action.SESSION_ENDED)
    assert (event.reason, event.actor) == ("django_logout", str(signed_in.user.pk))
    assert events(Action.LOGOUT_COMPLETED) == []
    assert not django_session_exists(signed_in.django_key)
    assert len(op.asked) == 2


def test_end_on_django_logout_of_a_person_without_our_session_does_nothing(
    sign_in: Callable[..., SignedIn],
) -> None:
    signed_in = sign_in()
    client = Client()
    client.force_login(signed_in.user, backend="django_phi_oidc.backends.OIDCAuthenticationBackend")
    client.get("/leave/", secure=True)
    assert OIDCSession.objects.get().ended_at is None
    assert events(Action.SESSION_ENDED) == []


def test_end_on_django_logout_without_a_request_does_nothing(sign_in: Callable[..., SignedIn]) -> None:
    signed_in = sign_in()
    user_logged_out.send(sender=type(signed_in.user), request=None, user=signed_in.user)
    assert OIDCSession.objects.get().ended_at is None
