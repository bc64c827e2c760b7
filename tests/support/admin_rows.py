"""Rows for each admin page of the app, and all admin pages by name."""

import uuid
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.contrib import admin
from django.contrib.auth import get_user_model
from django.db import transaction
from django.urls import URLPattern, reverse

from django_phi_oidc._internal.randomness import uuid7
from django_phi_oidc.audit.admin_base import AuditedAdmin
from django_phi_oidc.audit.events import Action, Origin
from django_phi_oidc.audit.models import AuditCheckpoint, SetAsideEvent
from django_phi_oidc.claims.models import StoredClaim
from django_phi_oidc.conf import providers
from django_phi_oidc.contrib.audit_exports.models import TrailJob
from django_phi_oidc.contrib.emergency.models import EmergencyAccess
from django_phi_oidc.contrib.individual_rights.accounting_copies import store_copy
from django_phi_oidc.contrib.individual_rights.models import AccountingCopy
from django_phi_oidc.contrib.invitations.invitations import create_invitations
from django_phi_oidc.contrib.invitations.models import ActivationCode
from django_phi_oidc.contrib.legal_holds.legal_holds import place_hold, release_hold
from django_phi_oidc.contrib.monitoring.models import AlertMute, SecurityAlert
from django_phi_oidc.contrib.officer_admin.models import SessionEndJob
from django_phi_oidc.contrib.scim.models import SCIMClient
from django_phi_oidc.contrib.siem.models import SinkCursor
from django_phi_oidc.crypto.keyring import get_keys
from django_phi_oidc.sessions.models import PendingRevocation
from django_phi_oidc.subjects.models import PairwiseSubject
from tests.support.audit_log import events, sealed
from tests.support.claims_fixtures import DAY
from tests.support.person_page_fixtures import NOW, held, in_an_emergency

PACKAGE = "django_phi_oidc"
HOUR = timedelta(hours=1)
PERSON = {"phi_oidc_person", "phi_oidc_person_act", "phi_oidc_person_search", "phi_oidc_reference"}
"""Pages without a model; they are tested with the person page and the look-up of references."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """An admin page of the app."""

    model_admin: Any
    name: str
    """changelist, change, add, delete, history, or an additional page of the model."""
    key: str
    """The URL argument with the key of the row; empty if there is none."""

    @property
    def is_posted(self) -> bool:
        """Whether it accepts only POST."""
        names = {
            "trailjob": {"export", "verify", "download"},
            "activationcode": {"codes"},
            "sessionendjob": {"continue"},
        }
        return self.name in names.get(self.model_admin.opts.model_name, ())

    def url(self, rows: dict[str, Any]) -> str:
        """Return the URL, with the row of the model if it needs one."""
        opts = self.model_admin.opts
        kwargs = {self.key: rows[opts.model_name]} if self.key else {}
        return reverse(f"admin:{opts.app_label}_{opts.model_name}_{self.name}", kwargs=kwargs)


def admins() -> list[Any]:
    """Return the model admins of the app."""
    return [
        model_admin
        for model_admin in admin.site._registry.values()
        if type(model_admin).__module__.startswith(f"{PACKAGE}.")
    ]


def get_list_url(model_name: str) -> str:
    """Return the URL of the list of that model."""
    (opts,) = (model_admin.opts for model_admin in admins() if model_admin.opts.model_name == model_name)
    return reverse(f"admin:{opts.app_label}_{model_name}_changelist")


def pages() -> dict[str, Page]:
    """Return every page, by `model_name`."""
    pages_by_name = {}
    for model_admin in admins():
        for pattern in model_admin.urls:
            if pattern.name:
                name = pattern.name.rpartition("_")[2]
                key = next(iter(pattern.pattern.converters), "")
                pages_by_name[f"{model_admin.opts.model_name}_{name}"] = Page(
                    model_admin=model_admin, name=name, key=key
                )
    return pages_by_name


def acts() -> set[str]:
    """Return the list actions, as `model:action`."""
    return {
        f"{model_admin.opts.model_name}:{name}"
        for model_admin in admins()
        for name in (*(model_admin.actions or ()), *(name for name, _ in admin.site.actions))
        if isinstance(model_admin, AuditedAdmin)
    }


def of_the_site() -> set[str]:
    """Return the names of the app's pages without a model."""
    names = {pattern.name for pattern in admin.site.get_urls() if isinstance(pattern, URLPattern) and pattern.name}
    return {name for name in names if "phi_oidc" in name}


def furnish(patient: Any, asked_by: Any) -> dict[str, Any]:
    """Create rows for every page, and return the key of one row per model that actions apply to.

    asked_by: the owner of the exports.
    """
    user, subject = patient.user, patient.subject
    release_hold(_hold_of_old(subject).pk, origin=Origin(), now=NOW - HOUR)
    invited = get_user_model()._default_manager.create_user(username=f"newcomer-{uuid.uuid4().hex[:8]}")
    fields: dict[str, Any] = {"provider": providers()["default"], "key": get_keys("subject")[0], "lifetime": DAY}
    create_invitations([invited.pk], **fields, origin=Origin(actor="1"), now=NOW)
    # Another account: the help desk invites only accounts that are not linked.
    linked = get_user_model()._default_manager.create_user(username=f"linked-{uuid.uuid4().hex[:8]}")
    other = PairwiseSubject.objects.create(
        uuid=uuid.uuid4(), user=linked, issuer="https://op", first_seen_at=NOW, last_seen_at=NOW
    )
    unheld = StoredClaim.objects.create(
        subject=other, name="address", value='"Bern"', purpose="HOPERAT", obtained_at=NOW, expires_at=NOW + DAY
    )
    with transaction.atomic():
        store_copy(str(user.pk), ["{}"], now=NOW)
    tries = [("pending", 3, "timeout"), ("done", 1, ""), ("refused", 9, "invalid_client")]
    revocations = [
        PendingRevocation.objects.create(
            id=uuid7(NOW),
            provider="default",
            session=patient.session.pk,
            token="a token" if status == "pending" else None,
            token_type_hint="refresh_token",
            status=status,
            attempts=attempts,
            last_fault=fault,
            due_at=NOW,
            created_at=NOW - HOUR,
            finished_at=None if status == "pending" else NOW,
        )
        for status, attempts, fault in tries
    ]
    over = {"opened_at": NOW - 3 * HOUR, "expires_at": NOW - 2 * HOUR, "purpose": "ETREAT"}
    fields = {"user": user, "actor": str(user.pk), "resource": "Patient/7", "reason": "Nobody knows.", **over}
    waiting = EmergencyAccess.objects.create(id=uuid7(NOW), permissions=["portal.view_chart"], **fields)
    EmergencyAccess.objects.create(
        id=uuid7(NOW),
        permissions=[],
        **fields,
        reviewed_at=NOW,
        reviewed_by="an officer",
        verdict="justified",
        note="Seen.",
    )
    seen: dict[str, Any] = {"first_seen": NOW - HOUR, "last_seen": NOW, "count": 1204}
    address = f"2001:db8::{uuid.uuid4().hex[:4]}"
    alert = SecurityAlert.objects.create(
        kind="refusal_burst", key=address, severity="warning", event=uuid.uuid4(), **seen
    )
    SecurityAlert.objects.create(
        kind="replay",
        key=address,
        severity="critical",
        acknowledged_at=NOW,
        acknowledged_by="an officer",
        note="A drill.",
        **seen,
    )
    muted = {"muted_at": NOW - HOUR, "muted_by": "an officer", "note": "The scanner of the hospital, each Tuesday."}
    mute = AlertMute.objects.create(kind="refusal_burst", key="2001:db8::2", until=NOW + DAY, **muted)
    AlertMute.objects.create(kind="replay", until=NOW + DAY, lifted_at=NOW, **muted)
    event, *_ = _trail(subject, user)
    seen_under = {"action": Action.ACCESS_GRANTED, "detail": {"emergency": str(waiting.pk)}, "resource": "Patient/7"}
    events(2, **seen_under, origin=Origin(actor=str(user.pk)), purpose="ETREAT", at=NOW - 3 * HOUR)
    set_aside = SetAsideEvent.objects.create(
        event_id=event, reader="sink:siem", error="TypeError", set_aside_at=NOW - HOUR, tried_at=NOW
    )
    return {
        "pairwisesubject": other.pk,
        "activationcode": ActivationCode.objects.get(user=invited).pk,
        "oidcsession": patient.session.pk,
        "sessionendjob": _end_job(patient, asked_by).pk,
        "pendingrevocation": revocations[0].pk,
        "storedclaim": unheld.pk,
        "accountingcopy": AccountingCopy.objects.get().pk,
        "legalhold": held(patient).pk,
        "emergencyaccess": waiting.pk,
        "open emergency": in_an_emergency(patient).pk,
        "scimclient": SCIMClient.objects.create(name=uuid.uuid4().hex, provider="default", created_at=NOW).pk,
        "securityalert": alert.pk,
        "alertmute": mute.pk,
        "auditevent": event,
        "auditcheckpoint": AuditCheckpoint.objects.latest("tree_size").pk,
        "setasideevent": set_aside.pk,
        "trailjob": _jobs(asked_by),
        "sinkcursor": SinkCursor.objects.update_or_create(name="siem", defaults={"due_at": NOW + HOUR})[0].pk,
        "subject": subject.uuid,
        "newcomer": invited.pk,
        "patient": patient.user.pk,
    }


def _hold_of_old(subject: Any) -> Any:
    return place_hold(subject.uuid, reason="Docket 26-98", until=None, origin=Origin(), now=NOW - 2 * HOUR)


def _trail(subject: Any, user: Any) -> list[uuid.UUID]:
    about = {"subject": str(subject.uuid), "at": NOW - HOUR}
    ids = events(3, **about)
    origin = Origin(actor=str(user.pk), session=str(uuid.uuid4()), client_ip="2001:db8::1", request_id="a-request")
    events(3, action=Action.LOGIN_SUCCEEDED, origin=origin, detail={}, **about)
    refused = {"action": Action.LOGIN_REFUSED, "outcome": "failure", "reason": "state_unknown", "detail": {}}
    sealed(2, **refused, at=NOW - HOUR / 2, subject="")
    events(1, action=Action.AUDIT_VERIFIED, detail={"tree_size": 8, "findings": 0}, at=NOW)
    return ids


def _end_job(patient: Any, asked_by: Any) -> SessionEndJob:
    selection = {"user": str(patient.user.pk), "provider": "default"}
    fields = {"requested_by": str(asked_by.pk), "requested_at": NOW - HOUR / 4, "done": 120, "total": 402}
    return SessionEndJob.objects.create(id=uuid7(NOW), selection=selection, **fields)


def _jobs(asked_by: Any) -> uuid.UUID:
    """Return the key of the export."""
    fields = {"asked_by": str(asked_by.pk), "asked_at": NOW - HOUR / 4}
    TrailJob.objects.create(
        id=uuid7(NOW),
        kind="verification",
        state="done",
        **fields,
        done=8,
        total=8,
        result={"tree_size": 8, "waiting": 1, "findings": 0},
    )
    made = TrailJob.objects.create(
        id=uuid7(NOW), kind="export", state="running", format="jsonl", **fields, done=3000, total=12000
    )
    return made.pk
