import json
from urllib.parse import parse_qs, urlsplit

import pytest

from django_phi_oidc.oidc.jose import encode_b64url
from django_phi_oidc.oidc.logout import build_end_session_url, may_be_hint
from django_phi_oidc.oidc.metadata import ProviderMetadata

PROTOCOL = {"iss", "sub", "aud"}


def url(endpoint: str, *, hint: str = "") -> str:
    metadata = ProviderMetadata(
        issuer="https://op.example",
        authorization_endpoint="https://op.example/a",
        token_endpoint="https://op.example/t",
        jwks_uri="https://op.example/k",
        end_session_endpoint=endpoint,
    )
    return build_end_session_url(
        metadata=metadata,
        client_id="a client&",
        post_logout_redirect_uri="https://rp.example/out/",
        state="s:1",
        id_token_hint=hint,
    )


def token(**claims: object) -> str:
    header, payload = ({"alg": "ES256"}, {"iss": "i", "sub": "s", **claims})
    return ".".join(encode_b64url(json.dumps(part).encode()) for part in (header, payload)) + ".AA"


def test_build_end_session_url_names_the_client_and_the_way_back() -> None:
    assert parse_qs(urlsplit(url("https://op.example/end")).query) == {
        "client_id": ["a client&"],
        "post_logout_redirect_uri": ["https://rp.example/out/"],
        "state": ["s:1"],
    }


def test_build_end_session_url_with_a_hint_sends_it() -> None:
    assert parse_qs(urlsplit(url("https://op.example/end", hint="a.b.c")).query)["id_token_hint"] == ["a.b.c"]


def test_build_end_session_url_keeps_the_query_of_the_endpoint() -> None:
    assert url("https://op.example/end?tenant=1").startswith("https://op.example/end?tenant=1&client_id=a%20client%26&")


def test_build_end_session_url_without_an_endpoint_is_empty() -> None:
    assert url("") == ""


@pytest.mark.parametrize(
    ("id_token", "allowed"),
    [
        (token(), True),
        (token(aud="portal"), True),
        (token(email="a@b"), False),
        (token(email=None), False),
        ("", False),
        ("not a token", False),
    ],
)
def test_may_be_hint_with_claims_of_the_protocol_alone_is_true(id_token: str, allowed: bool) -> None:
    assert may_be_hint(id_token, protocol_claims=PROTOCOL) is allowed
