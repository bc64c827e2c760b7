"""Client features with the npm oidc-provider: PAR, private_key_jwt, signed UserInfo and refresh."""

import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from django_phi_oidc._internal import clock, randomness
from django_phi_oidc.claims.models import StoredClaim
from django_phi_oidc.errors import TokenError
from django_phi_oidc.oidc.client_auth import AssertionFreshness
from django_phi_oidc.oidc.refresh import build_refresh_request, process_refresh_response, verify_refreshed_id_token
from django_phi_oidc.oidc.remedies import find_remedy
from django_phi_oidc.oidc.token import TokenResponse
from django_phi_oidc.provider.registry import get_provider
from django_phi_oidc.sessions.models import OIDCSession, PendingRevocation, RevocationStatus
from tests.integration.interop.browser_user import Person
from tests.integration.interop.conftest import REFRESHING, Declare, client, refused
from tests.support.certified_provider import SECRET, CertifiedProvider
from tests.support.portal_fixtures import EVERYTHING, events

pytestmark = [pytest.mark.node, pytest.mark.browser, pytest.mark.django_db(**EVERYTHING)]

AGAIN = "/oidc/authenticate/?next=/portal/"


def pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


@pytest.mark.parametrize(("offer", "pushed"), [("required", True), ("off", False)])
def test_request_is_pushed_if_the_provider_supports_it(
    offer: str, pushed: bool, op: CertifiedProvider, portal: str, person: Person
) -> None:
    op.configure(client(portal), par=offer)
    urls: list[str] = []
    person.page.on("request", lambda request: urls.append(request.url))
    person.begin()
    person.sign_in()
    person.allow()
    assert person.is_signed_in()
    (query,) = [parse_qs(urlsplit(url).query) for url in urls if url.startswith(f"{op.issuer}/auth?")]
    assert (query.keys() == {"client_id", "request_uri"}) == pushed
    assert ("state" in query) == (not pushed)
    assert op.requests("/request") == pushed


def test_request_without_par_is_not_sent_to_a_provider_that_requires_par(
    op: CertifiedProvider, portal: str, person: Person, declare: Declare
) -> None:
    op.configure(client(portal), par="required")
    declare(default={"par": "never"})
    person.begin()
    assert {person.reference(): "par_unsupported"} == refused()
    assert op.requests("/auth") == 0


def test_private_key_jwt_works_with_each_key_type_and_through_key_rotation(
    op: CertifiedProvider, portal: str, person: Person, declare: Declare
) -> None:
    jwks_uri = f"{portal}/oidc/jwks.json"
    op.configure(client(portal, jwks_uri=jwks_uri, token_endpoint_auth_method="private_key_jwt"), par="off")
    first, second = pem(rsa.generate_private_key(65537, 2048)), pem(ec.generate_private_key(ec.SECP256R1()))
    third = pem(ed25519.Ed25519PrivateKey.generate())

    def signed_by(*keys: str) -> None:
        method = {"token_endpoint_auth_method": "private_key_jwt", "client_secret": ""}
        declare(default={**method, "client_keys": list(keys)})

    signed_by(first)
    person.begin()
    person.sign_in()
    person.allow()
    assert person.is_signed_in()
    for keys in (first, second), (second, first), (second,):
        signed_by(*keys)
        if keys == (first, second):
            op.forget_client_keys()
        person.begin(AGAIN)
        assert person.is_signed_in()
    assert op.assertions("/token") == ["PS256", "PS256", "ES256", "ES256"]
    assert op.fetched(jwks_uri) == 2, "first use, and after the second key was appended; its promotion needs no fetch"

    signed_by(third)
    person.begin(AGAIN)
    assert {person.reference(): "token_error"} == refused(), "a key that was not published before is unknown"
    op.forget_client_keys()
    person.begin(AGAIN)
    assert person.is_signed_in()
    assert op.assertions("/token")[-1] == "EdDSA"
    assert op.assertions("/token/revocation") == ["PS256", "ES256", "ES256", "EdDSA"]
    assert set(PendingRevocation.objects.values_list("status", flat=True)) == {RevocationStatus.DONE}
    assert op.active_kinds() == ["access_token"], "of the current session"


@pytest.mark.parametrize("par", ["required", "off"])
def test_signed_request_is_accepted_and_an_unsigned_one_is_not(
    par: str, op: CertifiedProvider, portal: str, person: Person, declare: Declare
) -> None:
    registered = {
        "jwks_uri": f"{portal}/oidc/jwks.json",
        "client_secret": SECRET,
        "request_object_signing_alg": "ES256",
        "require_signed_request_object": True,
    }
    op.configure(client(portal, **registered), par=par)
    signing = {"request_object_signing_alg": "ES256", "client_keys": pem(ec.generate_private_key(ec.SECP256R1()))}
    declare(default={**signing, "max_age": 60, "claims_request": "parameter"})
    urls: list[str] = []
    person.page.on("request", lambda request: urls.append(request.url))
    person.begin()
    person.sign_in()
    person.allow()
    assert person.is_signed_in()
    (query,) = [parse_qs(urlsplit(url).query) for url in urls if url.startswith(f"{op.issuer}/auth?")]
    sent = {"client_id", "request_uri"} if par == "required" else {"client_id", "response_type", "scope", "request"}
    assert query.keys() == sent
    declare(default={})
    person.begin(AGAIN)
    assert {person.reference(): "par_error" if par == "required" else "provider_error"} == refused()


def test_client_that_is_bound_to_dpop_is_refused_and_the_cure_names_dpop(
    op: CertifiedProvider, portal: str, person: Person
) -> None:
    op.configure(client(portal, dpop_bound_access_tokens=True))
    person.begin()
    person.sign_in()
    person.allow()
    assert person.reference() in refused()
    (event,) = events(action="login.refused")
    detail = json.loads(event.detail)
    assert (event.reason, detail["provider_error"], detail["provider_status"]) == ("token_error", "invalid_grant", 400)
    assert "DPoP" in find_remedy(event.reason, detail["provider_error"])


@pytest.mark.parametrize("alg", ["ES256", "EdDSA"])
def test_signed_userinfo_is_accepted(
    alg: str, op: CertifiedProvider, portal: str, person: Person, declare: Declare
) -> None:
    op.configure(client(portal, id_token_signed_response_alg=alg, userinfo_signed_response_alg=alg))
    declare(default={"id_token_signed_response_alg": [alg], "userinfo_signed_response_alg": [alg]})
    person.begin()
    person.sign_in()
    person.allow()
    assert person.is_signed_in()
    assert {claim.name for claim in StoredClaim.objects.all()} == {"birthdate", "address"}
    assert op.active_kinds() == ["access_token"]


@pytest.mark.parametrize("alg", ["RS512", "PS384", "Ed25519"])
def test_id_token_by_a_declared_algorithm_is_accepted(
    alg: str, op: CertifiedProvider, portal: str, person: Person, declare: Declare
) -> None:
    """NHS login signs with RS512."""
    op.configure(client(portal, id_token_signed_response_alg=alg))
    declare(default={"id_token_signed_response_alg": [alg]})
    person.begin()
    person.sign_in()
    person.allow()
    assert person.is_signed_in()


@pytest.mark.parametrize(
    ("alg", "enc", "key"),
    [
        ("ECDH-ES", "A256GCM", ec.generate_private_key(ec.SECP256R1())),
        ("ECDH-ES+A256KW", "A128GCM", ec.generate_private_key(ec.SECP384R1())),
        ("RSA-OAEP-256", "A256GCM", rsa.generate_private_key(65537, 2048)),
    ],
    ids=["ECDH-ES", "ECDH-ES+A256KW", "RSA-OAEP-256"],
)
def test_encrypted_id_token_and_userinfo_are_accepted(
    alg: str, enc: str, key: Any, op: CertifiedProvider, portal: str, person: Person, declare: Declare
) -> None:
    names = ("id_token_encrypted_response", "userinfo_encrypted_response")
    encryption = {f"{name}_{parameter}": value for name in names for parameter, value in (("alg", alg), ("enc", enc))}
    jwks_uri = f"{portal}/oidc/jwks.json"
    secret = {"client_secret": SECRET, "jwks_uri": jwks_uri}
    op.configure(client(portal, userinfo_signed_response_alg="ES256", **secret, **encryption))
    encrypted = {name: [value] for name, value in encryption.items()}
    signed = {"userinfo_signed_response_alg": ["ES256"], "client_keys": {"key": pem(key), "use": "enc"}}
    declare(default=encrypted | signed)
    person.begin()
    person.sign_in()
    person.allow()
    assert person.is_signed_in()
    assert {claim.name for claim in StoredClaim.objects.all()} == {"birthdate", "address"}
    declare(default={})
    person.begin(AGAIN)
    assert {person.reference(): "encryption_undeclared"} == refused()


def test_unsigned_userinfo_is_refused_where_a_signature_is_declared(
    op: CertifiedProvider, person: Person, declare: Declare
) -> None:
    declare(default={"userinfo_signed_response_alg": ["PS256"]})
    person.begin()
    person.sign_in()
    person.allow()
    assert {person.reference(): "userinfo_invalid"} == refused()
    assert (len(op.tokens()), op.active_kinds()) == (1, [])


def refresh(session: OIDCSession, refresh_token: str) -> TokenResponse:
    """Use the refresh token at the provider of the session and verify the response."""
    provider = get_provider(session.provider)
    request = build_refresh_request(
        metadata=provider.get_metadata(timeout_seconds=8),
        declaration=provider.declaration,
        refresh_token=refresh_token,
        freshness=AssertionFreshness(now=clock.now(), jti=randomness.token_b64url(32)),
    )
    response = provider.transport.send(request, timeout_seconds=8)
    tokens = process_refresh_response(response, declaration=provider.declaration)
    verify_refreshed_id_token(
        tokens.id_token,
        original_claims=json.loads(opened(session, "id_token_claims")),
        keys=provider.get_key_set(timeout_seconds=8),
        declaration=provider.declaration,
        access_token=tokens.access_token,
        now=clock.now(),
    )
    return tokens


def opened(session: OIDCSession, column: str) -> str:
    return OIDCSession._meta.get_field(column).decrypt(session)


def test_refresh_returns_the_same_sign_in_and_logout_revokes_all_tokens(
    op: CertifiedProvider, portal: str, person: Person, declare: Declare
) -> None:
    op.configure(client(portal, **REFRESHING))
    basis = {"purpose": "TREAT", "basis": "results that arrive while the person is away"}
    declare(default={"resource_scopes": {"offline_access": basis}})
    person.begin()
    person.sign_in()
    assert "offline_access" in person.page.inner_text("#requested").split()
    person.allow()
    assert person.is_signed_in()
    session = OIDCSession.objects.get()
    used = opened(session, "refresh_token")
    fresh = refresh(session, used)
    assert fresh.refresh_token not in ("", used)
    assert op.introspect(fresh.access_token)["active"]
    person.page.click("text=Sign out")
    assert person.provider_heading() == "Sign out here as well?"
    assert (len(op.tokens()), op.active_kinds()) == (4, [])


def test_reused_refresh_token_is_refused_and_revokes_the_grant(
    op: CertifiedProvider, portal: str, person: Person
) -> None:
    op.configure(client(portal, **REFRESHING), refresh_unasked=True)
    person.begin()
    person.sign_in()
    person.allow()
    assert person.is_signed_in()
    session = OIDCSession.objects.get()
    used = opened(session, "refresh_token")
    fresh = refresh(session, used)
    refresh(session, fresh.refresh_token)
    with pytest.raises(TokenError, match="invalid_grant"):
        refresh(session, used)
    assert (len(op.tokens()), op.active_kinds()) == (6, [])
