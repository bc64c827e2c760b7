"""The documents of OIDC Discovery and RFC 8414, over real sockets."""

import json
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from django_phi_oidc.config.providers import ProviderDeclaration
from django_phi_oidc.errors import Code, TransportError
from django_phi_oidc.http.http_transport import HTTPTransport
from django_phi_oidc.http.transport import TransportRequest, TransportResponse
from django_phi_oidc.oidc.metadata import ProviderMetadata
from django_phi_oidc.provider import metadata_documents
from django_phi_oidc.provider.metadata_cache import MIN_FRESH_SECONDS
from django_phi_oidc.provider.metadata_documents import fetch_metadata
from django_phi_oidc.provider.registry import Provider
from tests.support.error_codes import raises
from tests.support.scripted_server import Peer, reply, serving

pytestmark = pytest.mark.sqlite
Declare = Callable[..., ProviderDeclaration]
OIDC_PATH = "/o/.well-known/openid-configuration"
INSERTED, APPENDED = "/.well-known/oauth-authorization-server/o", "/o/.well-known/oauth-authorization-server"
SMART = "/o/.well-known/smart-configuration"
NOT_FOUND, UNAVAILABLE = reply(status="404 Not Found"), reply(status="503 Service Unavailable")
REDIRECT = reply(b"", "Location: /login", status="302 Found")


class TwoDocuments:
    """A provider below /o with those responses by path; 404 for other paths, and none where the response is None."""

    def __init__(self, tls: ssl.SSLContext) -> None:
        self.tls = tls
        self.responses: dict[str, bytes | None] = {}
        self.paths: list[str] = []
        self.issuer = ""

    @contextmanager
    def run(self) -> Iterator[None]:
        with serving(self._answer, tls=self.tls) as server:
            self.issuer = f"{server.url}o"
            yield

    def _answer(self, peer: Peer) -> None:
        while (request := peer.read()) is not None:
            self.paths.append(request.split(b" ")[1].decode())
            response = self.responses.get(self.paths[-1], NOT_FOUND)
            if response is None:
                peer.connection.recv(1)
                return
            peer.send(response)

    def document(self, **changes: Any) -> bytes:
        members = {
            "issuer": self.issuer,
            **{name: f"{self.issuer}/{name}" for name in ("authorization_endpoint", "token_endpoint", "jwks_uri")},
            "subject_types_supported": ["pairwise"],
            "id_token_signing_alg_values_supported": ["ES256"],
            **changes,
        }
        return reply(json.dumps(members).encode(), "Cache-Control: max-age=86400")


@pytest.fixture
def op(tls: ssl.SSLContext) -> Iterator[TwoDocuments]:
    op = TwoDocuments(tls)
    with op.run():
        op.responses[OIDC_PATH] = op.document()
        yield op


def fetch(op: TwoDocuments, declare: Declare, **options: Any) -> ProviderMetadata:
    declaration = declare(issuer=op.issuer, **options)
    transport = HTTPTransport(declaration)
    try:
        return fetch_metadata(declaration, transport=transport, timeout_seconds=5)[0]
    finally:
        transport.close()


@pytest.mark.parametrize(
    ("path", "paths"),
    [(INSERTED, [INSERTED]), (APPENDED, [INSERTED, APPENDED]), (SMART, [INSERTED, APPENDED, SMART])],
    ids=["inserted", "appended", "smart"],
)
def test_c3_missing_endpoint_is_taken_from_the_document_of_rfc_8414(
    op: TwoDocuments, declare: Declare, path: str, paths: list[str]
) -> None:
    op.responses[path] = op.document(
        revocation_endpoint=f"{op.issuer}/revoke", token_endpoint="https://other.example.test/token"
    )
    metadata = fetch(op, declare)
    assert metadata.revocation_endpoint == f"{op.issuer}/revoke"
    assert metadata.token_endpoint == f"{op.issuer}/token_endpoint"
    assert op.paths == [OIDC_PATH, *paths]


def test_c3_complete_document_needs_no_other(op: TwoDocuments, declare: Declare) -> None:
    op.responses[OIDC_PATH] = op.document(revocation_endpoint=f"{op.issuer}/revoke")
    fetch(op, declare)
    assert op.paths == [OIDC_PATH]


def test_c3_override_needs_no_other_document(op: TwoDocuments, declare: Declare) -> None:
    metadata = fetch(op, declare, metadata_overrides={"revocation_endpoint": f"{op.issuer}/declared"})
    assert metadata.revocation_endpoint == f"{op.issuer}/declared"
    assert op.paths == [OIDC_PATH]


def test_c3_document_of_another_issuer_is_not_used(op: TwoDocuments, declare: Declare) -> None:
    op.responses[INSERTED] = op.document(revocation_endpoint=f"{op.issuer}/revoke", issuer=f"{op.issuer}/")
    with raises(Code.REVOCATION_UNSUPPORTED):
        fetch(op, declare)
    op.responses[APPENDED] = op.document(revocation_endpoint=f"{op.issuer}/revoke")
    assert fetch(op, declare).revocation_endpoint == f"{op.issuer}/revoke"


@pytest.mark.parametrize("absent", [NOT_FOUND, REDIRECT, reply(b"<html>")], ids=["404", "redirect", "page"])
def test_c3_provider_without_the_document_has_no_endpoint(op: TwoDocuments, declare: Declare, absent: bytes) -> None:
    op.responses |= {INSERTED: absent, APPENDED: absent}
    metadata = fetch(op, declare, revocation="best_effort")
    assert (metadata.revocation_endpoint, metadata.is_partial) == ("", False)
    with raises(Code.REVOCATION_UNSUPPORTED):
        fetch(op, declare)


@pytest.mark.parametrize("fault", [UNAVAILABLE, b"", None], ids=["503", "closed", "silent"])
def test_c3_outage_of_the_document_is_no_property_of_the_provider(
    op: TwoDocuments, declare: Declare, monkeypatch: pytest.MonkeyPatch, fault: bytes | None
) -> None:
    monkeypatch.setattr(metadata_documents, "OAUTH_METADATA_SECONDS", 0.5)
    op.responses[INSERTED] = fault
    metadata = fetch(op, declare, revocation="best_effort")
    assert (metadata.revocation_endpoint, metadata.is_partial) == ("", True)
    with raises(Code.PROVIDER_UNAVAILABLE):
        fetch(op, declare)


FAPI2 = {
    **{"profile": "fapi2", "par": "require", "dpop": "require", "id_token_signed_response_alg": ["ES256"]},
    **{"token_endpoint_auth_method": "tls_client_auth", "client_secret": ""},
    "client_certificate": "/etc/portal/client.pem",
}
BINDING_ROWS = {
    "dpop": ({"dpop": "require"}, "dpop_signing_alg_values_supported", ["ES256"]),
    "iss with fapi2": (FAPI2, "authorization_response_iss_parameter_supported", True),
    "certificate with fapi2": ({**FAPI2, "dpop": "never"}, "tls_client_certificate_bound_access_tokens", True),
}


@pytest.mark.parametrize(("options", "member", "value"), BINDING_ROWS.values(), ids=BINDING_ROWS)
def test_required_member_is_taken_from_the_document_of_rfc_8414(
    op: TwoDocuments, declare: Declare, options: dict[str, Any], member: str, value: Any
) -> None:
    members = {
        **{name: f"{op.issuer}/{name}" for name in ("revocation_endpoint", "pushed_authorization_request_endpoint")},
        "dpop_signing_alg_values_supported": ["ES256"],
        "authorization_response_iss_parameter_supported": True,
        "tls_client_certificate_bound_access_tokens": True,
    }
    op.responses[OIDC_PATH] = op.document(**{name: members[name] for name in members if name != member})
    op.responses[INSERTED] = op.document(**{member: value})
    assert fetch(op, declare, **options).issuer == op.issuer
    op.responses |= {INSERTED: UNAVAILABLE, APPENDED: UNAVAILABLE}
    with raises(Code.PROVIDER_UNAVAILABLE):
        fetch(op, declare, **options)
    op.responses |= {INSERTED: NOT_FOUND, APPENDED: NOT_FOUND}
    with raises(Code.DPOP_UNSUPPORTED if member.startswith("dpop") else Code.PROFILE_UNSUPPORTED):
        fetch(op, declare, **options)


class SuspendedAfterOneRequest:
    """The transport of a provider that other threads find hanging after the first document."""

    def __init__(self, transport: HTTPTransport) -> None:
        self._transport: HTTPTransport | None = transport

    def send(self, request: TransportRequest, *, timeout_seconds: float) -> TransportResponse:
        if self._transport is None:
            raise TransportError(Code.PROVIDER_SUSPENDED)
        transport, self._transport = self._transport, None
        return transport.send(request, timeout_seconds=timeout_seconds)


def test_c3_document_that_is_not_requested_from_a_suspended_provider_is_no_property_of_it(
    op: TwoDocuments, declare: Declare
) -> None:
    declaration = declare(issuer=op.issuer, revocation="best_effort")
    transport = HTTPTransport(declaration)
    metadata = fetch_metadata(declaration, transport=SuspendedAfterOneRequest(transport), timeout_seconds=5)[0]
    assert (metadata.revocation_endpoint, metadata.is_partial) == ("", True)
    assert not fetch_metadata(declaration, transport=transport, timeout_seconds=5)[0].is_partial
    transport.close()


def test_c3_partial_metadata_is_fresh_for_the_shortest_time(op: TwoDocuments, declare: Declare) -> None:
    now = [0.0]
    op.responses[INSERTED] = UNAVAILABLE
    declaration = declare(issuer=op.issuer, revocation="best_effort")
    transport = HTTPTransport(declaration)
    provider = Provider(declaration=declaration, transport=transport, monotonic=lambda: now[0])
    assert provider.get_metadata(timeout_seconds=5).is_partial
    op.responses[INSERTED] = op.document(revocation_endpoint=f"{op.issuer}/revoke")
    now[0] = MIN_FRESH_SECONDS - 1
    assert provider.get_metadata(timeout_seconds=5).is_partial
    now[0] = MIN_FRESH_SECONDS + 1
    assert provider.get_metadata(timeout_seconds=5).revocation_endpoint == f"{op.issuer}/revoke"
    transport.close()


WALLET = "/auth/realms/wallet/.well-known/wallet-openid-configuration"


def test_metadata_url_is_fetched_in_place_of_the_document_below_the_issuer(op: TwoDocuments, declare: Declare) -> None:
    revocation = {"revocation_endpoint": "https://other.example.test/revoke"}
    op.responses = {WALLET: op.document(token_endpoint="https://other.example.test/token", **revocation)}
    url = op.issuer.removesuffix("/o") + WALLET
    assert fetch(op, declare, metadata_url=url).token_endpoint == "https://other.example.test/token"
    assert op.paths == [WALLET]
    op.responses[WALLET] = op.document(issuer=f"{op.issuer}/", **revocation)
    with raises(Code.ISSUER_MISMATCH):
        fetch(op, declare, metadata_url=url)


def test_smart_configuration_alone_needs_the_members_that_it_lacks(op: TwoDocuments, declare: Declare) -> None:
    """As at Oracle Health: no OIDC Discovery, and an issuer other than that of ID Tokens."""
    fhir = op.issuer.removesuffix("/o") + "/r4/tenant"
    members = {"issuer": fhir, "revocation_endpoint": f"{op.issuer}/revoke", "capabilities": ["sso-openid-connect"]}
    absent: dict[str, Any] = {"subject_types_supported": [], "id_token_signing_alg_values_supported": []}
    op.responses = {"/r4/tenant/.well-known/smart-configuration": op.document(**members, **absent)}
    options = {
        "metadata_url": f"{fhir}/.well-known/smart-configuration",
        "subject_type": "public",
        "metadata_issuer": fhir,
        "metadata_overrides": {"id_token_signing_alg_values_supported": ["RS256"]},
    }
    metadata = fetch(op, declare, **options)
    assert (metadata.issuer, metadata.revocation_endpoint) == (op.issuer, f"{op.issuer}/revoke")
    for name, code in (("metadata_issuer", Code.ISSUER_MISMATCH), ("metadata_overrides", Code.ALG_UNSUPPORTED)):
        with raises(code):
            fetch(op, declare, **{option: value for option, value in options.items() if option != name})
