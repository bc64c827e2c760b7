"""An event as one sentence."""

from typing import Any, NamedTuple

import pytest

from django_phi_oidc.audit.descriptions.event_sentences import describe_event


class StoredEvent(NamedTuple):
    action: str
    reason: str = ""
    detail: str = "{}"


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        (("login.succeeded", "", '{"claims":[]}'), "Sign-in"),
        (("login.succeeded", "", '{"claims":["birthdate"]}'), "Sign-in: personal data stored (birthdate)"),
        (("login.succeeded", "break_glass"), "Sign-in: signed in with a local password"),
        (("login.refused", "state_unknown"), "Sign-in refused: this browser has no pending sign-in"),
        (("login.refused", "guessing", '{"count":1}'), "Sign-in refused: too many attempts (1 time)"),
        (
            ("login.refused", "state_unknown", '{"count":70}'),
            "Sign-in refused: this browser has no pending sign-in (70 times)",
        ),
        (
            ("login.refused", "provider_error", '{"provider_error":"access_denied"}'),
            "Sign-in refused: the user cancelled, or the provider refused the user",
        ),
        (
            ("login.refused", "provider_error", '{"provider_error":"other"}'),
            "Sign-in refused: the provider answered with an error",
        ),
        (("session.ended", "idle_timeout", '{"tokens":2}'), "Session ended: idle timeout"),
        (
            ("token.revocation_failed", "http_503", '{"attempts":3,"status":"pending"}'),
            "Revocation failed: the server answered 503 (attempt 3)",
        ),
        (
            ("token.revocation_failed", "key_missing", '{"attempts":0}'),
            "Revocation failed: an encryption key is missing",
        ),
        (("logout.received", "", '{"sessions":0}'), "Sign-out at the provider: 0 sessions ended"),
        (("logout.received", "", '{"sessions":1}'), "Sign-out at the provider: 1 session ended"),
        (("claim.revealed", "complaint", '{"claim":"birthdate"}'), "Personal data disclosed: birthdate"),
        (("claim.stored", "", '{"claims":["birthdate","email"]}'), "Personal data stored: birthdate, email"),
        (("claim.scrubbed", "", '{"claims":[]}'), "Personal data erased"),
        (("alert.raised", "", '{"rule":"replay"}'), "Security alert raised: Repeated use of a token or sign-in"),
        (("alert.muted", "", '{"rule":"our_rule"}'), "Security alerts muted: our_rule"),
        (("audit.viewed", "", '{"page":"events"}'), "Audit log viewed: list of events"),
        (("audit.verified", "", '{"findings":0}'), "Audit log verified: no findings"),
        (("audit.verified", "", '{"findings":1}'), "Audit log verified: 1 finding"),
        (("hospital.chart_scanned", "lost"), "hospital.chart_scanned: lost"),
    ],
)
def test_event_is_described_by_a_sentence(fields: tuple[str, ...], sentence: str) -> None:
    assert describe_event(StoredEvent(*fields)) == sentence


@pytest.mark.parametrize("detail", ["", "[]", "no JSON", '{"attempts":"3"}', '{"attempts":null}'])
def test_altered_detail_is_left_out(detail: Any) -> None:
    event = StoredEvent("token.revocation_failed", "http_503", detail)
    assert describe_event(event) == "Revocation failed: the server answered 503"
