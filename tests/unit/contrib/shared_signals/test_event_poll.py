"""Polled security events: acknowledged after the commit, and only then. Spec: RFC 8936."""

import json
from datetime import timedelta
from typing import Any

import pytest

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.events import Action
from django_phi_oidc.contrib.shared_signals.event_poll import PollResult, poll_events
from django_phi_oidc.contrib.shared_signals.tasks import poll_signals
from django_phi_oidc.sessions.models import OIDCSession, PendingRevocation
from django_phi_oidc.testing.mock_provider import DemoProvider, MutableExchange
from django_phi_oidc.testing.mock_provider.event_streams import POLL, deliver_security_event
from django_phi_oidc.testing.mock_provider.state import TransmitterStream
from tests.support.audit_outage import audit_database_fails
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.security_events import RISC, SESSION_REVOKED, create_event
from tests.support.session_fixtures import SignedIn, events
from tests.unit.contrib.shared_signals.conftest import SUB, Declare
from tests.unit.sessions.provider_sessions import is_live, sign_in_again

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])


@pytest.fixture
def stream(transmitter: DemoProvider, declare_signals: Declare) -> TransmitterStream:
    """Return the stream that the portal polls."""
    declare_signals(delivery="poll")
    url = f"{transmitter.issuer}/ssf/poll?stream_id=s1"
    stream = TransmitterStream(stream_id="s1", client_id="portal", method=POLL, endpoint_url=url)
    transmitter.state.event_streams["s1"] = stream
    return stream


def send(
    op: DemoProvider, stream: TransmitterStream, event_type: str = SESSION_REVOKED, sub: str = SUB, **m: Any
) -> str:
    """Queue an event for the next poll, and return its token."""
    token = create_event(op, event_type, sub, **m)
    deliver_security_event(op.state, stream, token)
    return token


def poll() -> PollResult:
    return poll_events("default", clock=clock.now, budget_seconds=30)


def test_event_is_acknowledged_after_its_effect_and_the_tokens_are_revoked(
    transmitter: DemoProvider, stream: TransmitterStream, amina: SignedIn, jonas: SignedIn
) -> None:
    send(transmitter, stream, jti="j1")
    assert poll() == PollResult(acknowledged=1)
    assert (is_live(amina), is_live(jonas)) == (False, True)
    assert (stream.acknowledged, stream.queue) == (["j1"], {})
    assert PendingRevocation.objects.filter(attempts=1).count() == 2, "tried at once"


def test_more_events_than_one_response_holds_are_all_received(
    transmitter: DemoProvider, stream: TransmitterStream, amina: SignedIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django_phi_oidc.contrib.shared_signals.event_poll.MAX_EVENTS", 2)
    for number in range(5):
        send(transmitter, stream, f"{RISC}account-enabled", jti=f"j{number}")
    assert poll() == PollResult(acknowledged=5)
    assert len(events(Action.SIGNAL_RECEIVED)) == 5
    assert stream.queue == {}


def test_response_that_is_too_large_is_asked_for_singly(
    transmitter: DemoProvider, stream: TransmitterStream, amina: SignedIn
) -> None:
    for number in range(30):
        send(transmitter, stream, f"{RISC}account-enabled", jti=f"j{number}", event={"x": "y" * 30000})
    assert poll() == PollResult(acknowledged=30)
    assert stream.queue == {}


def test_refused_event_is_reported_and_does_not_block_the_others(
    transmitter: DemoProvider, stream: TransmitterStream, amina: SignedIn
) -> None:
    def lie(stage: str, exchange: MutableExchange) -> None:
        if stage == "security_event":
            exchange.claims["aud"] = "another"

    transmitter.mutate = lie
    send(transmitter, stream, jti="bad")
    transmitter.mutate = None
    send(transmitter, stream, jti="good")
    stream.queue["another-jti"] = create_event(transmitter, SESSION_REVOKED, SUB, jti="mine")
    assert poll() == PollResult(acknowledged=1, refused=2)
    assert stream.acknowledged == ["good"]
    assert {jti: error["err"] for jti, error in stream.errors.items()} == {
        "bad": "invalid_audience",
        "another-jti": "invalid_request",
    }
    assert [json.loads(event.detail)["rule"] for event in events(Action.SIGNAL_REFUSED)] == [
        "aud_invalid",
        "jti_invalid",
    ]
    assert not is_live(amina)


def test_poll_after_a_week_loses_nothing_and_ends_no_newer_session(
    transmitter: DemoProvider, stream: TransmitterStream, amina: SignedIn, jonas: SignedIn
) -> None:
    week_ago = clock.now() - timedelta(days=7)
    OIDCSession.objects.filter(pk=jonas.session.pk).update(started_at=week_ago - timedelta(hours=1))
    for number in range(20):
        send(transmitter, stream, f"{RISC}account-enabled", now=week_ago, jti=f"other-{number}")
    send(transmitter, stream, now=week_ago, jti="amina")
    send(transmitter, stream, sub="another-sub", now=week_ago, jti="jonas")
    assert poll() == PollResult(acknowledged=22)
    assert len(events(Action.SIGNAL_RECEIVED)) == 22
    assert (is_live(amina), is_live(jonas)) == (True, False)


def test_event_that_comes_again_is_acknowledged_without_a_second_effect(
    transmitter: DemoProvider, stream: TransmitterStream, amina: SignedIn
) -> None:
    token = send(transmitter, stream, jti="j1")
    poll()
    sign_in_again(amina, sid="new", issuer=transmitter.issuer)
    stream.queue["j1"] = token
    assert poll() == PollResult(acknowledged=1)
    assert OIDCSession.objects.live().count() == 1
    assert len(events(Action.SIGNAL_RECEIVED)) == 1


def test_without_the_audit_log_nothing_ends_and_nothing_is_acknowledged(
    transmitter: DemoProvider, stream: TransmitterStream, amina: SignedIn
) -> None:
    send(transmitter, stream, jti="j1")
    send(transmitter, stream, f"{RISC}account-enabled", jti="j2")
    with audit_database_fails():
        assert poll() == PollResult(left=2)
    assert is_live(amina)
    assert (stream.acknowledged, len(stream.queue)) == ([], 2)
    assert poll() == PollResult(acknowledged=2)
    assert not is_live(amina)


def test_without_a_subject_key_events_wait(
    transmitter: DemoProvider, stream: TransmitterStream, amina: SignedIn, settings: Any
) -> None:
    send(transmitter, stream, jti="j1")
    complete = settings.PHI_OIDC
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"subject": []})
    assert poll() == PollResult(left=1)
    settings.PHI_OIDC = complete
    assert poll() == PollResult(acknowledged=1)
    assert not is_live(amina)


def test_expired_access_token_is_replaced_once(
    transmitter: DemoProvider, stream: TransmitterStream, amina: SignedIn
) -> None:
    poll()
    transmitter.state.client_tokens.clear()
    send(transmitter, stream, jti="j1")
    assert poll() == PollResult(acknowledged=1)
    assert [request.path for request in transmitter.requests].count("/token") == 2


def test_task_polls_each_declared_provider_and_survives_an_outage(
    transmitter: DemoProvider, stream: TransmitterStream, amina: SignedIn, caplog: pytest.LogCaptureFixture
) -> None:
    send(transmitter, stream, jti="j1")
    transmitter.stop()
    try:
        poll_signals()
    finally:
        transmitter.start()
    assert is_live(amina)
    assert "fault=transport_unreachable provider=default" in caplog.text
    poll_signals()
    assert not is_live(amina)


def test_streams_of_another_transmitter_are_refused(
    transmitter: DemoProvider, stream: TransmitterStream, amina: SignedIn, caplog: pytest.LogCaptureFixture
) -> None:
    def lie(endpoint: str, exchange: MutableExchange) -> None:
        if endpoint == "ssf_streams":
            exchange.reply.json[0]["iss"] = "https://other.example"

    transmitter.mutate = lie
    send(transmitter, stream, jti="j1")
    poll_signals()
    assert is_live(amina)
    assert "fault=stream_refused" in caplog.text


def test_missing_stream_is_a_fault_and_not_silence(
    transmitter: DemoProvider, stream: TransmitterStream, amina: SignedIn, caplog: pytest.LogCaptureFixture
) -> None:
    poll_signals()
    assert caplog.text == ""
    transmitter.state.event_streams.clear()
    poll_signals()
    assert "fault=stream_refused provider=default" in caplog.text
