"""A process with sessions and tokens: `python -m tests.benchmarks.sweep.job`, one command per line, results in JSON.

The functions can be imported by other benchmarks with the same settings.
"""

import time
import uuid
from collections.abc import Callable, Mapping
from datetime import timedelta
from importlib import import_module
from secrets import token_urlsafe
from typing import Any

from django.core.management import call_command
from django.db import connection, transaction

from tests.benchmarks.worker_protocol import Command, run_commands

SUB = "5b1c9a52-6f9e-4a53-8c0e-2f6b8f0c8b1d"
BATCH = 1_000


def migrate() -> dict[str, Any]:
    """Create the tables."""
    call_command("migrate", verbosity=0)
    return {}


def queue(count: int) -> dict[str, Any]:
    """Queue that many tokens that are due."""
    revocation, token = _module("sessions.token_revocation"), _module("oidc.token").ReceivedToken
    for start in range(0, count, BATCH):
        size = min(BATCH, count - start)
        tokens = [token(token_type_hint="refresh_token", value=token_urlsafe(32)) for _ in range(size)]
        revocation.queue_revocations(tokens, provider="default", session_id=uuid.uuid4(), now=_now())
    _settle()
    return {}


def sweep(seconds: int) -> dict[str, Any]:
    """Sweep for that long, and return how many tokens were revoked."""
    revocation = _module("sessions.token_revocation")
    limits = {"timeout_seconds": 8.0, "give_up_after": timedelta(days=3)}

    def run() -> int:
        return int(revocation.retry_due(clock=_now, budget_seconds=seconds, **limits)["done"])

    return _measure(run)


def sign_in(count: int) -> dict[str, Any]:
    """Sign one person in that often: sessions with both tokens, each with a Django session."""
    lifecycle, tokens = _module("sessions.lifecycle"), _module("oidc.token").TokenResponse
    keep = _module("sessions.kept_id_token").KeptIDToken
    user, subject = _get_person()
    issuer = _get_declaration().issuer
    store = import_module("django.contrib.sessions.backends.db").SessionStore
    # As long as those of Keycloak.
    received = tokens(
        access_token="a" * 1200,
        refresh_token="r" * 700,
        id_token="",
        expires_in=timedelta(minutes=5),
        lifetime_alert=False,
    )
    for start in range(0, count, BATCH):
        with transaction.atomic():
            for _ in range(start, min(start + BATCH, count)):
                django_session = store()
                django_session["_auth_user_id"] = str(user.pk)
                django_session.create()
                lifecycle.start_session(
                    session_id=_module("_internal.randomness").uuid7(_now()),
                    user=user,
                    subject=subject,
                    provider="default",
                    issuer=issuer,
                    sid=token_urlsafe(16),
                    tokens=received,
                    id_token=keep(claims={"iss": issuer, "sub": SUB, "aud": "portal"}, token="i" * 900),
                    django_session_key=django_session.session_key,
                    auth_time=_now(),
                    acr="",
                    now=_now(),
                )
    _settle()
    return {}


def log_out() -> dict[str, Any]:
    """Process a logout token that names the person, and return how many sessions ended."""
    logout, keyring = _module("sessions.backchannel_logout"), _module("crypto.keyring")
    valid_until = _now() + timedelta(minutes=2)
    token = _module("oidc.logout_token").LogoutToken(
        iss=_get_declaration().issuer, sub=SUB, sid="", jti=token_urlsafe(16), valid_until=valid_until
    )

    def run() -> int:
        return len(
            logout.process_logout_token(
                token,
                provider="default",
                get_subject_keys=lambda: keyring.get_keys("subject"),
                origin=_module("audit.events").Origin(),
                now=_now(),
            )
        )

    return _measure(run)


def end_all() -> dict[str, Any]:
    """End all sessions by a job, and return how many ended."""
    jobs = _module("contrib.officer_admin.session_end_jobs")

    def run() -> int:
        job = jobs.start_bulk_end(
            jobs.SessionSelection(provider="default"),
            reason="maintenance",
            origin=_module("audit.events").Origin(actor="1"),
            now=_now(),
        )
        jobs.run_job(job.pk, clock=_now, budget_seconds=3600)
        return int(type(job).objects.get(pk=job.pk).done)

    return _measure(run)


def left() -> dict[str, Any]:
    """Count the live sessions, their Django sessions, the due tokens, the events of ends, and those that wait."""
    _module("audit.tasks").drain_outbox()
    models, audit_models = _module("models"), _module("audit.models")
    return {
        "live": models.OIDCSession.objects.filter(ended_at=None).count(),
        "django": import_module("django.contrib.sessions.models").Session.objects.count(),
        "due": models.PendingRevocation.objects.filter(status="pending").count(),
        "ended": audit_models.AuditEvent.objects.filter(action="session.ended").count(),
        "revoked": audit_models.AuditEvent.objects.filter(action="token.revoked").count(),
        "waiting": audit_models.AuditOutbox.objects.count(),
    }


def _measure(run: Callable[[], int]) -> dict[str, Any]:
    connection.ensure_connection()
    cpu, began = time.process_time(), time.perf_counter()
    count = run()
    return {"count": count, "wall": time.perf_counter() - began, "cpu": time.process_time() - cpu}


def _get_person() -> tuple[Any, Any]:
    linking, declaration = _module("subjects.linking"), _get_declaration()
    keys = _module("crypto.keyring").get_keys("subject")
    user, is_new = import_module("django.contrib.auth").get_user_model().objects.get_or_create(username="person")
    if is_new:
        fields = {"origin": _module("audit.events").Origin(), "now": _now()}
        linking.link_existing_user(user, sub=SUB, provider=declaration, keys=keys, **fields)
    return user, linking.find_linked_subject(issuer=declaration.issuer, sub=SUB, keys=keys)


def _get_declaration() -> Any:
    return _module("conf").providers()["default"]


def _settle() -> None:
    """Otherwise the server would do this during the measurement."""
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE")
        cursor.execute("CHECKPOINT")


def _module(name: str) -> Any:
    return import_module(f"django_phi_oidc.{name}")


def _now() -> Any:
    return _module("_internal.clock").now()


COMMANDS: Mapping[str, Command] = {
    command.__name__: command for command in (migrate, queue, sweep, sign_in, log_out, end_all, left)
}

if __name__ == "__main__":
    run_commands(COMMANDS)
