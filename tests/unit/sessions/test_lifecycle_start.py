import hashlib
from collections.abc import Callable

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from django_phi_oidc.fields import EncryptedText
from django_phi_oidc.sessions.models import OIDCSession
from tests.support.session_fixtures import ACCESS_TOKEN, REFRESH_TOKEN, SignedIn

pytestmark = pytest.mark.django_db(databases=["default", "phi_audit"])


def test_start_session_encrypts_every_token(sign_in: Callable[..., SignedIn]) -> None:
    signed_in = sign_in()
    with connection.cursor() as cursor:
        cursor.execute("SELECT * FROM django_phi_oidc_oidcsession")
        row = " ".join(map(str, cursor.fetchone()))
    secrets = (ACCESS_TOKEN, REFRESH_TOKEN, signed_in.django_key, "sid-1")
    assert [secret for secret in secrets if secret in row] == []
    stored = OIDCSession.objects.get()
    assert isinstance(stored.access_token, EncryptedText)
    assert OIDCSession._meta.get_field("access_token").decrypt(stored) == ACCESS_TOKEN
    assert stored.session_key_digest == hashlib.sha256(signed_in.django_key.encode()).hexdigest()
    assert stored.sid_digest == hashlib.sha256(b"sid-1").hexdigest()


def test_start_session_without_refresh_token_stores_none(sign_in: Callable[..., SignedIn]) -> None:
    sign_in(refresh_token="")
    assert OIDCSession.objects.get().refresh_token is None


def test_start_session_is_one_insert(sign_in: Callable[..., SignedIn]) -> None:
    with CaptureQueriesContext(
        connection,
    ) as queries:
        sign_in()
    statements = [query["sql"] for query in queries if "oidcsession" in query["sql"]]
    assert len(statements) == 1
    assert statements[0].startswith("INSERT")
