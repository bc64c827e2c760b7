"""The option `signals` of a provider: accepted and refused values."""

from typing import Any

import pytest

from django_phi_oidc.config.providers import parse_provider
from django_phi_oidc.contrib.shared_signals.declaration import SignalsDeclaration
from django_phi_oidc.errors import DeclarationInvalid

PROVIDER = {"issuer": "https://op.example", "client_id": "portal", "client_secret": "a secret"}
VALID = {
    "delivery": "push",
    "transmitter": "https://t.example/",
    "metadata_url": "https://t.example/.well-known/risc-configuration",
    "audience": ["https://portal.example/oidc/ssf/events/"],
    "push_authorization": "Bearer x",
    "access_token": "t",
    "events_requested": ["urn:x"],
    "token_claims_change": "refresh",
    "allow_draft_events": True,
}


def test_no_signals_are_declared_by_default() -> None:
    assert parse_provider("default", PROVIDER).find_option(SignalsDeclaration) is None


def test_repr_shows_no_secret() -> None:
    provider = parse_provider("default", {**PROVIDER, "signals": {**VALID, "access_token": "canary"}})
    signals = provider.find_option(SignalsDeclaration)
    assert signals is not None
    assert "canary" not in repr(signals)
    assert "Bearer x" not in repr(signals)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("delivery", "pull"),
        ("transmitter", "https://t.example/?x=1"),
        ("metadata_url", "t.example"),
        ("audience", "portal"),
        ("push_authorization", "Bearer x\n"),
        ("push_authorization", " x"),
        ("access_token", "ü"),
        ("events_requested", ["session-revoked"]),
        ("token_claims_change", "ignore"),
        ("allow_draft_events", 1),
        ("unknown", 1),
    ],
)
def test_one_wrong_value_is_refused(option: str, value: Any) -> None:
    assert parse_provider("default", {**PROVIDER, "signals": VALID}).find_option(SignalsDeclaration) is not None
    with pytest.raises(DeclarationInvalid) as raised:
        parse_provider("default", {**PROVIDER, "signals": {**VALID, option: value}})
    assert option in str(raised.value)
    assert "Bearer" not in str(raised.value)


def test_delivery_is_required() -> None:
    with pytest.raises(DeclarationInvalid, match="lacks delivery"):
        parse_provider("default", {**PROVIDER, "signals": {}})
