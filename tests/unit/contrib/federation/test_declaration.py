"""The option `federation`: each mistake next to the accepted value."""

import json
from pathlib import Path
from typing import Any

import pytest

from django_phi_oidc.config.providers import ProviderDeclaration, parse_provider
from django_phi_oidc.contrib.federation.declaration import FederationDeclaration
from django_phi_oidc.errors import DeclarationInvalid
from tests.support.client_keys import create_private_key_pem

PEM, FEDERATION_PEM = create_private_key_pem("EC"), create_private_key_pem("EC")
JWKS = {"keys": [{"kty": "EC", "crv": "P-256", "x": "x", "y": "y", "kid": "a"}]}
FEDERATION = {
    "trust_anchor": "https://ta.example",
    "trust_anchor_keys": JWKS,
    "authority_hints": ["https://ta.example"],
    "keys": FEDERATION_PEM,
}
PROVIDER = {
    "issuer": "https://op.example",
    "client_id": "https://portal.example/rp",
    "token_endpoint_auth_method": "private_key_jwt",
    "client_keys": PEM,
    "par": "require",
}


def parse(federation: Any = FEDERATION, **changes: Any) -> ProviderDeclaration:
    return parse_provider("default", {**PROVIDER, "federation": federation, **changes})


def test_declaration_has_the_options_of_the_federation(tmp_path: Path) -> None:
    (path := tmp_path / "anchor.json").write_text(json.dumps(JWKS))
    marks = [{"trust_mark_type": "https://ta.example/mark", "trust_mark": "a.b.c"}]
    provider = parse({**FEDERATION, "trust_anchor_keys": path, "trust_marks": marks})
    federation = provider.find_option(FederationDeclaration)
    assert federation is not None
    assert json.loads(federation.trust_anchor_keys) == JWKS
    assert [dict(mark) for mark in federation.trust_marks] == marks
    assert federation.authority_hints == ("https://ta.example",)
    assert [key.use for key in federation.keys] == ["sig"]
    assert (federation.organization_name, federation.contacts) == ("", ())
    assert hash(parse()) == hash(parse())


def test_provider_without_federation_is_not_affected() -> None:
    assert parse(None, client_id="portal", par="auto").app_options == ()


@pytest.mark.parametrize("option", ["trust_anchor", "trust_anchor_keys", "authority_hints", "keys"])
def test_required_option_is_named_if_it_is_missing(option: str) -> None:
    with pytest.raises(DeclarationInvalid, match=f"lacks {option}"):
        parse({name: value for name, value in FEDERATION.items() if name != option})


@pytest.mark.parametrize(
    "changes",
    [
        {"trust_anchor": "ta.example"},
        {"trust_anchor": "https://ta.example?x=1"},
        {"trust_anchor": "https://ta.example#x"},
        {"trust_anchor": f"https://ta.example/{'x' * 255}"},
        {"trust_anchor_keys": {}},
        {"trust_anchor_keys": {"keys": []}},
        {"trust_anchor_keys": {"keys": ["x"]}},
        {"trust_anchor_keys": {"keys": [{"kty": "EC"}]}},
        {"trust_anchor_keys": {"keys": [{**JWKS["keys"][0], "d": "x"}]}},
        {"trust_anchor_keys": json.dumps(JWKS)},
        {"trust_anchor_keys": Path("/nowhere/anchor.json")},
        {"trust_anchor_keys": Path(__file__)},
        {"authority_hints": []},
        {"authority_hints": "https://ta.example"},
        {"authority_hints": ["ta.example"]},
        {"keys": []},
        {"keys": {"key": FEDERATION_PEM, "use": "enc"}},
        {"keys": PEM},
        {"trust_marks": "x"},
        {"trust_marks": ["x"]},
        {"trust_marks": [{"trust_mark_type": "x"}]},
        {"trust_marks": [{"trust_mark": 1}]},
        {"trust_marks": [{"trust_mark": ""}]},
        {"contacts": "ops@portal.example"},
        {"trust_anchors": "x"},
    ],
    ids=",".join,
)
def test_option_with_a_mistake_is_refused(changes: dict[str, Any]) -> None:
    parse()
    with pytest.raises(DeclarationInvalid) as refused:
        parse({**FEDERATION, **changes})
    assert "federation" in str(refused.value)
    assert "PRIVATE" not in str(refused.value)


@pytest.mark.parametrize(
    ("mistaken", "corrected"),
    [
        ({"client_id": "portal"}, {}),
        ({"client_id": "https://portal.example/?x=1"}, {}),
        ({"token_endpoint_auth_method": "client_secret_basic", "client_secret": "s", "client_keys": []}, {}),
        ({"par": "auto"}, {"par": "auto", "request_object_signing_alg": "ES256"}),
        ({"metadata_overrides": {"token_endpoint": "https://op.example/token"}}, {}),
        ({"metadata_url": "https://op.example/metadata"}, {}),
        ({"metadata_url": "https://op.example/metadata", "metadata_issuer": "https://fhir.example"}, {}),
        ({"client_keys": FEDERATION_PEM}, {}),
    ],
    ids=",".join,
)
def test_option_that_contradicts_automatic_registration_is_refused(
    mistaken: dict[str, Any], corrected: dict[str, Any]
) -> None:
    with pytest.raises(DeclarationInvalid):
        parse(**mistaken)
    parse(**corrected)
    # Without a federation, each of them is accepted.
    parse(None, **mistaken)
