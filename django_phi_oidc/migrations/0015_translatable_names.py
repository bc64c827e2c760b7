"""What people read of models and fields, each text translatable. It is in the state alone: no table is touched."""

import uuid
from typing import Any

from django.conf import settings
from django.db import migrations, models

OPTIONS: dict[str, dict[str, Any]] = {
    "activationcode": {
        "verbose_name": "activation code",
        "verbose_name_plural": "activation codes",
        "default_permissions": ("view",),
        "permissions": (("issue_activationcode", "Can make and revoke activation codes"),),
    },
    "alertmute": {
        "verbose_name": "alert mute",
        "verbose_name_plural": "alert mutes",
        "default_permissions": ("view", "add", "change"),
    },
    "anomalymemory": {
        "verbose_name": "anomaly memory",
        "verbose_name_plural": "anomaly memories",
        "default_permissions": (),
    },
    "auditcheckpoint": {
        "verbose_name": "audit checkpoint",
        "verbose_name_plural": "audit checkpoints",
        "base_manager_name": "objects",
        "default_permissions": ("view",),
        "ordering": ("tree_size",),
    },
    "auditevent": {
        "verbose_name": "audit event",
        "verbose_name_plural": "audit events",
        "base_manager_name": "objects",
        "default_permissions": ("view",),
        "ordering": ("id",),
        "permissions": (("export_auditevent", "Can take audit events out of the trail"),),
    },
    "auditleaf": {
        "verbose_name": "leaf of the log",
        "verbose_name_plural": "leaves of the log",
        "base_manager_name": "objects",
        "default_permissions": (),
        "ordering": ("leaf_index",),
    },
    "auditnode": {
        "verbose_name": "node of the log",
        "verbose_name_plural": "nodes of the log",
        "base_manager_name": "objects",
        "default_permissions": (),
    },
    "auditoutbox": {
        "verbose_name": "event in the outbox",
        "verbose_name_plural": "events in the outbox",
        "default_permissions": (),
    },
    "auditunsealed": {
        "verbose_name": "unsealed event",
        "verbose_name_plural": "unsealed events",
        "default_permissions": (),
    },
    "auditwitness": {
        "verbose_name": "witnessed checkpoint",
        "verbose_name_plural": "witnessed checkpoints",
        "default_permissions": (),
    },
    "emergencyaccess": {
        "verbose_name": "emergency access",
        "verbose_name_plural": "emergency accesses",
        "default_permissions": ("view",),
        "permissions": (
            ("open_emergencyaccess", "Can open emergency access to one resource"),
            ("open_emergencyaccess_everywhere", "Can open emergency access to every resource"),
            ("review_emergencyaccess", "Can review emergency access of other persons, and close it"),
        ),
    },
    "legalhold": {
        "verbose_name": "legal hold",
        "verbose_name_plural": "legal holds",
        "default_permissions": ("view", "add", "change"),
        "permissions": (("disclose_legalhold", "Can see what a legal hold keeps"),),
    },
    "oidcsession": {
        "verbose_name": "OIDC session",
        "verbose_name_plural": "OIDC sessions",
        "default_permissions": ("view",),
        "permissions": (("end_oidcsession", "Can end sessions"),),
    },
    "pairwiseidentifier": {
        "verbose_name": "pairwise identifier",
        "verbose_name_plural": "pairwise identifiers",
        "default_permissions": (),
    },
    "pairwisesubject": {
        "verbose_name": "pairwise subject",
        "verbose_name_plural": "pairwise subjects",
        "permissions": (("export_pairwisesubject", "Can export all that is held of persons"),),
    },
    "pendingrevocation": {
        "verbose_name": "pending revocation",
        "verbose_name_plural": "pending revocations",
        "default_permissions": ("view",),
        "permissions": (("retry_pendingrevocation", "Can have revocations tried again"),),
    },
    "refusalcount": {
        "verbose_name": "refusal count",
        "verbose_name_plural": "refusal counts",
        "default_permissions": (),
    },
    "securityalert": {
        "verbose_name": "security alert",
        "verbose_name_plural": "security alerts",
        "default_permissions": ("view",),
        "permissions": (("acknowledge_securityalert", "Can acknowledge security alerts"),),
    },
    "sinkcursor": {"verbose_name": "sink cursor", "verbose_name_plural": "sink cursors", "default_permissions": ()},
    "spentvalue": {"verbose_name": "spent value", "verbose_name_plural": "spent values"},
    "storedclaim": {
        "verbose_name": "stored claim",
        "verbose_name_plural": "stored claims",
        "default_permissions": ("view",),
        "permissions": (
            ("reveal_storedclaim", "Can reveal claims of other persons"),
            ("scrub_storedclaim", "Can erase claims of other persons"),
        ),
    },
    "subjectdigest": {"verbose_name": "subject digest", "verbose_name_plural": "subject digests"},
    "trailjob": {
        "verbose_name": "export or verification",
        "verbose_name_plural": "exports and verifications",
        "default_permissions": (),
    },
    "watchcursor": {"verbose_name": "watch cursor", "verbose_name_plural": "watch cursors", "default_permissions": ()},
}
"""All that a model has of options: what is left out of them would be gone."""
FIELDS: list[tuple[str, str, Any]] = [
    ("activationcode", "created_at", models.DateTimeField("created at", editable=False)),
    ("activationcode", "created_by", models.CharField("created by", editable=False, max_length=255)),
    ("activationcode", "expires_at", models.DateTimeField("expires at", editable=False)),
    ("activationcode", "provider", models.CharField("provider", max_length=64)),
    ("activationcode", "redeemed_at", models.DateTimeField("redeemed at", editable=False, null=True)),
    ("activationcode", "revoked_at", models.DateTimeField("revoked at", editable=False, null=True)),
    (
        "activationcode",
        "user",
        models.ForeignKey(on_delete=models.CASCADE, related_name="+", to=settings.AUTH_USER_MODEL, verbose_name="user"),
    ),
    ("alertmute", "key", models.CharField("key", blank=True, max_length=256)),
    ("alertmute", "kind", models.CharField("kind", max_length=64)),
    ("alertmute", "lifted_at", models.DateTimeField("lifted at", editable=False, null=True)),
    ("alertmute", "muted_at", models.DateTimeField("muted at", editable=False)),
    ("alertmute", "muted_by", models.CharField("muted by", blank=True, editable=False, max_length=256)),
    ("alertmute", "note", models.CharField("note", max_length=255)),
    ("alertmute", "until", models.DateTimeField("until")),
    ("emergencyaccess", "alerted_at", models.DateTimeField("alerted at", editable=False, null=True)),
    ("emergencyaccess", "expires_at", models.DateTimeField("expires at", editable=False)),
    ("emergencyaccess", "id", models.UUIDField("id", editable=False, primary_key=True, serialize=False)),
    ("emergencyaccess", "opened_at", models.DateTimeField("opened at", editable=False)),
    ("emergencyaccess", "purpose", models.CharField("purpose", editable=False, max_length=16)),
    ("emergencyaccess", "resource", models.CharField("resource", editable=False, max_length=200)),
    (
        "emergencyaccess",
        "user",
        models.ForeignKey(
            editable=False,
            null=True,
            on_delete=models.SET_NULL,
            related_name="+",
            to=settings.AUTH_USER_MODEL,
            verbose_name="user",
        ),
    ),
    (
        "emergencyaccess",
        "verdict",
        models.CharField(
            "verdict",
            choices=[("justified", "justified"), ("not_justified", "not justified")],
            default="",
            editable=False,
            max_length=16,
        ),
    ),
    ("legalhold", "id", models.UUIDField("id", editable=False, primary_key=True, serialize=False)),
    ("legalhold", "placed_at", models.DateTimeField("placed at", editable=False)),
    ("legalhold", "placed_by", models.CharField("placed by", editable=False, max_length=255)),
    ("legalhold", "reason", models.CharField("reason", max_length=255)),
    ("legalhold", "released_at", models.DateTimeField("released at", editable=False, null=True)),
    ("legalhold", "released_by", models.CharField("released by", default="", editable=False, max_length=255)),
    (
        "legalhold",
        "subject",
        models.ForeignKey(
            null=True,
            on_delete=models.SET_NULL,
            related_name="holds",
            to="django_phi_oidc.pairwisesubject",
            verbose_name="subject",
        ),
    ),
    ("legalhold", "until", models.DateTimeField("until", blank=True, null=True)),
    ("oidcsession", "access_token_expires_at", models.DateTimeField("access token expires at", null=True)),
    ("oidcsession", "acr", models.CharField("acr", blank=True, max_length=255)),
    ("oidcsession", "auth_time", models.DateTimeField("auth time", null=True)),
    (
        "oidcsession",
        "end_reason",
        models.CharField(
            "end reason",
            blank=True,
            choices=[
                ("logout", "the person signed out"),
                ("django_logout", "django.contrib.auth.logout was called"),
                ("replaced", "somebody signed in on the same browser"),
                ("session_lost", "the Django session was flushed"),
                ("audit_unavailable", "the sign-in could not be written to the trail"),
                ("subject_unlinked", "the person's link to the account was deleted"),
                ("idle_timeout", "nobody did anything for as long as is allowed"),
                ("absolute_timeout", "it had lasted for as long as is allowed"),
                ("user_inactive", "the account was deactivated or deleted"),
                ("password_changed", "the account's password was changed"),
                ("roles_changed", "the account's groups or permissions were changed"),
                ("administrator", "an administrator ended it"),
                ("backchannel_logout", "the provider said that the person signed out"),
                ("frontchannel_logout", "the provider sent the browser to say so"),
                ("invalid_grant", "the provider refused to refresh its tokens"),
                ("refresh_mismatch", "a refresh gave tokens of another person or sign-in"),
            ],
            max_length=32,
        ),
    ),
    ("oidcsession", "ended_at", models.DateTimeField("ended at", db_index=True, null=True)),
    ("oidcsession", "id", models.UUIDField("id", editable=False, primary_key=True, serialize=False)),
    ("oidcsession", "last_seen_at", models.DateTimeField("last seen at")),
    ("oidcsession", "provider", models.CharField("provider", max_length=64)),
    ("oidcsession", "started_at", models.DateTimeField("started at")),
    (
        "oidcsession",
        "user",
        models.ForeignKey(
            null=True, on_delete=models.SET_NULL, related_name="+", to=settings.AUTH_USER_MODEL, verbose_name="user"
        ),
    ),
    ("pairwisesubject", "first_seen_at", models.DateTimeField("first seen at")),
    ("pairwisesubject", "issuer", models.CharField("issuer", max_length=255)),
    ("pairwisesubject", "last_seen_at", models.DateTimeField("last seen at")),
    (
        "pairwisesubject",
        "user",
        models.ForeignKey(
            on_delete=models.CASCADE, related_name="pairwise_subjects", to=settings.AUTH_USER_MODEL, verbose_name="user"
        ),
    ),
    ("pairwisesubject", "uuid", models.UUIDField("UUID", editable=False, unique=True)),
    ("pendingrevocation", "attempts", models.PositiveIntegerField("attempts", default=0)),
    ("pendingrevocation", "created_at", models.DateTimeField("created at")),
    ("pendingrevocation", "due_at", models.DateTimeField("due at")),
    ("pendingrevocation", "finished_at", models.DateTimeField("finished at", null=True)),
    ("pendingrevocation", "id", models.UUIDField("id", editable=False, primary_key=True, serialize=False)),
    ("pendingrevocation", "last_fault", models.CharField("last fault", blank=True, max_length=64)),
    ("pendingrevocation", "provider", models.CharField("provider", max_length=64)),
    ("pendingrevocation", "session", models.UUIDField("session", null=True)),
    (
        "pendingrevocation",
        "status",
        models.CharField(
            "status",
            choices=[
                ("pending", "to be tried"),
                ("done", "revoked at the OP"),
                ("unsupported", "the OP does not revoke tokens of this kind"),
                ("refused", "the OP refused for good"),
                ("abandoned", "given up"),
            ],
            default="pending",
            max_length=16,
        ),
    ),
    ("pendingrevocation", "token_expires_at", models.DateTimeField("token expires at", null=True)),
    ("pendingrevocation", "token_type_hint", models.CharField("token type hint", max_length=16)),
    ("securityalert", "acknowledged_at", models.DateTimeField("acknowledged at", editable=False, null=True)),
    (
        "securityalert",
        "acknowledged_by",
        models.CharField("acknowledged by", blank=True, editable=False, max_length=256),
    ),
    ("securityalert", "count", models.PositiveBigIntegerField("count", default=0, editable=False)),
    ("securityalert", "event", models.UUIDField("event", editable=False, null=True)),
    ("securityalert", "first_seen", models.DateTimeField("first seen", editable=False)),
    ("securityalert", "key", models.CharField("key", blank=True, editable=False, max_length=256)),
    ("securityalert", "kind", models.CharField("kind", editable=False, max_length=64)),
    ("securityalert", "last_seen", models.DateTimeField("last seen", editable=False)),
    ("securityalert", "note", models.TextField("note", blank=True, max_length=2000)),
    (
        "securityalert",
        "severity",
        models.CharField(
            "severity",
            choices=[("info", "info"), ("warning", "warning"), ("critical", "critical")],
            editable=False,
            max_length=8,
        ),
    ),
    ("securityalert", "told_at", models.DateTimeField("told at", editable=False, null=True)),
    ("storedclaim", "bucket", models.CharField("bucket", default="", editable=False, max_length=40)),
    ("storedclaim", "expires_at", models.DateTimeField("expires at", db_index=True, null=True)),
    ("storedclaim", "held_until", models.DateTimeField("held until", editable=False, null=True)),
    ("storedclaim", "name", models.CharField("name", max_length=255)),
    ("storedclaim", "obtained_at", models.DateTimeField("obtained at")),
    ("storedclaim", "purpose", models.CharField("purpose", max_length=32)),
    (
        "storedclaim",
        "session",
        models.UUIDField("session", db_index=True, default=uuid.UUID("00000000-0000-0000-0000-000000000000")),
    ),
    (
        "storedclaim",
        "subject",
        models.ForeignKey(
            on_delete=models.CASCADE,
            related_name="claims",
            to="django_phi_oidc.pairwisesubject",
            verbose_name="subject",
        ),
    ),
]


class Migration(migrations.Migration):
    dependencies = [
        ("django_phi_oidc", "0014_trail_jobs"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        *(migrations.AlterModelOptions(name, options) for name, options in OPTIONS.items()),
        *(migrations.AlterField(*each) for each in FIELDS),
    ]
