"""The steps of the demo. They follow the patient Amina, and each passes or fails."""

import html
import json
import re
import sqlite3
import time
import uuid
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

from django.db import DatabaseError, connections

from django_phi_oidc.audit.models import AuditCheckpoint, AuditEvent, AuditUnsealed
from django_phi_oidc.audit.router import AUDIT_ALIAS
from django_phi_oidc.claims.models import StoredClaim
from django_phi_oidc.sessions.models import OIDCSession

from . import canary_setup, emergency_scene, hostile_provider, plaintext_search
from .browser import Browser, Page
from .scene import Scene, StepFailed, decrypt_tokens, expect, wait_for
from .services import RETENTION_SECONDS

MAX_ATTEMPTS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A step. `run` returns the text to print; afterwards the audit log must contain `events`."""

    title: str
    run: Callable[[Scene], str]
    events: tuple[str, ...] = ()


def sign_in(scene: Scene) -> str:
    """Amina signs in and gets her page."""
    page = scene.sign_in_amina()
    expect(page.status == 200 and page.path == "/portal/", f"{page.path} returned {page.status}")
    expect("data-user=" in page.text, "the page does not contain the user")
    expect(scene.amina.username not in page.text, "the page contains a name that the portal must not know")
    return "Amina entered her password only at the identity provider. The portal then showed her page."


def check_encryption_at_rest(scene: Scene) -> str:
    """No secret is readable in any file. The same search finds a planted text."""
    expect(StoredClaim.objects.filter(name="birthdate").exists(), "the portal has stored no claims")
    secrets = {
        "her date of birth": str(scene.amina.claims["birthdate"]),
        "her street": str(scene.amina.claims["address"]["street_address"]),
        "her e-mail address": str(scene.amina.claims["email"]),
        "her name": str(scene.amina.claims["family_name"]),
        "her sub": str(scene.introspect(scene.tokens["access token"])["sub"]),
        **{f"her {name}": token for name, token in scene.tokens.items()},
    }
    with canary_setup.planted_control(scene.var) as (names, text):
        hits = plaintext_search.search({"control": text}, scene.var)
        missed = [name for name in names if f"control in {name}" not in hits and f"control in {name}-wal" not in hits]
        expect(not missed, f"the search missed the text that was planted in {', '.join(missed)}")
    hits = plaintext_search.search(secrets, scene.var)
    expect(not hits, f"readable: {', '.join(hits)}")
    return (
        f"A search found a test text that was planted in {len(names)} places ({', '.join(names)}). In databases, queue "
        f"and logs, it found none of {len(secrets)} secrets: Amina’s name, sub, claims and tokens."
    )


def reveal_details(scene: Scene) -> str:
    """Amina chooses a purpose and sees her stored details."""
    page, remark = open_details(scene), ""
    for _ in range(MAX_ATTEMPTS):
        if "Erased" not in page.text:
            break
        remark = " (The address had expired on this slow machine, so Amina signed in again.)"
        scene.browser = Browser()
        scene.sign_in_amina()
        page = open_details(scene)
    expect(page.status == 200, f"the page returned {page.status}")
    expect(str(scene.amina.claims["birthdate"]) in page.text, "her date of birth is not on the page")
    expect(str(scene.amina.claims["address"]["street_address"]) in page.text, "her address is not on the page")
    expect("no-store" in page.headers.get("Cache-Control", ""), "the page may be stored")
    return (
        "Amina chose a purpose. The portal recorded the disclosure, and only then decrypted her date of birth and "
        f"address.{remark}"
    )


def open_details(scene: Scene) -> Page:
    """Open Amina's details for the purpose of a patient request."""
    form = scene.browser.open(f"{scene.portal}/portal/profile/")
    expect(str(scene.amina.claims["birthdate"]) not in form.text, "the details were shown without a purpose")
    return scene.browser.submit(form, {"purpose": "PATRQT"})


def step_up(scene: Scene) -> str:
    """Amina's chart needs a second factor. The step-up continues her session."""
    before = OIDCSession.objects.filter(ended_at=None).latest("started_at")
    login = scene.browser.open(f"{scene.portal}/portal/chart/")
    message = f"the portal returned {login.status} and did not redirect to the provider"
    expect(login.url.startswith(scene.provider), message)
    page = scene.browser.submit(login, scene.build_login_fields(scene.amina))
    expect(page.status == 200 and page.path == "/portal/chart/", f"{page.path} returned {page.status}")
    expect("data-chart=" in page.text, "the chart is not on the page")
    after = OIDCSession.objects.get(pk=before.pk)
    expect(after.ended_at is None and after.acr != before.acr, "the acr of the session has not changed")
    scene.tokens = decrypt_tokens(after)
    return (
        "The authentication level of Amina’s session was too low for her chart. The provider asked for a second "
        f"factor, and the portal showed the chart. The session is the same, with the level {after.acr}."
    )


def replay_callback(scene: Scene) -> str:
    """A second request of the callback URL is refused, and Amina stays signed in."""
    page = scene.browser.open(scene.callback)
    expect(page.status == 403, f"the portal returned {page.status}")
    expect("state_replayed" not in page.text, "the page contains the reason")
    page = scene.browser.open(f"{scene.portal}/portal/")
    expect(page.status == 200 and "data-user=" in page.text, "the refusal signed her out")
    return "The callback URL of Amina’s sign-in is valid once. The second request got 403 and a page with a reference."


def use_other_browser(scene: Scene) -> str:
    """A callback is refused in a browser that did not start the sign-in."""
    redirect = scene.authenticate(Browser(), scene.jonas, stop_at_callback=True)
    page = Browser().open(redirect.location)
    expect(page.status == 403, f"the portal returned {page.status}")
    expect("state_unknown" not in page.text, "the page contains the reason")
    return "Jonas started a sign-in. An attacker opened his callback URL in another browser, and got 403."


def forge_token(scene: Scene) -> str:
    """An ID Token with a foreign signature is refused, and the issued tokens are revoked."""
    scene.order(hostile_provider.FORGED_SIGNATURE)
    page = scene.authenticate(Browser(), scene.jonas, stop_at_callback=False)
    expect(page.status == 403, f"the portal returned {page.status}")
    expect("signature_invalid" not in page.text, "the page contains the reason")
    issued = scene.list_last_issued_tokens()
    expect(len(issued) == 2, f"the provider issued {len(issued)} tokens instead of two")
    wait_for(lambda: not any(map(scene.is_active, issued)), "tokens of the refused sign-in are still active")
    return (
        "The ID Token was signed with a foreign key. The portal returned 403 and revoked the access token and the "
        "refresh token of this sign-in. Introspection at the provider confirms it."
    )


def log_out(scene: Scene) -> str:
    """Amina signs out at the portal and at the provider."""
    expect(all(map(scene.is_active, _list_revocable_tokens(scene))), "her tokens were revoked before the logout")
    page = scene.browser.submit(scene.browser.open(f"{scene.portal}/portal/"), {}, action="/oidc/logout/")
    expect(page.status == 200 and page.path == "/oidc/logged-out/", f"{page.path} returned {page.status}")
    after = scene.browser.open(f"{scene.portal}/portal/")
    expect(after.url.startswith(scene.provider), "her page is still shown")
    expect("password" in after.text, "the session at the provider still exists")
    return "Amina’s session ended at the portal, then at the provider, which now asks for the password again."


def check_tokens_revoked(scene: Scene) -> str:
    """Both tokens are revoked at the provider."""
    wait_for(lambda: not any(map(scene.is_active, _list_revocable_tokens(scene))), "a token is still active")
    return "Introspection at the provider shows that Amina’s access token and refresh token are no longer active."


def check_session_claims_deleted(scene: Scene) -> str:
    """The claims with retention `session` are deleted with the session."""
    expect(not StoredClaim.objects.filter(name="birthdate").exists(), "her date of birth is still stored")
    return "The date of birth was stored until the logout. It was deleted in the same transaction."


def wait_for_retention(scene: Scene) -> str:
    """The worker deletes an expired claim."""
    wait_for(lambda: not StoredClaim.objects.exists(), "a claim is stored after its expiry")
    return f"The address was stored for {RETENTION_SECONDS} s. Then a Celery task deleted it."


def log_out_during_outage(scene: Scene) -> str:
    """Amina signs out while the provider cannot revoke tokens. The worker revokes them later."""
    scene.browser = Browser()
    scene.sign_in_amina()
    scene.order(hostile_provider.OUTAGE)
    started = time.monotonic()
    page = scene.browser.submit(scene.browser.open(f"{scene.portal}/portal/"), {}, action="/oidc/logout/")
    duration = time.monotonic() - started
    tokens = _list_revocable_tokens(scene)
    expect(page.path == "/oidc/logout/" and "does not respond" in page.text, f"{page.path} returned {page.status}")
    expect(all(map(scene.is_active, tokens)), "the provider revoked tokens during the outage")
    link = re.search(r'<a class="button" href="([^"]+)"', page.text)
    scene.order(hostile_provider.OUTAGE_END)
    # On a slow machine, the worker may have failed several times, with increasing delays.
    wait_for(lambda: not any(map(scene.is_active, tokens)), "a token is still active", seconds=120)
    expect(link is not None, "the page has no link to the provider's logout")
    scene.browser.open(html.unescape(link[1]) if link else "")
    expect(scene.browser.open(f"{scene.portal}/portal/").url.startswith(scene.provider), "her page is still shown")
    return (
        "Amina signed in again, and signed out while the provider answered every revocation with 503. After "
        f"{duration:.1f} s she was signed out at the portal, whose page said that the provider did not respond. After "
        "the outage, the worker revoked both tokens, and the link on that page ended the session at the provider."
    )


def modify_audit_log(scene: Scene) -> str:
    """The database refuses UPDATE and DELETE of audit events."""
    table = AuditEvent._meta.db_table
    before = list(AuditEvent.objects.order_by("pk").values_list())
    for statement in (f"UPDATE {table} SET outcome = 'success'", f"DELETE FROM {table}"):
        try:
            with connections[AUDIT_ALIAS].cursor() as cursor:
                cursor.execute(statement)
        except DatabaseError:
            continue
        raise StepFailed(f"the database allowed {statement.partition(' ')[0]}")
    expect(list(AuditEvent.objects.order_by("pk").values_list())[: len(before)] == before, "events have changed")
    return f"Database triggers refused UPDATE and DELETE statements. All {len(before)} events are unchanged."


def verify_audit_log(scene: Scene) -> str:
    """The worker has signed the audit log, a command verifies it, and one event is proven without the portal."""
    wait_for(lambda: not AuditUnsealed.objects.exists(), "events are not sealed")
    verification = scene.manage("phi_oidc", "audit", "verify")
    expect(verification.returncode == 0, f"the verification failed: {verification.stdout[-500:]}")
    event = AuditEvent.objects.filter(action="login.succeeded").earliest("pk")
    proof = scene.var / "proof.json"
    proof.write_text(scene.manage("phi_oidc", "audit", "prove", str(event.pk)).stdout)
    key = scene.manage("phi_oidc", "audit", "checkpoint", "--public-key").stdout.strip()
    check = ("-m", "django_phi_oidc.audit.log.bundle")
    valid = scene.run_python(*check, str(proof), "--public-key", key)
    expect(valid.returncode == 0 and str(event.pk) in valid.stdout, f"the proof is invalid: {valid.stderr}")
    forged = proof.with_name("forged.json")
    forged.write_text(proof.read_text().replace('"success"', '"failure"'))
    invalid = scene.run_python(*check, str(forged), "--public-key", key)
    expect(invalid.returncode == 1, "a forged proof was accepted")
    size = AuditCheckpoint.objects.latest("tree_size").tree_size
    return (
        f"The worker sealed {size} events and signed the root hash of their Merkle tree. The verification found no "
        "changes. An exported proof of Amina’s sign-in was verified with the log’s public key alone. After one word in "
        "it was changed, the proof was refused."
    )


def detect_tampering(scene: Scene) -> str:
    """In a copy of the audit log without triggers, one event is changed. The verification detects it."""
    copy_path = scene.var / "tampered.sqlite3"
    name = connections[AUDIT_ALIAS].settings_dict["NAME"]
    with closing(sqlite3.connect(name)) as original, closing(sqlite3.connect(copy_path)) as copy:
        original.backup(copy)
        for (trigger,) in copy.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            copy.execute(f"DROP TRIGGER {trigger}")
        event_id = copy.execute("SELECT event_id FROM phi_oidc_audit_auditleaf WHERE leaf_index = 2").fetchone()[0]
        copy.execute("UPDATE phi_oidc_audit_auditevent SET actor = 'nobody' WHERE id = ?", [event_id])
        copy.commit()
    url = f"sqlite:///{copy_path}"
    verification = scene.manage("phi_oidc", "audit", "verify", "--full", "--json", PHI_AUDIT_DATABASE_URL=url)
    objects = [json.loads(line) for line in verification.stdout.splitlines()]
    findings = [(finding["kind"], finding["event_id"]) for finding in objects if finding.get("kind")]
    expect(verification.returncode == 1, "the change was not detected")
    altered = str(uuid.UUID(event_id))
    expect({*findings} == {("event_altered", altered), ("protection_altered", "")}, f"the findings are {findings}")
    return (
        "In a copy of the audit database without triggers, one word of one event was changed. The verification "
        f"reported the missing triggers, and the event: {altered}."
    )


def _list_revocable_tokens(scene: Scene) -> list[str]:
    return [scene.tokens[name] for name in ("access token", "refresh token")]


STEPS = (
    Step(
        title="Amina signs in",
        run=sign_in,
        events=("subject.linked success", "login.succeeded success"),
    ),
    Step(title="Stored data is encrypted", run=check_encryption_at_rest),
    Step(
        title="Amina chooses a purpose and sees her details",
        run=reveal_details,
        events=("claim.revealed success PATRQT",),
    ),
    Step(
        title="Her chart needs a second factor",
        run=step_up,
        events=(
            "access.denied failure acr_insufficient PATRQT",
            "session.renewed success",
            "access.granted success PATRQT",
        ),
    ),
    Step(
        title="A clinician opens emergency access",
        run=emergency_scene.open_emergency_access,
        events=(
            "access.denied failure permission_missing TREAT",
            "emergency.opened success ETREAT",
            "access.granted success ETREAT",
            "emergency.closed success closed",
        ),
    ),
    Step(
        title="The privacy officer reviews the emergency access",
        run=emergency_scene.review_emergency_access,
        events=("emergency.reviewed success",),
    ),
    Step(
        title="The callback URL is used a second time",
        run=replay_callback,
        events=("login.refused failure state_replayed",),
    ),
    Step(
        title="A callback URL is opened in another browser",
        run=use_other_browser,
        events=("login.refused failure state_unknown",),
    ),
    Step(
        title="The provider sends a forged ID Token",
        run=forge_token,
        events=("login.refused failure signature_invalid", "token.revoked success"),
    ),
    Step(
        title="Amina signs out",
        run=log_out,
        events=("session.ended success logout", "claim.scrubbed success", "logout.completed success"),
    ),
    Step(title="Her tokens are revoked at the provider", run=check_tokens_revoked),
    Step(title="Claims of the session are deleted", run=check_session_claims_deleted),
    Step(
        title="Other claims are deleted after their retention time",
        run=wait_for_retention,
        events=("claim.scrubbed success",),
    ),
    Step(
        title="Amina signs out during an outage of the provider",
        run=log_out_during_outage,
        events=("token.revocation_failed failure http_503", "session.ended success logout", "token.revoked success"),
    ),
    Step(title="The audit log cannot be modified", run=modify_audit_log),
    Step(
        title="The audit log is signed and verified, and one event is proven",
        run=verify_audit_log,
        events=("audit.verified success", "audit.exported success"),
    ),
    Step(title="Tampering with a copy of the audit log is detected", run=detect_tampering),
)
