"""What a session keeps of an ID Token, by its claims and the policy of its provider."""

import json
from typing import Any

import pytest

from django_phi_oidc.audit.events import MAX_ITEMS, Action, Origin
from django_phi_oidc.claims.minimization import PROTOCOL_CLAIMS
from django_phi_oidc.config.providers import IDTokenHint
from django_phi_oidc.sessions.kept_id_token import KEPT_CLAIMS, reduce_id_token
from tests.support.session_fixtures import NOW

PROTOCOL: dict[str, Any] = {name: f"a {name}" for name in PROTOCOL_CLAIMS}
KEPT = {name: f"a {name}" for name in ("iss", "sub", "aud", "azp", "auth_time", "nonce", "sid")}


@pytest.mark.parametrize(
    ("policy", "personal", "names"),
    [
        ("minimal", {}, ()),
        ("minimal", {"email": "a@b"}, None),
        ("minimal", {"email": None}, None),
        ("always", {}, ()),
        ("always", {"ssn": "1", "email": "a@b"}, ("email", "ssn")),
        ("never", {}, None),
        ("never", {"email": "a@b"}, None),
    ],
)
def test_g1_token_is_kept_without_personal_claims_or_by_the_policy_always(
    policy: IDTokenHint, personal: dict[str, Any], names: tuple[str, ...] | None
) -> None:
    """names: of the claims about the person in the kept token; None: it is not kept."""
    kept = reduce_id_token("a token", {**PROTOCOL, **personal}, policy=policy)
    assert kept.claims == KEPT
    assert (kept.token, kept.personal_claims) == (("", ()) if names is None else ("a token", names))
    assert json.loads(str(kept.columns["id_token_claims"])) == KEPT
    assert kept.columns["id_token"] == (None if names is None else "a token")
    assert "a sub" not in repr(kept)
    assert "a token" not in repr(kept)


def test_g1_absent_claims_stay_absent() -> None:
    assert reduce_id_token("a token", {"iss": "i", "azp": None}, policy="never").claims == {"iss": "i", "azp": None}
    assert set(KEPT_CLAIMS) <= PROTOCOL_CLAIMS


@pytest.mark.parametrize(
    ("known", "is_recorded"), [((), True), (("ssn",), True), (("email", "ssn"), False), (("a", "email", "ssn"), False)]
)
def test_g1_event_names_the_claims_unless_they_all_have_one(known: tuple[str, ...], is_recorded: bool) -> None:
    kept = reduce_id_token("a token", {**PROTOCOL, "ssn": "1", "email": "a@b"}, policy="always")
    events = kept.build_events(origin=Origin(session="s"), now=NOW, provider="default", subject="x", known=known)
    expected = {"claims": ["email", "ssn"], "place": "id_token"}
    assert [(event.action, event.detail) for event in events] == [(Action.CLAIM_STORED, expected)] * is_recorded


def test_g1_events_name_all_claims_of_a_token_with_more_than_an_event_has_room_for() -> None:
    names = {f"claim{number:03}": number for number in range(2 * MAX_ITEMS + 1)}
    kept = reduce_id_token("a token", {**PROTOCOL, **names}, policy="always")
    events = kept.build_events(origin=Origin(session="s"), now=NOW, provider="default", subject="x")
    details = [event.detail or {} for event in events]
    assert [len(detail["claims"]) for detail in details] == [MAX_ITEMS, MAX_ITEMS, 1]
    assert sorted(name for detail in details for name in detail["claims"]) == sorted(names)
