"""`phi_oidc signals` manages streams at a transmitter over a socket. Spec: SSF 1.0 8.1.

The tests named `receiver …` are the modules of the OpenID Foundation's test plan for SSF receivers, by description.
"""

import io
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.events import Action
from django_phi_oidc.sessions.models import OIDCSession
from django_phi_oidc.testing.mock_provider import DemoProvider, MutableExchange, create_signing_key
from django_phi_oidc.testing.mock_provider.event_streams import PUSH, SUPPORTED_EVENTS, deliver_security_event
from django_phi_oidc.testing.mock_provider.state import TransmitterStream
from tests.support.audit_outage import audit_database_fails
from tests.support.security_events import (
    AUTHORIZATION,
    CAEP,
    SESSION_REVOKED,
    SSF,
    create_event,
    push_event,
    read_error,
)
from tests.support.session_fixtures import SignedIn, events, sign_in  # noqa: F401 -- fixture
from tests.unit.contrib.shared_signals.conftest import (  # noqa: F401 -- fixtures
    SUB,
    Declare,
    amina,
    declare_signals,
    transmitter,
)
from tests.unit.sessions.logout_token_provider import _signing_provider, portal  # noqa: F401 -- fixtures
from tests.unit.sessions.provider_sessions import is_live

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])


def run(*words: str, **options: Any) -> str:
    out = io.StringIO()
    call_command("phi_oidc", "signals", *words, stdout=out, stderr=io.StringIO(), skip_checks=True, **options)
    return out.getvalue().strip()


def create(op: DemoProvider, portal_url: str) -> TransmitterStream:
    """Create a stream by the command, and return it as the transmitter has it."""
    run("create", "--portal", portal_url)
    (stream,) = op.state.event_streams.values()
    return stream


def operations() -> list[str]:
    return [json.loads(event.detail)["operation"] for event in events(Action.SIGNAL_STREAM_CHANGED)]


@pytest.fixture(params=["push", "poll"])
def delivery(request: pytest.FixtureRequest, declare_signals: Declare) -> str:
    declare_signals(delivery=request.param)
    return str(request.param)


def receive(delivery: str) -> None:
    """Fetch the events if they are polled."""
    if delivery == "poll":
        run("poll")


def test_receiver_stream_create_and_delete(transmitter: DemoProvider, portal: str, delivery: str) -> None:
    stream = create(transmitter, portal)
    if delivery == "push":
        expected = (PUSH, f"{portal}/oidc/ssf/events/", AUTHORIZATION)
        assert (stream.method, stream.endpoint_url, stream.authorization_header) == expected
    assert SESSION_REVOKED in stream.events_requested
    (row,) = [json.loads(line) for line in run("list", "--json").splitlines()]
    assert (row["stream"], row["audience"]) == (stream.stream_id, ["portal"])
    assert run("delete") == f"Stream {stream.stream_id} was deleted."
    assert transmitter.state.event_streams == {}
    assert operations() == ["create", "delete"]


def test_receiver_stream_status_update(transmitter: DemoProvider, portal: str, delivery: str) -> None:
    stream = create(transmitter, portal)
    assert run("status") == f"{stream.stream_id}: enabled"
    assert run("status", "--set", "paused") == f"{stream.stream_id}: paused"
    assert (stream.status, run("status")) == ("paused", f"{stream.stream_id}: paused")
    assert operations() == ["create", "status paused"]


def test_receiver_stream_verification(transmitter: DemoProvider, portal: str, delivery: str) -> None:
    stream = create(transmitter, portal)
    assert run("verify", "--seconds", "10") == f"Stream {stream.stream_id} delivers events."
    assert [json.loads(event.detail)["event"] for event in events(Action.SIGNAL_RECEIVED)] == ["ssf/verification"]


def test_receiver_happy_path(
    transmitter: DemoProvider,
    portal: str,
    delivery: str,
    amina: SignedIn,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream = create(transmitter, portal)
    stream.events_requested = []
    assert "was updated" in run("update")
    assert SESSION_REVOKED in stream.events_requested
    person = {"format": "iss_sub", "iss": transmitter.issuer, "sub": SUB}
    for operation, subjects in (("add", [person]), ("remove", []), ("add", [person])):
        monkeypatch.setattr("sys.stdin", io.StringIO(f"{SUB}\n"))
        run(operation)
        assert stream.subjects == subjects
    run("verify", "--seconds", "10")
    deliver_security_event(transmitter.state, stream, create_event(transmitter, SESSION_REVOKED, SUB))
    receive(delivery)
    assert not is_live(amina)
    run("delete")
    assert operations() == ["create", "update", "add_subject", "remove_subject", "add_subject", "delete"]
    assert SUB not in "".join(event.detail for event in events(Action.SIGNAL_STREAM_CHANGED))


def test_receiver_supported_events(transmitter: DemoProvider, portal: str, delivery: str, amina: SignedIn) -> None:
    stream = create(transmitter, portal)
    for event_type in SUPPORTED_EVENTS:
        deliver_security_event(transmitter.state, stream, create_event(transmitter, event_type, SUB))
    receive(delivery)
    assert len(events(Action.SIGNAL_RECEIVED)) == len(SUPPORTED_EVENTS)
    assert stream.queue == {}
    assert {response.status for response in stream.push_responses} <= {202}


def test_receiver_caep_interoperability(transmitter: DemoProvider, portal: str, delivery: str, amina: SignedIn) -> None:
    """session-revoked and credential-change, by RS256, with an iss_sub subject, and client credentials."""
    stream = create(transmitter, portal)
    (grant,) = {request.parameters.get("grant_type") for request in transmitter.requests if request.path == "/token"}
    assert grant == "client_credentials"
    event = {"credential_type": "fido2-roaming", "change_type": "create", "reason_admin": {"en": "x"}}
    for event_type, members in ((f"{CAEP}credential-change", event), (SESSION_REVOKED, {"reason_user": {"en": "x"}})):
        token = create_event(transmitter, event_type, SUB, event=members)
        deliver_security_event(transmitter.state, stream, token)
    receive(delivery)
    assert [json.loads(item.detail)["event"] for item in events(Action.SIGNAL_RECEIVED)] == [
        "caep/credential-change",
        "caep/session-revoked",
    ]
    assert not is_live(amina)


def lie(**changes: Any) -> Callable[[str, MutableExchange], None]:
    def hook(stage: str, exchange: MutableExchange) -> None:
        if stage == "security_event":
            exchange.claims |= changes.get("claims", {})
            if "key" in changes:
                exchange.key = create_signing_key(exchange.header["alg"], kid=exchange.header["kid"])
            exchange.header |= changes.get("header", {})

    return hook


def test_receiver_rejects_invalid_events(
    transmitter: DemoProvider, portal: str, delivery: str, amina: SignedIn
) -> None:
    stream = create(transmitter, portal)
    lies = {
        "invalid_key": lie(key="another"),
        "invalid_issuer": lie(claims={"iss": "https://other.example"}),
        "invalid_audience": lie(claims={"aud": "another"}),
    }
    for error, hook in lies.items():
        transmitter.mutate = hook
        deliver_security_event(transmitter.state, stream, create_event(transmitter, SESSION_REVOKED, SUB, jti=error))
    transmitter.mutate = None
    if delivery == "push":
        assert [read_error(response) for response in stream.push_responses] == list(lies)
    else:
        run("poll")
        assert {jti: answer["err"] for jti, answer in stream.errors.items()} == {error: error for error in lies}
    assert is_live(amina)


def test_receiver_acknowledges_a_redelivered_event(
    transmitter: DemoProvider, portal: str, delivery: str, amina: SignedIn
) -> None:
    stream = create(transmitter, portal)
    token = create_event(transmitter, SESSION_REVOKED, SUB)
    for _ in range(2):
        deliver_security_event(transmitter.state, stream, token)
        receive(delivery)
    assert (len(events(Action.SIGNAL_RECEIVED)), OIDCSession.objects.live().count()) == (1, 0)
    assert stream.queue == {}


def test_receiver_rejects_a_stream_of_another_issuer(transmitter: DemoProvider, portal: str) -> None:
    def hook(endpoint: str, exchange: MutableExchange) -> None:
        if endpoint == "ssf_streams" and exchange.method == "POST":
            exchange.reply.json["iss"] = "https://other.example"

    transmitter.mutate = hook
    with pytest.raises(CommandError, match="another transmitter"):
        run("create", "--portal", portal)


@pytest.mark.parametrize("claim", ["state", "sub_id"])
def test_receiver_rejects_a_verification_with_another_state_or_subject(
    transmitter: DemoProvider, portal: str, delivery: str, claim: str
) -> None:
    stream = create(transmitter, portal)
    changes = {
        "state": {"events": {f"{SSF}verification": {"state": "another"}}},
        "sub_id": {"sub_id": {"format": "opaque", "id": "another"}},
    }
    transmitter.mutate = lie(claims=changes[claim])
    with pytest.raises(CommandError, match="No verification event arrived"):
        run("verify", "--seconds", "0")
    errors = [read_error(response) for response in stream.push_responses] or [
        answer["err"] for answer in stream.errors.values()
    ]
    assert errors == ["invalid_state"]


def test_receiver_accepts_an_unsolicited_verification(transmitter: DemoProvider, portal: str) -> None:
    stream = create(transmitter, portal)
    sub_id = {"format": "opaque", "id": stream.stream_id}
    assert push_event(transmitter, portal, f"{SSF}verification", sub_id=sub_id).status == 202


def test_receiver_renews_an_expired_access_token(transmitter: DemoProvider, portal: str) -> None:
    create(transmitter, portal)
    transmitter.state.client_tokens.clear()
    assert "enabled" in run("status")


def test_declared_access_token_is_sent_and_none_is_requested(
    transmitter: DemoProvider, portal: str, declare_signals: Declare
) -> None:
    declare_signals(access_token="a-static-token")
    transmitter.state.client_tokens["a-static-token"] = ("portal", clock.now() + timedelta(days=1))
    create(transmitter, portal)
    assert "/token" not in [request.path for request in transmitter.requests]


def test_stream_is_not_changed_without_its_event(transmitter: DemoProvider, portal: str) -> None:
    with audit_database_fails(), pytest.raises(CommandError, match="audit_unavailable"):
        run("create", "--portal", portal)
    assert transmitter.state.event_streams == {}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["status"], "There is no stream"),
        (["status", "--stream", "unknown"], "answered 404"),
        (["poll"], "are pushed"),
        (["list", "--provider", "unknown"], "There is no provider"),
        (["create", "--portal", "your.host"], "must be an origin"),
    ],
)
def test_wrong_arguments_and_answers_are_reported(transmitter: DemoProvider, words: list[str], message: str) -> None:
    with pytest.raises(CommandError, match=message):
        run(*words)
