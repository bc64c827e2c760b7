import base64
import json
import logging
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import count, cycle
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.db import connection, connections, transaction
from django.test.utils import CaptureQueriesContext

from django_phi_oidc._internal import clock, randomness
from django_phi_oidc.audit.events import Action, Origin
from django_phi_oidc.audit.outbox import flush
from django_phi_oidc.crypto import keyring
from django_phi_oidc.oidc.token import ReceivedToken
from django_phi_oidc.sessions.lifecycle import end_session, end_sessions
from django_phi_oidc.sessions.models import EndReason, PendingRevocation, RevocationStatus
from django_phi_oidc.sessions.token_revocation import (
    LEASE_DURATION,
    MIN_ATTEMPTS,
    attempt_revocations,
    queue_revocations,
    reset_backoff,
    retry_due,
)
from tests.support.databases import child_environment
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.session_fixtures import (
    ACCESS_TOKEN,
    NOW,
    REFRESH_TOKEN,
    Answer,
    ScriptedOP,
    SignedIn,
    answering,
    declaration,
    declare,
    events,
    send,
    serving,
)

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])

GIVE_UP = timedelta(days=3)
TOKENS = (
    ReceivedToken(token_type_hint="refresh_token", value="refresh-canary"),
    ReceivedToken(token_type_hint="access_token", value="access-canary"),
)


def queue(*tokens: ReceivedToken, now: datetime = NOW) -> tuple[uuid.UUID, ...]:
    return queue_revocations(tokens or TOKENS[:1], provider="default", session_id=uuid.UUID(int=7), now=now)


def try_at(pk: uuid.UUID, now: datetime = NOW, *, deadline: float = 3.0) -> RevocationStatus | None:
    return attempt_revocations([pk], now=now, budget_seconds=deadline, give_up_after=GIVE_UP).get(pk)


def without_jitter(size: int) -> bytes:
    """Draw zeros for the jitter, and different bytes for ids."""
    return bytes(size) if size == 4 else secrets.token_bytes(size)


def list_due(now: datetime) -> list[uuid.UUID]:
    return list(PendingRevocation.objects.due(now).order_by("due_at").values_list("pk", flat=True))


def alerts() -> list[str]:
    return [event.detail for event in events(Action.ALERT_RAISED)]


def test_attempt_revokes_and_deletes_the_token(op: ScriptedOP) -> None:
    (pk,) = queue()
    assert try_at(pk) is RevocationStatus.DONE
    assert op.asked == [{"token": "refresh-canary", "token_type_hint": "refresh_token"}]
    basic = base64.b64encode(b"portal:a+secret+for+tests+only").decode()
    assert op.headers[0]["Authorization"] == f"Basic {basic}"
    row = PendingRevocation.objects.get()
    assert (row.status, row.token, row.attempts, row.lease_until, row.last_fault) == ("done", None, 1, None, "")
    assert row.finished_at is not None
    (event,) = events(Action.TOKEN_REVOKED)
    assert event.detail == '{"attempts":1,"hint":"refresh_token","status":"done"}'
    assert (event.session, event.provider, event.outcome) == (str(uuid.UUID(int=7)), "default", "success")


def test_attempt_of_a_finished_row_sends_no_request(op: ScriptedOP) -> None:
    (pk,) = queue()
    try_at(pk)
    assert try_at(pk) is None
    assert len(op.asked) == 1


def end_and_lease(signed_in: SignedIn) -> tuple[PendingRevocation, ...]:
    ids = [signed_in.session.pk]
    (ended,) = end_sessions(ids, EndReason.SESSION_LOST, origin=Origin(), now=NOW, lease_revocations=True)
    return ended.leased_revocations


@pytest.mark.parametrize("is_leased_since", [False, True])
def test_results_of_rows_created_with_a_lease_are_saved_unless_another_worker_has_leased_them(
    op: ScriptedOP, sign_in: Callable[..., SignedIn], *, is_leased_since: bool
) -> None:
    rows = end_and_lease(sign_in())
    if is_leased_since:
        PendingRevocation.objects.filter(pk=rows[0].pk).update(attempts=2)
    pks = [row.pk for row in rows]
    attempt_revocations(pks, leased=rows, now=NOW, budget_seconds=3.0, give_up_after=GIVE_UP)
    assert [asked["token"] for asked in op.asked] == [REFRESH_TOKEN, ACCESS_TOKEN]
    saved = dict(PendingRevocation.objects.values_list("token_type_hint", "status"))
    assert saved == {"refresh_token": "pending" if is_leased_since else "done", "access_token": "done"}
    assert len(events(Action.TOKEN_REVOKED)) == (1 if is_leased_since else 2)


@pytest.mark.parametrize(("seconds", "attempts", "is_tried"), [(0, 1, True), (28, 1, False), (30, 2, True)])
def test_lease_that_the_transaction_of_the_caller_used_up_is_acquired_again(
    op: ScriptedOP, sign_in: Callable[..., SignedIn], seconds: int, attempts: int, *, is_tried: bool
) -> None:
    rows = end_and_lease(sign_in())
    committed_at = NOW + timedelta(seconds=seconds)
    pks = [row.pk for row in rows]
    attempt_revocations(pks, leased=rows, now=committed_at, budget_seconds=3.0, give_up_after=GIVE_UP)
    # In the last moments of the lease, the calls could take longer than it: they are left to the sweep.
    assert len(op.asked) == (2 if is_tried else 0)
    assert set(PendingRevocation.objects.values_list("attempts", flat=True)) == {attempts}
    assert len(list_due(NOW + LEASE_DURATION)) == (0 if is_tried else 2)


def test_attempt_of_an_unknown_row_does_nothing(op: ScriptedOP) -> None:
    assert try_at(uuid.uuid4()) is None
    assert op.asked == []


FINAL = {
    "unsupported token type": (
        answering(400, {"error": "unsupported_token_type"}),
        RevocationStatus.UNSUPPORTED,
        "unsupported_token_type",
        [],
    ),
    "refused": (
        answering(400, {"error": "invalid_request"}),
        RevocationStatus.REFUSED,
        "http_400 invalid_request",
        ['{"provider_error":"invalid_request","rule":"revocation_refused"}'],
    ),
}


@pytest.mark.parametrize(("answer", "status", "fault", "alerted"), FINAL.values(), ids=FINAL)
def test_attempt_with_a_final_response_is_not_repeated(
    op: ScriptedOP, answer: Answer, status: RevocationStatus, fault: str, alerted: list[str]
) -> None:
    op.answer = answer
    (pk,) = queue()
    assert try_at(pk) is status
    row = PendingRevocation.objects.get()
    assert (row.status, row.last_fault, row.token) == (status, fault, None)
    assert try_at(pk, NOW + timedelta(days=1)) is None
    (event,) = events(Action.TOKEN_REVOCATION_FAILED)
    assert (event.reason, event.outcome) == (fault.partition(" ")[0], "failure")
    assert json.loads(event.detail)["provider_error"] == fault.rsplit(maxsplit=1)[-1]
    assert alerts() == alerted


LOGGED = {
    "refused": (
        answering(400, {"error": "unauthorized_client", "error_description": "Jane"}),
        "rule=revocation_refused reason=http_400 provider_error=unauthorized_client provider=default."
        " Allow the client the grant types authorization_code and refresh_token at the provider.",
    ),
    "not a registered error": (
        answering(403, {"error": "jane@op.example"}),
        'rule=revocation_blocked reason=http_403 provider_error=other provider=default. See "Troubleshooting" in the'
        " manual.",
    ),
    "a rejected client": (
        answering(401),
        "rule=revocation_blocked reason=invalid_client provider=default. client_id, client_secret,"
        " client_keys or client_certificate, and token_endpoint_auth_method must be those of the registration.",
    ),
}


@pytest.mark.parametrize(("answer", "line"), LOGGED.values(), ids=LOGGED)
def test_alert_about_a_revocation_is_logged_with_the_error_of_the_provider_and_the_cure(
    op: ScriptedOP, caplog: pytest.LogCaptureFixture, answer: Answer, line: str
) -> None:
    op.answer = answer
    (pk,) = queue()
    with caplog.at_level(logging.WARNING, "django_phi_oidc.sessions"):
        try_at(pk)
        PendingRevocation.objects.update(due_at=NOW)
        try_at(pk)
    assert [record.getMessage() for record in caplog.records] == [f"A token was not revoked: {line}"], "once"
    assert "jane" not in "".join(event.detail for event in events(Action.TOKEN_REVOCATION_FAILED)).lower()


def test_temporary_fault_is_not_logged(op: ScriptedOP, caplog: pytest.LogCaptureFixture) -> None:
    op.answer = answering(503, {"error": "temporarily_unavailable"})
    (pk,) = queue()
    try_at(pk)
    assert caplog.records == []
    assert PendingRevocation.objects.get().last_fault == "http_503 temporarily_unavailable"


RETRIED = {
    "429": (answering(429), "http_429", 10),
    "500": (answering(500), "http_500", 10),
    "503": (answering(503), "http_503", 10),
    "503 Retry-After 120": (answering(503, Retry_After="120"), "http_503", 120),
    "503 Retry-After 1": (answering(503, Retry_After="1"), "http_503", 10),
    "timeout of a proxy": (answering(408), "http_408", 10),
    "too early": (answering(425), "http_425", 10),
    "redirect": (answering(302, Location="https://elsewhere.example/"), "transport_redirect", 10),
    "body too large": (answering(200, "x" * (1 << 20)), "transport_too_large", 10),
}


@pytest.mark.parametrize(("answer", "fault", "seconds"), RETRIED.values(), ids=RETRIED)
def test_attempt_with_a_temporary_fault_backs_off(op: ScriptedOP, answer: Answer, fault: str, seconds: int) -> None:
    op.answer = answer
    (pk,) = queue()
    with randomness.override_randomness(without_jitter):
        assert try_at(pk) is RevocationStatus.PENDING
    row = PendingRevocation.objects.get()
    assert (row.status, row.last_fault, row.attempts, row.lease_until) == ("pending", fault, 1, None)
    waits = row.due_at - NOW
    assert timedelta(seconds=seconds) <= waits < timedelta(seconds=seconds + 3)
    assert PendingRevocation._meta.get_field("token").decrypt(row) == "refresh-canary"
    assert [event.reason for event in events(Action.TOKEN_REVOCATION_FAILED)] == [fault]
    assert alerts() == []
    assert try_at(pk) is None, "It is not due."
    op.answer = answering(200)
    assert try_at(pk, row.due_at) is RevocationStatus.DONE


@pytest.mark.parametrize("answer", [answering(401), answering(400, {"error": "invalid_client"})], ids=["401", "400"])
def test_attempt_with_a_rejected_client_retries_slowly_and_alerts_once(op: ScriptedOP, answer: Answer) -> None:
    op.answer = answer
    (pk,) = queue()
    with randomness.override_randomness(without_jitter):
        assert try_at(pk) is RevocationStatus.PENDING
        (alert,) = alerts()
        assert json.loads(alert)["rule"] == "revocation_blocked"
        row = PendingRevocation.objects.get()
        assert row.last_fault == "invalid_client"
        assert timedelta(minutes=30) <= row.due_at - NOW < timedelta(minutes=31)
        try_at(pk, row.due_at)
    assert alerts() == [alert]
    assert len(events(Action.TOKEN_REVOCATION_FAILED)) == 2


def fail_often(pk: uuid.UUID, op: ScriptedOP, *, attempts: int, start: datetime = NOW) -> None:
    """Let that many attempts fail within a few hours."""
    op.answer = answering(500)
    for number in range(attempts):
        PendingRevocation.objects.update(due_at=NOW)
        assert try_at(pk, start + timedelta(minutes=number)) is RevocationStatus.PENDING


def test_attempt_after_the_configured_time_abandons_with_an_alert(op: ScriptedOP) -> None:
    (pk,) = queue()
    fail_often(pk, op, attempts=MIN_ATTEMPTS)
    PendingRevocation.objects.update(due_at=NOW)
    assert try_at(pk, NOW + GIVE_UP - timedelta(minutes=1)) is RevocationStatus.PENDING
    PendingRevocation.objects.update(due_at=NOW)
    assert try_at(pk, NOW + GIVE_UP) is RevocationStatus.ABANDONED
    row = PendingRevocation.objects.get()
    assert (row.status, row.token) == ("abandoned", None)
    assert alerts() == ['{"rule":"revocation_abandoned"}']


def test_c1_give_up_time_counts_from_the_first_attempt(op: ScriptedOP) -> None:
    (pk,) = queue(now=NOW - timedelta(days=4))
    fail_often(pk, op, attempts=MIN_ATTEMPTS)
    assert PendingRevocation.objects.get().first_attempt_at == NOW
    assert alerts() == []
    PendingRevocation.objects.update(due_at=NOW)
    assert try_at(pk, NOW + GIVE_UP) is RevocationStatus.ABANDONED


def test_c1_attempts_below_the_minimum_are_not_abandoned(op: ScriptedOP) -> None:
    (pk,) = queue()
    fail_often(pk, op, attempts=1)
    PendingRevocation.objects.update(due_at=NOW)
    # The workers were down in between.
    fail_often(pk, op, attempts=MIN_ATTEMPTS - 2, start=NOW + 2 * GIVE_UP)
    PendingRevocation.objects.update(due_at=NOW)
    assert try_at(pk, NOW + 3 * GIVE_UP) is RevocationStatus.ABANDONED


@pytest.mark.parametrize("status", [400, 403, 404, 405, 408, 421, 425, 429, 503])
def test_c1_response_without_a_registered_error_is_retried(op: ScriptedOP, status: int) -> None:
    op.answer = answering(status)
    (pk,) = queue(now=NOW - timedelta(days=4))
    assert try_at(pk) is RevocationStatus.PENDING
    op.answer = answering(200)
    assert try_at(pk, PendingRevocation.objects.get().due_at) is RevocationStatus.DONE


def test_c1_unexpected_response_alerts_once_for_an_operator(op: ScriptedOP) -> None:
    op.answer = answering(404)
    (pk,) = queue()
    with randomness.override_randomness(without_jitter):
        try_at(pk)
        row = PendingRevocation.objects.get()
        assert row.due_at - NOW < timedelta(minutes=1)
        assert alerts() == ['{"rule":"revocation_blocked"}']
        try_at(pk, row.due_at)
    assert alerts() == ['{"rule":"revocation_blocked"}']


def test_c1_invalid_token_is_revoked_already(op: ScriptedOP) -> None:
    op.answer = answering(400, {"error": "invalid_token", "error_description": "Token expired or revoked"})
    (pk,) = queue()
    assert try_at(pk) is RevocationStatus.DONE
    assert alerts() == []


@pytest.mark.parametrize("ahead", [timedelta(minutes=2), timedelta(days=3)])
def test_c5_lease_of_a_clock_that_was_ahead_counts_as_expired(op: ScriptedOP, ahead: timedelta) -> None:
    (pk,) = queue()
    PendingRevocation.objects.update(lease_until=NOW + ahead, attempts=1)
    assert list_due(NOW) == [pk]
    assert try_at(pk) is RevocationStatus.DONE


def test_c5_lease_of_a_server_whose_clock_is_slightly_ahead_is_respected(op: ScriptedOP) -> None:
    (pk,) = queue()
    PendingRevocation.objects.update(lease_until=NOW + LEASE_DURATION + timedelta(seconds=10), attempts=1)
    assert try_at(pk) is None
    assert op.asked == []


def test_c5_attempt_by_a_clock_days_ahead_abandons_nothing(op: ScriptedOP) -> None:
    (pk,) = queue()
    op.answer = answering(503)
    assert try_at(pk, NOW + timedelta(days=3)) is RevocationStatus.PENDING
    # The clock is right again: the row is due, and the time before it is given up starts now.
    assert list_due(NOW) == [pk]
    PendingRevocation.objects.update(attempts=MIN_ATTEMPTS)
    assert try_at(pk) is RevocationStatus.PENDING
    assert PendingRevocation.objects.get().first_attempt_at == NOW


def test_c5_row_in_its_longest_back_off_is_not_due(op: ScriptedOP) -> None:
    (pk,) = queue()
    op.answer = answering(503, Retry_After=str(10**6))
    assert try_at(pk) is RevocationStatus.PENDING
    assert PendingRevocation.objects.get().due_at >= NOW + timedelta(days=1)
    assert list_due(NOW) == []


def test_successful_attempt_after_the_configured_time_is_done(op: ScriptedOP) -> None:
    (pk,) = queue()
    assert try_at(pk, NOW + GIVE_UP) is RevocationStatus.DONE


def test_c4_response_that_is_cut_in_its_status_line_is_no_success(op: ScriptedOP) -> None:
    def cut(handler: Any) -> None:
        handler.wfile.write(b"HTTP/1.1 200 O")
        handler.close_connection = True

    op.answer = cut
    (pk,) = queue()
    assert try_at(pk) is RevocationStatus.PENDING
    assert PendingRevocation.objects.get().last_fault == "transport_unreachable"


def test_c3_revocation_endpoint_of_the_rfc_8414_document_is_used(op: ScriptedOP) -> None:
    op.metadata["revocation_endpoint"] = None
    op.discovery = by_path(op, {**op.document(), "revocation_endpoint": f"{op.issuer}/revoke"})
    (pk,) = queue()
    assert try_at(pk) is RevocationStatus.DONE
    assert op.asked == [{"token": "refresh-canary", "token_type_hint": "refresh_token"}]


def test_c3_revocation_endpoint_of_the_overrides_is_used(op: ScriptedOP, settings: Any) -> None:
    op.metadata["revocation_endpoint"] = None
    declare(settings, op, metadata_overrides={"revocation_endpoint": f"{op.issuer}/revoke"})
    (pk,) = queue()
    assert try_at(pk) is RevocationStatus.DONE


def test_c3_token_is_kept_while_the_rfc_8414_document_is_unavailable(op: ScriptedOP, settings: Any) -> None:
    op.metadata["revocation_endpoint"] = None
    declare(settings, op, revocation="best_effort")
    op.discovery = by_path(op, None)
    (pk,) = queue()
    assert try_at(pk) is RevocationStatus.PENDING
    assert PendingRevocation.objects.get().last_fault == "metadata_invalid"


def by_path(op: ScriptedOP, oauth_document: dict[str, Any] | None) -> Answer:
    """Answer with the document of RFC 8414 at its path, or 503 if there is none, and else with that of OIDC."""

    def answer(handler: Any) -> None:
        if "oauth-authorization-server" in handler.path:
            send(handler, 200 if oauth_document else 503, oauth_document)
        else:
            send(handler, 200, {name: value for name, value in op.document().items() if value is not None})

    return answer


def test_attempt_at_a_hanging_provider_ends_at_its_timeout(op: ScriptedOP) -> None:
    op.answer = op.hang
    (pk,) = queue()
    started = time.monotonic()
    assert try_at(pk, deadline=0.5) is RevocationStatus.PENDING
    assert time.monotonic() - started < 1.5
    assert PendingRevocation.objects.get().last_fault == "transport_timeout"


def test_attempt_with_hanging_discovery_ends_at_the_same_timeout(op: ScriptedOP) -> None:
    op.discovery = op.hang
    (pk,) = queue()
    started = time.monotonic()
    assert try_at(pk, deadline=0.5) is RevocationStatus.PENDING
    assert time.monotonic() - started < 1.5
    assert op.asked == []


def test_attempt_at_a_provider_that_refuses_connections_is_retried(settings: Any, unused_port: int) -> None:
    declare(settings, ScriptedOP(port=unused_port))
    (pk,) = queue()
    assert try_at(pk) is RevocationStatus.PENDING
    assert PendingRevocation.objects.get().last_fault == "transport_unreachable"


def test_attempt_without_an_optional_endpoint_is_unsupported(op: ScriptedOP, settings: Any) -> None:
    op.metadata["revocation_endpoint"] = None
    declare(settings, op, revocation="best_effort")
    (pk,) = queue()
    assert try_at(pk) is RevocationStatus.UNSUPPORTED
    (event,) = events(Action.TOKEN_REVOCATION_FAILED)
    assert event.reason == "revocation_unsupported"
    assert PendingRevocation.objects.get().token is None


def test_attempt_without_a_required_endpoint_is_retried(op: ScriptedOP) -> None:
    op.metadata["revocation_endpoint"] = None
    (pk,) = queue()
    assert try_at(pk) is RevocationStatus.PENDING
    assert PendingRevocation.objects.get().last_fault == "revocation_unsupported"


def test_attempt_with_an_undeclared_provider_is_retried(op: ScriptedOP) -> None:
    (pk,) = queue_revocations(TOKENS[:1], provider="former", now=NOW)
    assert try_at(pk) is RevocationStatus.PENDING
    assert PendingRevocation.objects.get().last_fault == "provider_unknown"
    assert alerts() == ['{"rule":"revocation_blocked"}']


def test_attempt_without_its_key_is_retried_until_the_key_is_configured(op: ScriptedOP, settings: Any) -> None:
    (pk,) = queue()
    before = settings.PHI_OIDC
    settings.PHI_OIDC = override_phi_oidc(before, KEYS={"encryption": [keyring.generate_key()]})
    assert try_at(pk) is RevocationStatus.PENDING
    assert PendingRevocation.objects.get().last_fault == "key_missing"
    assert op.asked == []
    settings.PHI_OIDC = before
    assert try_at(pk, NOW + timedelta(hours=2)) is RevocationStatus.DONE


def test_a1_revocation_without_its_key_is_never_abandoned(op: ScriptedOP, settings: Any) -> None:
    (pk,) = queue()
    with_keys = settings.PHI_OIDC
    settings.PHI_OIDC = override_phi_oidc(with_keys, KEYS={"encryption": []})
    late = NOW + 10 * GIVE_UP
    assert try_at(pk) is RevocationStatus.PENDING
    PendingRevocation.objects.update(attempts=MIN_ATTEMPTS)
    assert try_at(pk, late) is RevocationStatus.PENDING
    assert alerts() == ['{"rule":"revocation_blocked"}']
    settings.PHI_OIDC = with_keys
    op.answer = answering(503)
    assert try_at(pk, late + timedelta(hours=2)) is RevocationStatus.PENDING, "the provider was asked only once"
    op.answer = answering(200)
    assert try_at(pk, late + timedelta(hours=8)) is RevocationStatus.DONE


def test_a1_damaged_revocation_is_abandoned_in_the_end(op: ScriptedOP) -> None:
    (pk,) = queue()
    with connection.cursor() as cursor:
        cursor.execute("UPDATE django_phi_oidc_pendingrevocation SET token = 'damaged'")
    assert try_at(pk) is RevocationStatus.PENDING
    assert PendingRevocation.objects.get().last_fault == "undecryptable"
    PendingRevocation.objects.update(attempts=MIN_ATTEMPTS)
    assert try_at(pk, NOW + 10 * GIVE_UP) is RevocationStatus.ABANDONED


def test_a1_queued_ciphertext_of_a_session_is_revoked_and_deleted_when_its_key_is_back(
    op: ScriptedOP, sign_in: Callable[..., SignedIn], settings: Any
) -> None:
    signed_in = sign_in()
    with_keys = settings.PHI_OIDC
    settings.PHI_OIDC = override_phi_oidc(with_keys, KEYS={"encryption": []})
    ended = end_session(signed_in.session.pk, EndReason.LOGOUT, origin=Origin(), now=NOW)
    assert ended is not None
    assert [try_at(pk) for pk in ended.revocation_ids] == [RevocationStatus.PENDING] * 2
    assert op.asked == []
    settings.PHI_OIDC = with_keys
    assert [try_at(pk, NOW + timedelta(hours=1)) for pk in ended.revocation_ids] == [RevocationStatus.DONE] * 2
    assert [asked["token"] for asked in op.asked] == [REFRESH_TOKEN, ACCESS_TOKEN]
    assert set(PendingRevocation.objects.values_list("token", "session_token")) == {(None, None)}


def test_attempt_inside_a_transaction_is_refused(op: ScriptedOP) -> None:
    (pk,) = queue()
    with pytest.raises(RuntimeError), transaction.atomic():
        try_at(pk)
    assert op.asked == []
    assert PendingRevocation.objects.get().attempts == 0


def test_attempt_sends_its_request_outside_of_transactions(op: ScriptedOP) -> None:
    observed: list[bool] = []

    def look_from_outside(handler: Any) -> None:
        # Another connection can read the lease and write the row.
        observed.append(PendingRevocation.objects.get().lease_until == NOW + LEASE_DURATION)
        observed.append(PendingRevocation.objects.update(token_expires_at=NOW) == 1)
        connections.close_all()
        send(handler, 200)

    op.answer = look_from_outside
    (pk,) = queue()
    assert try_at(pk) is RevocationStatus.DONE
    assert observed == [True, True]


def test_ten_concurrent_workers_send_one_request(op: ScriptedOP) -> None:
    (pk,) = queue()
    barrier, results = threading.Barrier(10), []

    def work() -> None:
        barrier.wait()
        try:
            results.append(try_at(pk))
        finally:
            connections.close_all()

    threads = [threading.Thread(target=work) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(results) == {RevocationStatus.DONE: 1, None: 9}
    assert len(op.asked) == 1
    flush()
    assert len(events(Action.TOKEN_REVOKED)) == 1


def test_attempt_after_a_killed_worker_waits_for_its_lease(op: ScriptedOP) -> None:
    (pk,) = queue()
    PendingRevocation.objects.update(lease_until=NOW + LEASE_DURATION, attempts=1)
    assert try_at(pk, NOW + LEASE_DURATION - timedelta(seconds=1)) is None
    assert list_due(NOW + LEASE_DURATION - timedelta(seconds=1)) == []
    assert list_due(NOW + LEASE_DURATION) == [pk]
    assert try_at(pk, NOW + LEASE_DURATION) is RevocationStatus.DONE


@pytest.mark.parametrize(("answer", "status"), [(200, "done"), (503, "pending")])
def test_attempt_with_a_lost_lease_writes_nothing(op: ScriptedOP, answer: int, status: str) -> None:
    (pk,) = queue()

    def overtake(handler: Any) -> None:
        op.answer = answering(answer)
        assert try_at(pk, NOW + LEASE_DURATION) == status
        connections.close_all()
        send(handler, 400)

    op.answer = overtake
    try_at(pk)
    row = PendingRevocation.objects.get()
    assert (row.status, row.attempts) == (status, 2)
    recorded = events(Action.TOKEN_REVOKED) + events(Action.TOKEN_REVOCATION_FAILED)
    assert [event.detail for event in recorded] == [f'{{"attempts":2,"hint":"refresh_token","status":"{status}"}}']


def test_queue_revocations_is_one_insert_in_the_given_order() -> None:
    with CaptureQueriesContext(connection) as queries:
        pks = queue(*TOKENS)
    assert len([query for query in queries if query["sql"].startswith("INSERT")]) == 1
    hints = [PendingRevocation.objects.get(pk=pk).token_type_hint for pk in pks]
    assert hints == ["refresh_token", "access_token"]


def test_queue_revocations_encrypts_the_tokens() -> None:
    queue(*TOKENS)
    with connection.cursor() as cursor:
        cursor.execute("SELECT * FROM django_phi_oidc_pendingrevocation")
        assert "canary" not in str(cursor.fetchall())


def test_queue_revocations_without_tokens_executes_no_query(django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(0):
        assert queue_revocations([], provider="default", now=NOW) == ()


def test_longest_due_is_first_and_a_refresh_token_is_before_its_access_token() -> None:
    second = queue(*reversed(TOKENS), now=NOW)
    (first,) = queue(TOKENS[1], now=NOW - timedelta(hours=1))
    queue(now=NOW + timedelta(seconds=1))
    for expected in ([first], [second[1], second[0]], []):
        with transaction.atomic():
            rows = PendingRevocation.objects.lease_due(now=NOW, limit=len(expected) or 10)
        assert [row.pk for row in rows] == expected


def test_sweep_tries_everything_due_and_stops(op: ScriptedOP) -> None:
    queue(*TOKENS)
    queue(*TOKENS)
    responses = cycle([200, 503])
    op.answer = lambda handler: send(handler, next(responses))
    results = retry_due(clock=lambda: NOW, budget_seconds=20, timeout_seconds=3, give_up_after=GIVE_UP, batch_size=3)
    assert results == {RevocationStatus.DONE: 2, RevocationStatus.PENDING: 2}
    assert len(op.asked) == 4


def test_sweep_without_budget_stops(op: ScriptedOP) -> None:
    queue(*TOKENS)
    assert retry_due(clock=lambda: NOW, budget_seconds=0, timeout_seconds=3, give_up_after=GIVE_UP) == {}
    assert op.asked == []


def test_two_concurrent_sweeps_send_each_token_once(op: ScriptedOP) -> None:
    for number in range(15):
        queue(ReceivedToken(token_type_hint="access_token", value=f"token-{number}"))
    results: Counter[RevocationStatus] = Counter()
    run: Callable[[], Counter[RevocationStatus]] = lambda: retry_due(  # noqa: E731
        clock=lambda: NOW, budget_seconds=30, timeout_seconds=3, give_up_after=GIVE_UP
    )

    def work() -> None:
        try:
            results.update(run())
        finally:
            connections.close_all()

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {RevocationStatus.DONE: 15}
    assert sorted(asked["token"] for asked in op.asked) == sorted(f"token-{number}" for number in range(15))


def sweep(*, budget_seconds: float, timeout_seconds: float) -> Counter[RevocationStatus]:
    return retry_due(
        clock=lambda: NOW, budget_seconds=budget_seconds, timeout_seconds=timeout_seconds, give_up_after=GIVE_UP
    )


def queue_for(provider: str, count: int, *, now: datetime = NOW) -> tuple[uuid.UUID, ...]:
    tokens = [ReceivedToken(token_type_hint="access_token", value=f"{provider}-{number}") for number in range(count)]
    return queue_revocations(tokens, provider=provider, now=now)


def status_of(pk: uuid.UUID) -> str:
    return PendingRevocation.objects.get(pk=pk).status


def test_c2_token_of_another_provider_is_revoked_in_the_same_sweep(op: ScriptedOP, settings: Any) -> None:
    with serving() as stuck:
        declare(settings, op, others={"stuck": stuck})
        stuck.answer = stuck.hang
        waiting = queue_for("stuck", 1000, now=NOW - timedelta(hours=1))
        (pk,) = queue()
        results = sweep(budget_seconds=2, timeout_seconds=0.3)
    assert status_of(pk) == "done"
    assert results == {RevocationStatus.DONE: 1, RevocationStatus.PENDING: 1}
    assert len(stuck.asked) == 1, "A provider that times out is left for the rest of the sweep."
    untried = PendingRevocation.objects.filter(pk__in=waiting, attempts=0, due_at__lte=NOW)
    assert untried.count() == 999, "They stay due."


def test_c2_token_is_revoked_in_one_sweep_although_many_providers_hang(op: ScriptedOP, settings: Any) -> None:
    names = [f"stuck{number}" for number in range(5)]
    with serving() as stuck:
        stuck.discovery = stuck.hang
        # One server serves as all of them: each declaration has connections and metadata of its own.
        declare(settings, op, others=dict.fromkeys(names, stuck))
        for name in names:
            queue_for(name, 10, now=NOW - timedelta(hours=1))
        # By name after the others.
        settings.PHI_OIDC["PROVIDERS"]["zone"] = settings.PHI_OIDC["PROVIDERS"]["default"]
        settings.PHI_OIDC = {**settings.PHI_OIDC}
        (pk,) = queue_for("zone", 1)
        assert sweep(budget_seconds=3, timeout_seconds=2) == {RevocationStatus.DONE: 1, RevocationStatus.PENDING: 5}
    assert status_of(pk) == "done"


def test_c2_slow_provider_leaves_half_of_the_sweep_to_the_other(op: ScriptedOP, settings: Any) -> None:
    with serving() as slow:
        declare(settings, op, others={"slow": slow})

        def answer_late(handler: Any) -> None:
            time.sleep(0.2)
            send(handler, 200)

        slow.answer = answer_late
        queue_for("slow", 1000, now=NOW - timedelta(hours=1))
        queue_for("default", 5)
        results = sweep(budget_seconds=3, timeout_seconds=1)
    assert len(op.asked) == 5
    assert len(slow.asked) > 16, "It uses the time that is left, for several tokens at once."
    assert results[RevocationStatus.DONE] == len(op.asked) + len(slow.asked)


def test_c2_provider_that_asks_to_wait_is_left_for_the_sweep(op: ScriptedOP) -> None:
    op.answer = answering(429, Retry_After="30")
    queue_for("default", 3)
    assert sweep(budget_seconds=5, timeout_seconds=3) == {RevocationStatus.PENDING: 1}
    op.answer = answering(429)
    assert sweep_at(NOW + timedelta(seconds=40)) == {RevocationStatus.PENDING: 3}


@pytest.mark.parametrize("seconds", [90, 100_000])
def test_retry_after_in_seconds_or_as_a_date_applies_to_all_tokens_of_the_provider(
    op: ScriptedOP, seconds: int
) -> None:
    sent = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
    date, until = (format_datetime(sent + timedelta(seconds=wait), usegmt=True) for wait in (0, seconds))
    for position, value in enumerate((str(seconds), until)):
        op.asked.clear()
        PendingRevocation.objects.all().delete()
        op.answer = lambda handler, value=value: send_dated(handler, date, value)
        queue_for("default", 3)
        assert sweep(budget_seconds=5, timeout_seconds=3) == {RevocationStatus.PENDING: 1}
        op.answer = answering(200)
        waits = timedelta(seconds=min(seconds, 86400))
        assert sweep_at(NOW + waits - timedelta(seconds=1)) == {}, position
        assert len(op.asked) == 1, "The other tokens are due, but the provider asked for no request."
        assert sweep_at(NOW + waits + timedelta(seconds=10)) == {RevocationStatus.DONE: 3}


def send_dated(handler: Any, date: str, retry_after: str) -> None:
    """Respond with 429, and only this Date."""
    handler.send_response_only(429)
    for name, value in {"Date": date, "Retry-After": retry_after, "Content-Length": "0"}.items():
        handler.send_header(name, value)
    handler.end_headers()


def test_response_429_without_retry_after_leaves_the_other_tokens_to_the_same_sweep(op: ScriptedOP) -> None:
    responses = iter([429])
    op.answer = lambda handler: send(handler, next(responses, 200))
    queue_for("default", 3)
    assert sweep(budget_seconds=5, timeout_seconds=3) == {RevocationStatus.PENDING: 1, RevocationStatus.DONE: 2}


def test_operator_retries_although_the_provider_asked_to_wait(op: ScriptedOP) -> None:
    op.answer = answering(429, Retry_After="3600")
    queue_for("default", 3)
    sweep(budget_seconds=5, timeout_seconds=3)
    op.answer = answering(200)
    assert len(reset_backoff(now=NOW)) == 3
    assert sweep(budget_seconds=5, timeout_seconds=3) == {RevocationStatus.DONE: 3}


def test_wait_that_a_clock_days_ahead_has_written_is_ignored(op: ScriptedOP) -> None:
    queue_for("default", 2)
    ahead = NOW + timedelta(days=30)
    PendingRevocation.objects.filter(pk=queue_for("default", 1)[0]).update(provider_busy_until=ahead, due_at=ahead)
    assert sweep(budget_seconds=5, timeout_seconds=3) == {RevocationStatus.DONE: 2}


def test_rest_of_a_batch_is_released_when_the_provider_asks_to_wait(op: ScriptedOP) -> None:
    numbers = count()
    op.answer = lambda handler: send(handler, 200) if next(numbers) < 20 else send(handler, 429, Retry_After="60")
    pks = queue_for("default", 150)
    results = sweep(budget_seconds=10, timeout_seconds=3)
    assert results[RevocationStatus.DONE] == 20
    assert 1 <= results[RevocationStatus.PENDING] <= 24, "Those that were in flight."
    assert len(op.asked) == results.total()
    untried = PendingRevocation.objects.filter(pk__in=pks, attempts=0, lease_until=None, due_at__lte=NOW)
    assert untried.count() == 150 - results.total()


def test_requests_in_flight_are_bounded_by_the_declaration(op: ScriptedOP, settings: Any) -> None:
    lock, running, most = threading.Lock(), [0], [0]

    def observe(handler: Any) -> None:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        time.sleep(0.05)
        with lock:
            running[0] -= 1
        send(handler, 200)

    op.answer = observe
    for max_calls, bound in ((2, 24), (1, 12)):
        most[0] = 0
        declare(settings, op, max_concurrent_calls=max_calls)
        queue_for("default", 150)
        assert sweep(budget_seconds=20, timeout_seconds=5) == {RevocationStatus.DONE: 150}
        assert 2 < most[0] <= bound


def test_sweep_keeps_its_connections(op: ScriptedOP) -> None:
    ports = set()
    op.answer = lambda handler: (ports.add(handler.client_address[1]), send(handler, 200))
    queue_for("default", 150)
    assert sweep(budget_seconds=20, timeout_seconds=5) == {RevocationStatus.DONE: 150}
    assert len(ports) <= 25


def test_batch_executes_as_many_statements_for_many_tokens_as_for_few(op: ScriptedOP) -> None:
    counts = []
    for number in (9, 72):
        # The batches: 1 and 8, or 1, 8 and 63.
        queue_for("default", number)
        with CaptureQueriesContext(connection) as queries:
            assert sweep(budget_seconds=20, timeout_seconds=5) == {RevocationStatus.DONE: number}
        counts.append(len(queries))
    batch = counts[1] - counts[0]
    # Lease: BEGIN, SELECT, UPDATE, COMMIT; results: SELECT, UPDATE, INSERT of the events; then their DELETE. SQLite
    # locks by an UPDATE before each SELECT, and records BEGIN and the move of the events on this connection.
    assert batch <= 14, [query["sql"][:80] for query in queries]


def test_failures_of_a_batch_are_saved_by_one_statement(op: ScriptedOP) -> None:
    op.answer = answering(503)
    counts = []
    for number in (9, 72):
        PendingRevocation.objects.all().delete()
        queue_for("default", number)
        with CaptureQueriesContext(connection) as queries:
            assert sweep(budget_seconds=20, timeout_seconds=5) == {RevocationStatus.PENDING: number}
        counts.append(len(queries))
    assert counts[1] - counts[0] <= 16
    waits = set(PendingRevocation.objects.values_list("due_at", flat=True))
    assert len(waits) == 72, "Each has its own jitter."


@pytest.mark.skipif(connection.vendor == "sqlite", reason="SQLite has no row locks")
def test_rows_that_another_worker_leases_at_the_same_time_are_skipped(op: ScriptedOP) -> None:
    pks = queue_for("default", 6)
    leased: list[list[uuid.UUID]] = []

    def lease() -> None:
        try:
            with transaction.atomic():
                leased.append([row.pk for row in PendingRevocation.objects.lease_due(now=NOW, limit=4)])
        finally:
            connections.close_all()

    with transaction.atomic():
        leased.append([row.pk for row in PendingRevocation.objects.lease_due(now=NOW, limit=4)])
        thread = threading.Thread(target=lease)
        thread.start()
        thread.join(10)
        assert not thread.is_alive(), "It does not wait."
    assert sorted(leased[0] + leased[1]) == sorted(pks)


def test_four_concurrent_sweeps_ask_for_each_token_once(op: ScriptedOP) -> None:
    queue_for("default", 400)
    results: Counter[RevocationStatus] = Counter()

    def work() -> None:
        try:
            results.update(sweep(budget_seconds=30, timeout_seconds=5))
        finally:
            connections.close_all()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # SQLite locks the whole database: a sweep that cannot begin leaves the tokens to the others.
    assert sorted(asked["token"] for asked in op.asked) == sorted(f"default-{number}" for number in range(400))
    assert results == {RevocationStatus.DONE: 400}


KILLED_SWEEP = """
import json, sys, django
from datetime import timedelta
from django.conf import settings
settings.PHI_OIDC = {**settings.PHI_OIDC, "PROVIDERS": {"default": json.loads(sys.argv[1])}}
django.setup()
from django_phi_oidc._internal import clock
from django_phi_oidc.sessions.token_revocation import retry_due
retry_due(clock=clock.now, budget_seconds=60, timeout_seconds=8, give_up_after=timedelta(days=3))
"""


def test_tokens_of_a_worker_killed_in_a_batch_are_asked_for_again_after_its_lease(
    op: ScriptedOP,
) -> None:
    now = clock.now()
    pks, stopped = queue_for("default", 60, now=now), threading.Event()
    numbers = count()

    def stop_at_thirty(handler: Any) -> None:
        if next(numbers) < 30:
            send(handler, 200)
        else:
            stopped.set()
            op.released.wait(30)

    op.answer = stop_at_thirty
    environment = child_environment(os.environ, django_settings.DATABASES)
    with subprocess.Popen(
        [sys.executable, "-c", KILLED_SWEEP, json.dumps(declaration(op))], env=environment
    ) as process:
        assert stopped.wait(30)
        process.send_signal(signal.SIGKILL)
    op.released.set()
    done = PendingRevocation.objects.filter(status="done").count()
    assert done == 9, "The batches of 1 and 8 were saved."
    op.answer = answering(200)
    assert sweep_at(clock.now()) == {}, "The lease has not ended."
    # A request that the kill has cut off has no token.
    before = len(list(filter(None, op.asked)))
    assert sweep_at(now + 2 * LEASE_DURATION)[RevocationStatus.DONE] == 51
    tokens = [asked["token"] for asked in op.asked if asked]
    assert set(tokens) == {f"default-{number}" for number in range(60)}
    assert len(tokens) - before == 51
    assert PendingRevocation.objects.filter(pk__in=pks, status="done").count() == 60
    flush()
    assert len(events(Action.TOKEN_REVOKED)) == 60, "One event for each token."


def sweep_at(now: datetime) -> Counter[RevocationStatus]:
    return retry_due(clock=lambda: now, budget_seconds=10, timeout_seconds=3, give_up_after=GIVE_UP)


# Faults of this process


def sweep_at(now: datetime = NOW) -> Counter[RevocationStatus]:
    return retry_due(clock=lambda: now, budget_seconds=20, timeout_seconds=3, give_up_after=GIVE_UP)


def with_older_keys(phi_oidc: Any) -> Any:
    return override_phi_oidc(phi_oidc, KEYS={"encryption": phi_oidc["KEYS"]["encryption"][1:]})


def without_keys(phi_oidc: Any) -> Any:
    return override_phi_oidc(phi_oidc, KEYS={"encryption": []})


def with_another_provider_only(phi_oidc: Any) -> Any:
    return {**phi_oidc, "PROVIDERS": {"new": phi_oidc["PROVIDERS"]["default"]}}


PROCESS_FAULTS = {
    "an older key list": with_older_keys,
    "no keys": without_keys,
    "settings without the provider": with_another_provider_only,
}


@pytest.mark.parametrize("change", PROCESS_FAULTS.values(), ids=PROCESS_FAULTS)
def test_s4_sweep_by_a_process_with_a_fault_does_not_put_off_revocations_for_others(
    op: ScriptedOP, settings: Any, change: Callable[[Any], Any]
) -> None:
    queue_for("default", 30)
    declared = settings.PHI_OIDC
    settings.PHI_OIDC = change(declared)
    assert sweep_at() == {RevocationStatus.PENDING: 30}
    assert set(PendingRevocation.objects.values_list("due_at", "lease_until")) == {(NOW, None)}
    assert op.asked == []
    settings.PHI_OIDC = declared
    assert sweep_at() == {RevocationStatus.DONE: 30}
    assert set(PendingRevocation.objects.values_list("blocked_until", "missing_key")) == {(None, "")}


@pytest.mark.parametrize("change", PROCESS_FAULTS.values(), ids=PROCESS_FAULTS)
def test_s4_attempt_by_a_request_of_a_process_with_a_fault_does_not_put_it_off_for_others(
    op: ScriptedOP, settings: Any, change: Callable[[Any], Any]
) -> None:
    (pk,) = queue()
    declared = settings.PHI_OIDC
    settings.PHI_OIDC = change(declared)
    assert try_at(pk) is RevocationStatus.PENDING
    settings.PHI_OIDC = declared
    assert sweep_at() == {RevocationStatus.DONE: 1}


@pytest.mark.parametrize("change", PROCESS_FAULTS.values(), ids=PROCESS_FAULTS)
def test_s4_process_with_a_fault_waits_before_it_tries_again(
    op: ScriptedOP, settings: Any, change: Callable[[Any], Any]
) -> None:
    queue()
    settings.PHI_OIDC = change(settings.PHI_OIDC)
    assert sweep_at() == {RevocationStatus.PENDING: 1}
    assert sweep_at(NOW + timedelta(minutes=14)) == {}
    assert sweep_at(NOW + timedelta(minutes=31)) == {RevocationStatus.PENDING: 1}
    assert len(events(Action.TOKEN_REVOCATION_FAILED)) == 2
    assert alerts() == ['{"rule":"revocation_blocked"}']


def test_s4_rows_of_a_lost_key_do_not_delay_the_others(op: ScriptedOP, settings: Any) -> None:
    declared = settings.PHI_OIDC
    settings.PHI_OIDC = override_phi_oidc(declared, KEYS={"encryption": [keyring.generate_key()]})
    queue_for("default", 300)
    settings.PHI_OIDC = declared
    (pk,) = queue(now=NOW + timedelta(seconds=1))
    assert sweep_at(NOW + timedelta(seconds=2)) == {RevocationStatus.PENDING: 300, RevocationStatus.DONE: 1}
    assert status_of(pk) == "done"


def test_s4_revocation_of_an_undeclared_provider_is_abandoned_in_the_end(op: ScriptedOP) -> None:
    queue_for("former", 1)
    now = NOW
    for _ in range(MIN_ATTEMPTS - 1):
        assert sweep_at(now) == {RevocationStatus.PENDING: 1}
        now += timedelta(hours=1)
    assert sweep_at(NOW + GIVE_UP) == {RevocationStatus.ABANDONED: 1}


def test_s4_fault_of_the_provider_puts_a_revocation_off_for_all(op: ScriptedOP) -> None:
    op.answer = answering(401, {"error": "invalid_client"})
    queue()
    assert sweep_at() == {RevocationStatus.PENDING: 1}
    row = PendingRevocation.objects.get()
    assert row.due_at >= NOW + timedelta(minutes=15)
    assert row.blocked_until is None
    assert sweep_at(NOW + timedelta(minutes=14)) == {}


def test_s4_officer_who_retries_now_overrides_the_wait(op: ScriptedOP, settings: Any) -> None:
    queue_for("former", 1)
    assert sweep_at() == {RevocationStatus.PENDING: 1}
    assert sweep_at(NOW + timedelta(seconds=1)) == {}
    reset_backoff(now=NOW + timedelta(seconds=1))
    assert sweep_at(NOW + timedelta(seconds=1)) == {RevocationStatus.PENDING: 1}
