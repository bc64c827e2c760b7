"""The client's secret goes into the header or the body, encoded as RFC 6749 2.3.1 says, never into the URL."""

import base64
from collections.abc import Callable
from urllib.parse import parse_qs

import pytest

from django_phi_oidc.declarations import ProviderDeclaration
from django_phi_oidc.oidc.client_auth import authenticate_client, build_client_request

Declare = Callable[..., ProviderDeclaration]


@pytest.mark.parametrize(
    ("client_id", "client_secret", "userpass"),
    [
        # RFC 6749 4.1.3: Basic czZCaGRSa3F0MzpnWDFmQmF0M2JW
        pytest.param("s6BhdRkqt3", "gX1fBat3bV", b"s6BhdRkqt3:gX1fBat3bV", id="RFC 6749 4.1.3"),
        pytest.param("a:b", "c:d", b"a%3Ab:c%3Ad", id="colons"),
        pytest.param("https://rp.example/", "a b+c%", b"https%3A%2F%2Frp.example%2F:a+b%2Bc%25", id="form-encoded"),
        pytest.param("ü", "€", b"%C3%BC:%E2%82%AC", id="RFC 6749 appendix B"),
    ],
)
def test_authenticate_client_basic_encodes_each_half(
    declare: Declare, client_id: str, client_secret: str, userpass: bytes
) -> None:
    declaration = declare(client_id=client_id, client_secret=client_secret)
    headers, parameters = authenticate_client(declaration=declaration, parameters={"a": "b"})
    scheme, _, credentials = headers["Authorization"].partition(" ")
    assert (scheme, base64.b64decode(credentials)) == ("Basic", userpass)
    assert parameters == {"a": "b"}


def test_authenticate_client_post_puts_both_in_the_form_and_no_header(declare: Declare) -> None:
    given = {"a": "b"}
    declaration = declare(token_endpoint_auth_method="client_secret_post")
    headers, parameters = authenticate_client(declaration=declaration, parameters=given)
    assert headers == {}
    assert parameters == {"a": "b", "client_id": "portal", "client_secret": "s3cret"}
    assert given == {"a": "b"}


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
def test_build_client_request_either_method_keeps_url_and_repr_clean(declare: Declare, method: str) -> None:
    declaration = declare(token_endpoint_auth_method=method, client_secret="a secret")
    request = build_client_request(
        url="https://op.example/token?x=y", declaration=declaration, parameters={"code": "c&d=é"}
    )
    assert (request.method, request.url) == ("POST", "https://op.example/token?x=y")
    assert request.headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert ("Authorization" in request.headers) is (method == "client_secret_basic")
    form = parse_qs((request.body or b"").decode(), strict_parsing=True)
    assert form["code"] == ["c&d=é"]
    assert form.get("client_secret") == (["a secret"] if method == "client_secret_post" else None)
    assert "secret" not in repr(request)
