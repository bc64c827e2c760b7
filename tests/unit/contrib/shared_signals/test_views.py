"""Pushed security events over a socket: what they end and demand, and what is refused. Spec: RFC 8935, SSF 1.0."""

import json
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.db.models import F

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.events import Action, Origin
from django_phi_oidc.audit.request_context import Actor
from django_phi_oidc.contrib.shared_signals.sign_in_demands import is_new_sign_in_demanded
from django_phi_oidc.replay.models import UsedIdentifier
from django_phi_oidc.sessions.models import OIDCSession, PendingRevocation
from django_phi_oidc.testing.mock_provider import DemoProvider, MutableExchange, create_signing_key
from django_phi_oidc.testing.mock_provider.backchannel import create_logout_token
from django_phi_oidc.testing.mock_provider.messages import ReceivedRequest
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.security_events import (
    CAEP,
    RISC,
    SESSION_REVOKED,
    SSF,
    create_event,
    person,
    push,
    push_event,
    read_error,
)
from tests.support.session_fixtures import SignedIn, events
from tests.unit.contrib.shared_signals.conftest import SID, SUB, Declare
from tests.unit.sessions.logout_token_provider import declare
from tests.unit.sessions.provider_sessions import is_live, name, sign_in_again

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
SESSION = {"format": "opaque", "id": SID}


def received() -> list[dict[str, Any]]:
    return [json.loads(event.detail) for event in events(Action.SIGNAL_RECEIVED)]


def refused() -> list[str]:
    return [json.loads(event.detail)["rule"] for event in events(Action.SIGNAL_REFUSED)]


def count_end_events() -> int:
    return len(events(Action.SESSION_ENDED))


# What ends


@pytest.mark.parametrize(
    "event_type",
    [SESSION_REVOKED, f"{RISC}sessions-revoked", f"{RISC}account-disabled", f"{RISC}account-purged"],
)
def test_event_ends_the_sessions_of_its_person_and_queues_their_tokens(
    transmitter: DemoProvider, portal: str, amina: SignedIn, jonas: SignedIn, event_type: str
) -> None:
    elsewhere = sign_in_again(amina, sid="elsewhere", issuer=transmitter.issuer)
    response = push_event(transmitter, portal, event_type, SUB)
    assert (response.status, response.body) == (202, b"")
    assert (is_live(amina), is_live(jonas)) == (False, True)
    assert OIDCSession.objects.live().count() == 1, elsewhere
    assert set(OIDCSession.objects.exclude(ended_at=None).values_list("end_reason", flat=True)) == {"security_event"}
    assert PendingRevocation.objects.count() == 4
    assert [item["event"] for item in received()] == [event_type.split("/secevent/")[1].replace("/event-type", "")]


@pytest.mark.parametrize(
    ("sub_id", "ends"),
    [
        ({"format": "complex", "user": "person", "session": SESSION}, {"here"}),
        ({"format": "complex", "session": SESSION}, {"here"}),
        (SESSION, {"here"}),
        ({"format": "opaque", "id": SUB}, {"here", "elsewhere"}),
        ({"format": "complex", "user": {"format": "opaque", "id": SUB}}, {"here", "elsewhere"}),
        ({"format": "complex", "user": "person", "session": {"format": "opaque", "id": "unknown"}}, set()),
        ({"format": "opaque", "id": "unknown"}, set()),
        ({"format": "email", "email": SUB}, set()),
        ({"format": "complex", "user": {"format": "email", "email": SUB}}, set()),
    ],
)
def test_session_revoked_ends_only_what_its_subject_names(
    transmitter: DemoProvider,
    portal: str,
    amina: SignedIn,
    jonas: SignedIn,
    sub_id: dict[str, Any],
    ends: set[str],
) -> None:
    sign_in_again(amina, sid="elsewhere", issuer=transmitter.issuer)
    if sub_id.get("user") == "person":
        sub_id = {**sub_id, "user": person(transmitter, SUB)}
    assert push_event(transmitter, portal, sub_id=sub_id).status == 202
    here = not is_live(amina)
    elsewhere = OIDCSession.objects.live().filter(subject=amina.subject).exclude(pk=amina.session.pk).count() == 0
    assert {name for name, ended in {"here": here, "elsewhere": elsewhere}.items() if ended} == ends
    assert is_live(jonas)
    assert len(received()) == 1


def test_session_without_a_known_sid_counts_as_the_one_that_is_named(
    transmitter: DemoProvider, portal: str, amina: SignedIn
) -> None:
    OIDCSession.objects.filter(pk=amina.session.pk).update(sid_digest="")
    unknown = {"format": "opaque", "id": "unknown"}
    complex_subject = {"format": "complex", "user": person(transmitter, SUB), "session": unknown}
    assert push_event(transmitter, portal, sub_id=complex_subject).status == 202
    assert not is_live(amina)


def test_account_disabled_with_a_session_ends_all_sessions_of_the_person(
    transmitter: DemoProvider, portal: str, amina: SignedIn
) -> None:
    subject = {"format": "complex", "user": person(transmitter, SUB), "session": {"format": "opaque", "id": "unknown"}}
    assert push_event(transmitter, portal, f"{RISC}account-disabled", sub_id=subject).status == 202
    assert not is_live(amina)


def test_event_of_one_provider_ends_no_session_of_another_one(
    transmitter: DemoProvider, portal: str, amina: SignedIn, sign_in: Callable[..., SignedIn]
) -> None:
    namesake = name(sign_in(), sub=SUB, sid=SID, issuer="https://other.example")
    assert push_event(transmitter, portal, sub=SUB).status == 202
    assert (is_live(amina), is_live(namesake)) == (False, True)
    foreign = {**person(transmitter, SUB), "iss": "https://other.example"}
    assert read_error(push_event(transmitter, portal, sub_id=foreign)) == "invalid_request"
    assert is_live(namesake)


# Any order, late, repeated


@pytest.mark.parametrize(("seconds", "ends"), [(-29, True), (-31, False)])
def test_session_that_began_after_the_event_is_not_ended(
    transmitter: DemoProvider, portal: str, amina: SignedIn, seconds: int, ends: bool
) -> None:
    started_at = OIDCSession.objects.get(pk=amina.session.pk).started_at
    happened = {"event_timestamp": (started_at + timedelta(seconds=seconds)).timestamp()}
    assert push_event(transmitter, portal, sub=SUB, event=happened).status == 202
    assert is_live(amina) is not ends


@pytest.mark.parametrize("seconds", [0, 1.5, 1e9, 4e9])
def test_time_of_the_event_may_be_long_ago_or_in_the_future(
    transmitter: DemoProvider, portal: str, amina: SignedIn, seconds: Any
) -> None:
    """One that is in the future counts as now."""
    for event_type in (f"{CAEP}credential-change", SESSION_REVOKED):
        response = push_event(transmitter, portal, event_type, SUB, event={"event_timestamp": seconds})
        assert response.status == 202
    assert is_live(amina) is (seconds < 2e9)


@pytest.mark.parametrize("value", [-1, 1e300, 10**30, True, "1", None, [1]])
def test_time_of_the_event_that_is_no_date_is_refused(
    transmitter: DemoProvider, portal: str, amina: SignedIn, value: Any
) -> None:
    response = push_event(transmitter, portal, sub=SUB, event={"event_timestamp": value})
    assert read_error(response) == "invalid_request"
    assert (is_live(amina), refused()) == (True, ["events_invalid"])


def test_event_that_is_sent_twice_is_acknowledged_and_has_no_second_effect(
    transmitter: DemoProvider, portal: str, amina: SignedIn
) -> None:
    token = create_event(transmitter, SESSION_REVOKED, SUB)
    assert push(transmitter, portal, token).status == 202
    sign_in_again(amina, sid=SID, issuer=transmitter.issuer)
    assert push(transmitter, portal, token).status == 202
    assert OIDCSession.objects.live().count() == 1, "a replayed event ends no new session"
    assert (len(received()), count_end_events()) == (1, 1)


def test_same_jti_of_another_receiver_of_the_same_transmitter_is_another_event(
    transmitter: DemoProvider, portal: str, amina: SignedIn, settings: Any
) -> None:
    """RFC 8417 2.2: a jti is unique within one feed."""
    (provider,) = settings.PHI_OIDC["PROVIDERS"].values()
    other = {**provider, "client_id": "other", "signals": {**provider["signals"], "audience": ["other"]}}
    declare(settings, default=provider, other=other)

    def address_to_other(stage: str, exchange: MutableExchange) -> None:
        if stage == "security_event":
            exchange.claims["aud"] = "other"

    transmitter.mutate = address_to_other
    assert push_event(transmitter, portal, f"{RISC}account-enabled", SUB, jti="j1").status == 202
    transmitter.mutate = None
    assert is_live(amina)
    assert push_event(transmitter, portal, sub=SUB, jti="j1").status == 202
    assert not is_live(amina)


@pytest.mark.postgresql
def test_event_that_is_sent_eight_times_at_once_has_one_effect(
    transmitter: DemoProvider, portal: str, amina: SignedIn
) -> None:
    token = create_event(transmitter, SESSION_REVOKED, SUB)
    with ThreadPoolExecutor(8) as executor:
        answers = list(executor.map(lambda _: push(transmitter, portal, token).status, range(8)))
    assert answers == [202] * 8
    assert not is_live(amina)
    assert (count_end_events(), PendingRevocation.objects.count()) == (1, 2)


def test_two_events_end_what_they_name_in_either_order(
    transmitter: DemoProvider, portal: str, amina: SignedIn, jonas: SignedIn
) -> None:
    now = clock.now()
    later = create_event(transmitter, SESSION_REVOKED, SUB, event={"event_timestamp": now.timestamp()})
    earlier = create_event(transmitter, f"{RISC}account-disabled", "another-sub", now=now - timedelta(days=7), event={})
    assert [push(transmitter, portal, token).status for token in (later, earlier)] == [202, 202]
    assert (is_live(amina), is_live(jonas)) == (False, True), "a week-old event ends no session of today"
    assert len(received()) == 2


def test_late_event_refuses_a_sign_in_in_progress_but_forgets_no_later_end(
    transmitter: DemoProvider, portal: str, amina: SignedIn
) -> None:
    now = clock.now()
    push_event(transmitter, portal, sub=SUB, event={"event_timestamp": now.timestamp()})
    memories = dict(UsedIdentifier.objects.filter(kind="security_event_end").values_list("digest", "until"))
    push_event(transmitter, portal, sub=SUB, event={"event_timestamp": (now - timedelta(minutes=5)).timestamp()})
    assert memories
    assert dict(UsedIdentifier.objects.filter(kind="security_event_end").values_list("digest", "until")) == memories


# A new sign-in, claims, identifiers


def actor(signed_in: SignedIn, auth_time: Any) -> Actor:
    return Actor(user=signed_in.user, origin=Origin(session=str(signed_in.session.pk)), auth_time=auth_time)


@pytest.mark.parametrize(
    "event_type",
    [
        f"{CAEP}credential-change",
        f"{CAEP}assurance-level-change",
        f"{RISC}account-credential-change-required",
        f"{RISC}credential-compromise",
    ],
)
def test_event_demands_a_sign_in_that_is_newer_than_it(
    transmitter: DemoProvider, portal: str, amina: SignedIn, jonas: SignedIn, event_type: str
) -> None:
    before = clock.now() - timedelta(seconds=10)
    OIDCSession.objects.update(auth_time=before)
    happened_at = clock.now()
    event = {"event_timestamp": happened_at.timestamp()}
    assert not is_new_sign_in_demanded(actor(amina, before))
    assert push_event(transmitter, portal, event_type, SUB, event=event).status == 202
    assert is_live(amina)
    assert is_new_sign_in_demanded(actor(amina, before))
    assert is_new_sign_in_demanded(actor(amina, None))
    assert not is_new_sign_in_demanded(actor(amina, happened_at + timedelta(seconds=1)))
    assert not is_new_sign_in_demanded(actor(jonas, before))
    # An earlier event that comes later takes nothing back.
    earlier = {"event_timestamp": (happened_at - timedelta(seconds=5)).timestamp()}
    assert push_event(transmitter, portal, event_type, SUB, event=earlier).status == 202
    assert is_new_sign_in_demanded(actor(amina, happened_at - timedelta(seconds=1)))


def test_demand_is_for_later_sessions_of_the_person_too(
    transmitter: DemoProvider, portal: str, amina: SignedIn, jonas: SignedIn
) -> None:
    """Single sign-on after a sign-out would meet the demand with the doubtful authentication."""
    before = clock.now() - timedelta(seconds=10)
    OIDCSession.objects.filter(pk=amina.session.pk).delete()
    assert push_event(transmitter, portal, f"{CAEP}credential-change", SUB).status == 202

    def later(signed_in: SignedIn, auth_time: Any) -> Actor:
        origin = Origin(session=str(uuid.uuid4()))
        return Actor(user=signed_in.user, origin=origin, subject=str(signed_in.subject.uuid), auth_time=auth_time)

    assert is_new_sign_in_demanded(later(amina, before))
    assert not is_new_sign_in_demanded(later(amina, clock.now() + timedelta(seconds=1)))
    assert not is_new_sign_in_demanded(later(jonas, before))


@pytest.mark.parametrize(
    "options", [{"reauthentication": "never"}, {"reauthentication": "request"}, {"allow_auth_time_zero": True}], ids=str
)
def test_sessions_end_if_the_provider_cannot_be_asked_for_a_new_sign_in(
    transmitter: DemoProvider, portal: str, amina: SignedIn, settings: Any, options: dict[str, Any]
) -> None:
    (provider,) = settings.PHI_OIDC["PROVIDERS"].values()
    providers = {"default": {**provider, **options}}
    settings.PHI_OIDC = {**settings.PHI_OIDC, "PROVIDERS": providers}
    assert push_event(transmitter, portal, f"{CAEP}credential-change", SUB).status == 202
    assert not is_live(amina)


def test_without_declared_signals_no_demand_is_looked_up(
    amina: SignedIn, transmitter: DemoProvider, settings: Any, django_assert_num_queries: Any
) -> None:
    with django_assert_num_queries(1):
        is_new_sign_in_demanded(actor(amina, None))
    (provider,) = settings.PHI_OIDC["PROVIDERS"].values()
    settings.PHI_OIDC = {**settings.PHI_OIDC, "PROVIDERS": {"default": {**provider, "signals": None}}}
    with django_assert_num_queries(0):
        assert not is_new_sign_in_demanded(actor(amina, None))


def test_changed_claims_end_the_sessions_by_default(transmitter: DemoProvider, portal: str, amina: SignedIn) -> None:
    event = {"claims": {"role": "guest"}}
    assert push_event(transmitter, portal, f"{CAEP}token-claims-change", SUB, event=event).status == 202
    assert not is_live(amina)


def test_changed_claims_expire_the_access_tokens_if_declared(
    transmitter: DemoProvider, portal: str, amina: SignedIn, declare_signals: Declare
) -> None:
    declare_signals(token_claims_change="refresh")
    sign_in_again(amina, sid="without", issuer=transmitter.issuer)
    OIDCSession.objects.exclude(pk=amina.session.pk).update(refresh_token=None)
    assert push_event(transmitter, portal, f"{CAEP}token-claims-change", SUB, event={"claims": {}}).status == 202
    assert is_live(amina)
    live = OIDCSession.objects.live()
    assert live.filter(access_token_expires_at__lte=clock.now()).count() == 1
    assert live.count() == 1, "a session whose token cannot be refreshed ends"


@pytest.mark.parametrize(
    ("event_type", "event", "rule"),
    [
        (f"{RISC}identifier-changed", {"new-value": "new@example.org"}, "identifier_changed"),
        (f"{RISC}identifier-recycled", {}, "identifier_recycled"),
        (f"{SSF}stream-updated", {"status": "disabled"}, "signals_stopped"),
        (f"{SSF}stream-updated", {"status": "enabled"}, ""),
    ],
)
def test_event_raises_an_alert_without_its_values(
    transmitter: DemoProvider, portal: str, amina: SignedIn, event_type: str, event: dict[str, Any], rule: str
) -> None:
    assert push_event(transmitter, portal, event_type, SUB, event=event).status == 202
    assert is_live(amina)
    assert [json.loads(alert.detail) for alert in events(Action.ALERT_RAISED)] == ([{"rule": rule}] if rule else [])


@pytest.mark.parametrize(
    "sub_id", [{"format": "email", "email": "old@example.org"}, {"format": "phone_number", "phone_number": "+1555"}]
)
@pytest.mark.parametrize("name", ["identifier-changed", "identifier-recycled"])
def test_alert_about_an_address_needs_no_recognizable_person(
    transmitter: DemoProvider, portal: str, amina: SignedIn, name: str, sub_id: dict[str, Any]
) -> None:
    """RISC 1.0 2.5 and 2.6: the subject is the address."""
    assert push_event(transmitter, portal, f"{RISC}{name}", sub_id=sub_id).status == 202
    assert is_live(amina)
    (alert,) = events(Action.ALERT_RAISED)
    assert (json.loads(alert.detail), alert.subject) == ({"rule": name.replace("-", "_")}, "")


@pytest.mark.parametrize("event_type", [f"{RISC}account-enabled", f"{CAEP}session-established", "https://x.example/e"])
def test_event_without_an_effect_is_accepted_and_recorded(
    transmitter: DemoProvider, portal: str, amina: SignedIn, event_type: str
) -> None:
    assert push_event(transmitter, portal, event_type, SUB).status == 202
    assert is_live(amina)
    assert len(received()) == 1
    assert "x.example" not in received()[0]["event"]


# What is refused


def replace(**claims: Any) -> Callable[[str, MutableExchange], None]:
    return lambda stage, exchange: exchange.claims.update(claims) if stage == "security_event" else None


def lie(change: Callable[[MutableExchange], Any]) -> Callable[[str, MutableExchange], None]:
    def hook(stage: str, exchange: MutableExchange) -> None:
        if stage == "security_event":
            change(exchange)

    return hook


def sign_with_another_key(exchange: MutableExchange) -> None:
    exchange.key = create_signing_key(exchange.header["alg"], kid=exchange.header["kid"])


LIES: dict[str, tuple[Callable[[str, MutableExchange], None], str, str]] = {
    "a foreign key": (lie(sign_with_another_key), "signature_invalid", "invalid_key"),
    "an unknown kid": (lie(lambda exchange: exchange.header.update(kid="x")), "key_not_found", "invalid_key"),
    "alg none": (lie(lambda exchange: exchange.header.update(alg="none")), "alg_not_allowed", "invalid_key"),
    "HMAC by the public key": (lie(lambda e: e.header.update(alg="HS256")), "alg_not_allowed", "invalid_key"),
    "another issuer": (replace(iss="https://other.example"), "iss_invalid", "invalid_issuer"),
    "another audience": (replace(aud="another"), "aud_invalid", "invalid_audience"),
    "an exp": (replace(exp=9999999999), "exp_invalid", "invalid_request"),
    "a sub": (replace(sub=SUB), "sub_invalid", "invalid_request"),
    "thirty-one days old": (
        lie(lambda e: e.claims.update(iat=e.claims["iat"] - 31 * 86400)),
        "iat_invalid",
        "invalid_request",
    ),
    "the type of a logout token": (lie(lambda e: e.header.update(typ="logout+jwt")), "typ_invalid", "invalid_request"),
    "no type": (lie(lambda e: e.header.pop("typ")), "typ_invalid", "invalid_request"),
}


@pytest.mark.parametrize(("hook", "rule", "error"), LIES.values(), ids=LIES)
def test_lie_of_the_transmitter_is_refused_and_the_truth_is_accepted(
    transmitter: DemoProvider,
    portal: str,
    amina: SignedIn,
    hook: Callable[[str, MutableExchange], None],
    rule: str,
    error: str,
) -> None:
    transmitter.mutate = hook
    assert read_error(push_event(transmitter, portal, sub=SUB)) == error
    assert (is_live(amina), refused(), received()) == (True, [rule], [])
    transmitter.mutate = None
    assert push_event(transmitter, portal, sub=SUB).status == 202
    assert not is_live(amina)


def test_logout_token_and_id_token_are_no_events(transmitter: DemoProvider, portal: str, amina: SignedIn) -> None:
    logout_token = create_logout_token(transmitter.state, transmitter.state.clients["portal"], sub=SUB)
    assert read_error(push(transmitter, portal, logout_token)) == "invalid_request"
    claims = {"iss": transmitter.issuer, "aud": "portal", "sub": SUB, "iat": int(clock.now().timestamp())}
    id_token = transmitter.state.sign_claims(
        "id_token", ReceivedRequest(method="", path=""), {**claims, "exp": claims["iat"] + 60}
    )
    assert read_error(push(transmitter, portal, id_token)) == "invalid_request"
    assert is_live(amina)


@pytest.mark.parametrize("authorization", ["", "Bearer another", "declared-for-the-stream"])
def test_push_without_the_declared_authorization_is_refused(
    transmitter: DemoProvider, portal: str, amina: SignedIn, authorization: str
) -> None:
    token = create_event(transmitter, SESSION_REVOKED, SUB)
    response = push(transmitter, portal, token, authorization=authorization)
    assert read_error(response) == "authentication_failed"
    assert (is_live(amina), refused()) == (True, ["authorization_invalid"])
    assert [request.path for request in transmitter.requests] == [], "no key is fetched for a stranger"
    assert push(transmitter, portal, token).status == 202
    assert not is_live(amina)


def test_push_needs_no_authorization_if_none_is_declared(
    transmitter: DemoProvider, portal: str, amina: SignedIn, declare_signals: Declare
) -> None:
    declare_signals(push_authorization="")
    token = create_event(transmitter, SESSION_REVOKED, SUB)
    assert push(transmitter, portal, token, authorization="").status == 202
    assert not is_live(amina)


@pytest.mark.parametrize("body", ["", "x" * (64 * 1024 + 1), "é"])
def test_body_that_is_no_token_is_refused(transmitter: DemoProvider, portal: str, body: str) -> None:
    assert read_error(push(transmitter, portal, body.encode())) == "invalid_request"  # type: ignore[arg-type]


def test_without_a_declared_push_the_endpoint_does_not_exist(
    transmitter: DemoProvider, portal: str, amina: SignedIn, declare_signals: Declare
) -> None:
    declare_signals(delivery="poll")
    assert push_event(transmitter, portal, sub=SUB).status == 404
    assert is_live(amina)


# Faults: nothing is acknowledged


def test_unreachable_keys_are_no_refusal(transmitter: DemoProvider, portal: str, amina: SignedIn) -> None:
    token = create_event(transmitter, SESSION_REVOKED, SUB)
    transmitter.stop()
    try:
        response = push(transmitter, portal, token)
    finally:
        transmitter.start()
    assert (response.status, response.headers["retry-after"]) == (503, "30")
    assert (is_live(amina), received(), refused()) == (True, [], [])
    assert push(transmitter, portal, token).status == 202
    assert not is_live(amina)


def test_missing_subject_key_is_no_acknowledgement(
    transmitter: DemoProvider, portal: str, amina: SignedIn, settings: Any
) -> None:
    token, complete = create_event(transmitter, SESSION_REVOKED, SUB), settings.PHI_OIDC
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"subject": []})
    assert push(transmitter, portal, token).status == 503
    assert is_live(amina)
    settings.PHI_OIDC = complete
    assert push(transmitter, portal, token).status == 202
    assert not is_live(amina)


def test_event_is_recorded_with_the_pseudonym_and_the_address(
    transmitter: DemoProvider, portal: str, amina: SignedIn
) -> None:
    push_event(transmitter, portal, sub=SUB)
    (event,) = events(Action.SIGNAL_RECEIVED)
    assert (event.subject, event.provider, event.client_ip) == (str(amina.subject.uuid), "default", "127.0.0.1")
    assert SUB not in event.detail
    (ended,) = events(Action.SESSION_ENDED)
    assert event.occurred_at <= ended.occurred_at


def test_tokens_are_leased_for_the_attempt_of_the_request(
    transmitter: DemoProvider, portal: str, amina: SignedIn
) -> None:
    push_event(transmitter, portal, sub=SUB)
    assert PendingRevocation.objects.filter(attempts=1).count() == 2
    assert not PendingRevocation.objects.filter(lease_until__gt=F("due_at") + timedelta(hours=1)).exists()
