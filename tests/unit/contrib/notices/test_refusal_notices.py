"""The mail about a refused sign-in: a fault of it does not hide the refusal."""

from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import OperationalError, connection

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.events import Origin
from django_phi_oidc.audit.request_context import Actor
from django_phi_oidc.conf import providers
from django_phi_oidc.contrib.notices.models import AccountNotice
from django_phi_oidc.contrib.notices.refusal_notices import warn_of_refusal
from django_phi_oidc.crypto.keyring import get_keys
from django_phi_oidc.errors import Code
from django_phi_oidc.login.code_exchange import IdentifiedSignInRefused
from django_phi_oidc.login.failures import SignInAttempt
from django_phi_oidc.login.views import OIDCAuthenticationCallbackView
from django_phi_oidc.subjects.linking import link_existing_user

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
SUB = "amina-at-this-portal"


def test_asvs_6_3_5_refusal_does_not_fail_without_the_database(rf: Any, caplog: pytest.LogCaptureFixture) -> None:
    users: Any = get_user_model()._default_manager
    user = users.create_user(username="amina", email="amina@example.org")
    (name, provider), *_ = providers().items()
    keys = get_keys("subject")
    link_existing_user(user, sub=SUB, provider=provider, keys=keys, origin=Origin(), now=clock.now())
    AccountNotice.objects.all().delete()
    request = rf.get("/oidc/callback/")
    request.session, request.user = {}, user
    error = IdentifiedSignInRefused(Code.AMR_INSUFFICIENT, sub=SUB)
    attempt = SignInAttempt(view=OIDCAuthenticationCallbackView, stage="callback", provider=name, provider_in_url=False)

    def fail(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        raise OperationalError(SUB)

    with connection.execute_wrapper(fail):
        warn_of_refusal(Actor.from_request(request), error, attempt, None)
    assert ("A notice was not written: OperationalError." in caplog.text, SUB in caplog.text) == (True, False)
    warn_of_refusal(Actor.from_request(request), error, attempt, None)
    assert list(AccountNotice.objects.values_list("kind", "user")) == [("sign_in_refused", user.pk)]
