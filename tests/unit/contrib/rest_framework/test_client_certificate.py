"""Access tokens that are bound to a certificate, which a TLS proxy sends in Client-Cert. Spec: RFC 8705 3, RFC 9440."""

import base64
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from django_phi_oidc._internal import randomness
from django_phi_oidc.config.certificates import compute_certificate_thumbprint, read_certificate_chain
from django_phi_oidc.oidc.dpop import SEED_BYTES, create_proof_key
from django_phi_oidc.testing.mock_provider import DemoProvider
from tests.support.api_fixtures import EVERYTHING, App, Declare, refusals
from tests.support.tls import write_client_certificate
from tests.unit.contrib.rest_framework.test_authentication import changing, is_accepted, is_invalid
from tests.unit.contrib.rest_framework.test_dpop_proof import BoundApp

pytestmark = pytest.mark.django_db(**EVERYTHING)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    folder = tmp_path_factory.mktemp("certificates")
    paths: list[Path] = [write_client_certificate(folder / f"{number}.pem") for number in range(2)]
    return [read_certificate_chain(path)[0] for path in paths]


@pytest.fixture
def bound_token(op: DemoProvider, app: App, certificates: list[bytes]) -> str:
    op.mutate = changing({"cnf": {"x5t#S256": compute_certificate_thumbprint(certificates[0])}})
    return app.token()


def encode(der: bytes) -> str:
    """RFC 9440 2.1: a byte sequence of RFC 8941."""
    return f":{base64.b64encode(der).decode()}:"


@pytest.fixture
def deploy(declare: Declare, settings: Any) -> Callable[..., None]:
    """Return a function that declares the API and the proxies."""

    def deploy(*, allow_client_cert_header: bool = True, proxies: Sequence[str] = ("127.0.0.0/8",)) -> None:
        declare(allow_client_cert_header=allow_client_cert_header)
        settings.PHI_OIDC = {**settings.PHI_OIDC, "TRUSTED_PROXIES": proxies}

    return deploy


def get(app: App, token: str, header: str = "", **meta: Any) -> Any:
    headers = {"HTTP_CLIENT_CERT": header} if header else {}
    return app.get("/whoami/", token, **headers, **meta)


def test_bound_token_is_accepted_with_its_certificate_only(
    app: App, deploy: Callable[..., None], bound_token: str, certificates: list[bytes]
) -> None:
    deploy()
    own, other = map(encode, certificates)
    assert is_accepted(get(app, bound_token, own), app)
    wrong = ["", other, f"{own}, {own}", own.strip(":"), own[:-2], f"{own};a", encode(certificates[0][:-1]), "::"]
    for header in wrong:
        assert is_invalid(get(app, bound_token, header)), header
    assert refusals() == [("cnf_mismatch", "default", "failure")] * len(wrong)


def test_token_that_is_bound_to_a_certificate_and_a_key_needs_both(
    app: App, op: DemoProvider, deploy: Callable[..., None], certificates: list[bytes]
) -> None:
    deploy()
    op.state.dpop = "offered"
    bound = BoundApp(app=app, key=create_proof_key(randomness.token_b64url(SEED_BYTES)))
    thumbprint = compute_certificate_thumbprint(certificates[0])
    op.mutate = changing({"cnf": {"x5t#S256": thumbprint, "jkt": bound.key.thumbprint}})
    token = bound.token()
    own, other = ({"HTTP_CLIENT_CERT": encode(certificate)} for certificate in certificates)

    def prove() -> str:
        return bound.prove(access_token=token)

    assert is_accepted(bound.get(token, prove(), **own), app)
    responses = [
        *(bound.get(token, prove(), **headers) for headers in ({}, other)),
        bound.get(token, scheme="Bearer", **own),
    ]
    assert [response.status_code for response in responses] == [401] * 3
    op.mutate = changing({"cnf": {"x5t#S256": thumbprint}})
    token = bound.token()
    assert is_accepted(bound.get(token, scheme="Bearer", **own), app)
    assert bound.get(token, prove(), **own).status_code == 401, "the proof of any key would do"
    assert [reason for reason, *_ in refusals()] == ["cnf_mismatch"] * 3 + ["cnf_missing"]


def test_header_of_a_client_is_not_read(
    app: App, deploy: Callable[..., None], bound_token: str, certificates: list[bytes]
) -> None:
    header = encode(certificates[0])
    deploy()
    assert is_accepted(get(app, bound_token, header), app)
    assert is_invalid(get(app, bound_token, header, REMOTE_ADDR="10.0.0.1"))
    deploy(proxies=())
    assert is_invalid(get(app, bound_token, header))
    deploy(allow_client_cert_header=False)
    assert is_invalid(get(app, bound_token, header))
    assert refusals() == [("cnf_mismatch", "default", "failure")] * 3


def test_bearer_token_needs_no_certificate(app: App, deploy: Callable[..., None], certificates: list[bytes]) -> None:
    deploy()
    token = app.token()
    assert is_accepted(get(app, token), app)
    assert is_accepted(get(app, token, encode(certificates[0])), app)
