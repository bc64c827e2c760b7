"""The task that deletes operational rows whose retention has ended."""

import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from django_phi_oidc import conf, schedule
from django_phi_oidc._internal import clock
from django_phi_oidc._internal.periodic_task import PERIODIC_TASKS
from django_phi_oidc._internal.sql import delete_in_batches
from django_phi_oidc.audit.events import Origin
from django_phi_oidc.audit.models import AuditOutbox
from django_phi_oidc.contrib.legal_holds.legal_holds import place_hold, release_hold
from django_phi_oidc.contrib.monitoring.models import SecurityAlert
from django_phi_oidc.errors import KeyMissing
from django_phi_oidc.oidc.token import ReceivedToken
from django_phi_oidc.replay.cache import mark_used, was_used
from django_phi_oidc.replay.models import UsedIdentifier
from django_phi_oidc.sessions.lifecycle import end_session
from django_phi_oidc.sessions.models import EndReason, OIDCSession, PendingRevocation, RevocationStatus
from django_phi_oidc.sessions.token_revocation import is_revoked, queue_revocations
from django_phi_oidc.tasks import prune
from tests.support.claims_fixtures import DAY, NOW, Person, make_person, person  # noqa: F401 -- fixtures
from tests.support.phi_oidc_settings import override_phi_oidc

pytestmark = pytest.mark.django_db(databases=["default", "phi_audit"])
SECOND = timedelta(seconds=1)
RETENTION = timedelta(days=90)


def prune_at(now: Any) -> None:
    with clock.override_clock(lambda: now):
        prune()


def end(person: Person) -> None:
    end_session(person.session_id, EndReason.LOGOUT, origin=Origin(), now=NOW)


def test_c6_ended_session_is_deleted_after_the_retention(person: Person) -> None:
    live = Person()
    end(person)
    events = AuditOutbox.objects.count()
    prune_at(NOW + RETENTION)
    assert OIDCSession.objects.count() == 2
    prune_at(NOW + RETENTION + SECOND)
    assert OIDCSession.objects.get().pk == live.session_id
    assert AuditOutbox.objects.count() == events, "Nothing ended."


def test_c6_ended_session_of_a_person_on_hold_stays(person: Person) -> None:
    end(person)
    hold = place_hold(person.subject.uuid, reason="matter 7", until=None, origin=Origin(), now=NOW)
    prune_at(NOW + RETENTION + SECOND)
    assert OIDCSession.objects.exists()
    release_hold(hold.pk, origin=Origin(), now=NOW + RETENTION)
    prune_at(NOW + RETENTION + SECOND)
    assert not OIDCSession.objects.exists()


def test_c6_finished_revocation_is_deleted_after_the_retention() -> None:
    tokens = [ReceivedToken(token_type_hint="access_token", value=name) for name in ("finished", "pending")]
    finished, pending = queue_revocations(tokens, provider="default", now=NOW - DAY)
    PendingRevocation.objects.filter(pk=finished).update(status=RevocationStatus.DONE, finished_at=NOW, token=None)
    prune_at(NOW + RETENTION)
    assert PendingRevocation.objects.count() == 2
    prune_at(NOW + RETENTION + SECOND)
    assert PendingRevocation.objects.get().pk == pending


def test_g11_revoked_access_token_is_known_for_its_lifetime(settings: Any) -> None:
    default = {**settings.PHI_OIDC["PROVIDERS"]["default"], "max_access_token_lifetime": 2 * DAY, "leeway": SECOND}
    providers = {"default": default}
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, OPERATIONAL_RETENTION=DAY, PROVIDERS=providers)
    queue_revocations([ReceivedToken(token_type_hint="access_token", value="a token")], provider="default", now=NOW)
    PendingRevocation.objects.update(status=RevocationStatus.DONE, finished_at=NOW, token=None)
    longest = 2 * DAY + 2 * SECOND
    prune_at(NOW + longest)
    assert is_revoked("a token", now=NOW + longest)
    prune_at(NOW + longest + SECOND)
    assert not is_revoked("a token", now=NOW + longest)


def test_c6_acknowledged_alert_is_deleted_after_the_retention() -> None:
    for kind, acknowledged_at in (("acknowledged", NOW), ("open", None)):
        SecurityAlert.objects.create(kind=kind, first_seen=NOW, last_seen=NOW, acknowledged_at=acknowledged_at)
    prune_at(NOW + RETENTION)
    assert SecurityAlert.objects.count() == 2
    prune_at(NOW + RETENTION + SECOND)
    assert SecurityAlert.objects.get().kind == "open"


def test_spent_identifier_is_deleted_when_it_has_expired() -> None:
    mark_used("state", "value", expires_at=NOW)
    prune_at(NOW)
    assert was_used("state", "value")
    prune_at(NOW + SECOND)
    assert not was_used("state", "value")


def test_rows_are_deleted_while_the_key_for_the_report_of_interrupted_sign_ins_is_missing(settings: Any) -> None:
    for kind in ("state", "nonce"):
        mark_used(kind, "value", expires_at=NOW)
    keys = settings.PHI_OIDC["KEYS"]
    settings.PHI_OIDC = {**settings.PHI_OIDC, "KEYS": {**keys, "audit_mac": Path("/nowhere")}}
    with pytest.raises(KeyMissing):
        prune_at(NOW + SECOND)
    assert not was_used("nonce", "value")
    assert was_used("state", "value"), "it is counted when the key is back"
    settings.PHI_OIDC = {**settings.PHI_OIDC, "KEYS": keys}
    prune_at(NOW + SECOND)
    assert not was_used("state", "value")


def test_c6_declared_retention_applies(person: Person, settings: Any) -> None:
    assert conf.operational_retention() == RETENTION
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, OPERATIONAL_RETENTION=DAY)
    end(person)
    prune_at(NOW + DAY)
    assert OIDCSession.objects.exists()
    prune_at(NOW + DAY + SECOND)
    assert not OIDCSession.objects.exists()


def test_c6_rows_are_deleted_in_batches() -> None:
    rows = [UsedIdentifier(digest=uuid.uuid4().hex, kind="state", until=NOW) for _ in range(5)]
    UsedIdentifier.objects.bulk_create(rows)
    with CaptureQueriesContext(connection) as queries:
        assert delete_in_batches(UsedIdentifier.objects.filter(until__lt=NOW + SECOND), batch_size=2) == 5
    assert len([query for query in queries if query["sql"].startswith("DELETE")]) == 3
    assert not UsedIdentifier.objects.exists()


def test_c6_schedule_prunes() -> None:
    assert PERIODIC_TASKS[schedule.beat_schedule()["phi_oidc.prune"]["task"]] is prune
