"""Mutual TLS with the npm oidc-provider, which requests client certificates on a port of its own. Spec: RFC 8705."""

import ssl
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from django_phi_oidc._internal import clock
from django_phi_oidc.config.certificates import compute_certificate_thumbprint, read_certificate_chain
from django_phi_oidc.sessions.access_tokens import get_access_token
from django_phi_oidc.sessions.models import OIDCSession, PendingRevocation, RevocationStatus
from tests.integration.interop.conftest import REFRESHING, Declare, client
from tests.integration.interop.form_login import FormPerson
from tests.support.certified_provider import CertifiedProvider
from tests.support.portal_fixtures import EVERYTHING, events
from tests.support.tls import CertificateAuthority, write_client_certificate

pytestmark = [pytest.mark.node, pytest.mark.django_db(**EVERYTHING)]
DN = "CN=portal.example"


@pytest.fixture
def person(portal: str, op: CertifiedProvider) -> FormPerson:
    return FormPerson(portal, op.issuer, op.ca_bundle)


@pytest.fixture
def register(portal: str, op: CertifiedProvider) -> Callable[..., None]:
    """Return a function that registers the portal with a method of RFC 8705."""

    def register(method: str, **metadata: Any) -> None:
        if method == "tls_client_auth":
            metadata["tls_client_auth_subject_dn"] = DN
        else:
            metadata["jwks_uri"] = f"{portal}/oidc/jwks.json"
        registered = client(
            portal,
            token_endpoint_auth_method=method,
            tls_client_certificate_bound_access_tokens=True,
            **REFRESHING,
            **metadata,
        )
        registered.pop("client_secret", None)
        op.configure(registered, refresh_unasked=True)

    return register


def by_certificate(method: str, path: Path) -> dict[str, Any]:
    return {"token_endpoint_auth_method": method, "client_secret": "", "client_certificate": path}


@pytest.mark.parametrize("method", ["tls_client_auth", "self_signed_tls_client_auth"])
def test_certificate_signs_in_refreshes_and_revokes_and_binds_the_tokens(
    method: str,
    op: CertifiedProvider,
    authority: CertificateAuthority,
    register: Callable[..., None],
    declare: Declare,
    person: FormPerson,
    tmp_path: Path,
) -> None:
    path = write_client_certificate(
        tmp_path / "client.pem", authority=authority if method == "tls_client_auth" else None
    )
    register(method)
    declare(default=by_certificate(method, path))
    person.sign_in()
    session = OIDCSession.objects.get()
    first = str(OIDCSession._meta.get_field("access_token").decrypt(session))
    OIDCSession.objects.update(access_token_expires_at=clock.now() - timedelta(seconds=1))
    second = get_access_token(session.pk)
    assert second != first
    thumbprint = compute_certificate_thumbprint(read_certificate_chain(path)[0])
    for token in (first, second):
        assert op.introspect(token)["cnf"] == {"x5t#S256": thumbprint}
    assert [op.requests(at) for at in ("/request", "/token", "/me")] == [1, 2, 1]
    assert not is_accepted_by_userinfo(op, second), "without the certificate, a stolen token is worth nothing"
    person.post("/oidc/logout/")
    assert op.active_kinds() == []
    assert set(PendingRevocation.objects.values_list("status", flat=True)) == {RevocationStatus.DONE}


def test_provider_that_enforces_fapi2_accepts_the_profile_with_a_certificate(
    op: CertifiedProvider,
    portal: str,
    authority: CertificateAuthority,
    declare: Declare,
    person: FormPerson,
    tmp_path: Path,
) -> None:
    path = write_client_certificate(tmp_path / "client.pem", authority=authority)
    registered = client(
        portal,
        token_endpoint_auth_method="tls_client_auth",
        tls_client_auth_subject_dn=DN,
        tls_client_certificate_bound_access_tokens=True,
        require_pushed_authorization_requests=True,
        id_token_signed_response_alg="PS256",
        **REFRESHING,
    )
    registered.pop("client_secret", None)
    op.configure(registered, refresh_unasked=True, par="required", fapi2=True)
    fapi2 = {"profile": "fapi2", "par": "require", "id_token_signed_response_alg": ["PS256"]}
    declare(default={**by_certificate("tls_client_auth", path), **fapi2})
    person.sign_in()
    session = OIDCSession.objects.get()
    OIDCSession.objects.update(access_token_expires_at=clock.now() - timedelta(seconds=1))
    assert op.introspect(get_access_token(session.pk))["cnf"]
    person.post("/oidc/logout/")
    assert op.active_kinds() == []


def is_accepted_by_userinfo(op: CertifiedProvider, token: str) -> bool:
    request = urllib.request.Request(f"{op.issuer}/me", headers={"Authorization": f"Bearer {token}"})
    context = ssl.create_default_context(cafile=op.ca_bundle)
    try:
        with urllib.request.urlopen(request, context=context, timeout=20) as response:
            status = response.status
    except urllib.error.HTTPError as error:
        status = error.code
    return {200: True, 401: False}[status]


@pytest.mark.parametrize(
    "wrong", [{"subject": "another.example"}, {"authority": None}], ids=["another subject", "self-signed"]
)
def test_certificate_of_another_client_is_refused(
    wrong: dict[str, Any],
    authority: CertificateAuthority,
    register: Callable[..., None],
    declare: Declare,
    person: FormPerson,
    tmp_path: Path,
) -> None:
    register("tls_client_auth")
    right = {"authority": authority, "subject": "portal.example"}
    path = write_client_certificate(tmp_path / "client.pem", **{**right, **wrong})
    declare(default=by_certificate("tls_client_auth", path))
    person.sign_in()
    assert [event.reason for event in events(action="login.refused")] == ["par_error"]
    write_client_certificate(path, **right)
    person.sign_in()
    assert OIDCSession.objects.count() == 1


def test_expired_certificate_is_refused_by_the_provider_alone(
    authority: CertificateAuthority,
    register: Callable[..., None],
    declare: Declare,
    person: FormPerson,
    tmp_path: Path,
) -> None:
    register("tls_client_auth")
    path = write_client_certificate(
        tmp_path / "client.pem", authority=authority, expires_at=clock.now() - timedelta(hours=1)
    )
    declare(default=by_certificate("tls_client_auth", path))
    assert person.get("/oidc/jwks.json").status_code == 200
    person.sign_in()
    assert [event.reason for event in events(action="login.refused")] == ["par_error"]
