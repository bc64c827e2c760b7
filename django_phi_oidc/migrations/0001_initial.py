import datetime
import uuid

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.state import StateApps

import django_phi_oidc.fields


def omit_like_index(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    """Omit the second index of the primary key, for LIKE, which PostgreSQL would get: each sign-in would write it."""
    table = apps.get_model("django_phi_oidc", "UsedIdentifier")._meta.db_table
    schema_editor.deferred_sql = [
        statement
        for statement in schema_editor.deferred_sql
        if not (statement.references_table(table) and "_pattern_ops" in str(statement))
    ]


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="UsedIdentifier",
            fields=[
                (
                    "digest",
                    models.CharField(
                        editable=False, max_length=64, primary_key=True, serialize=False
                    ),
                ),
                ("kind", models.CharField(max_length=32)),
                ("until", models.DateTimeField(db_index=True)),
            ],
            options={
                "verbose_name": "used identifier",
                "verbose_name_plural": "used identifiers",
            },
        ),
        migrations.CreateModel(
            name="PairwiseSubject",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("uuid", models.UUIDField(editable=False, unique=True, verbose_name="UUID")),
                ("issuer", models.CharField(max_length=255, verbose_name="issuer")),
                ("first_seen_at", models.DateTimeField(verbose_name="first seen at")),
                ("last_seen_at", models.DateTimeField(verbose_name="last seen at")),
                ("held_until", models.DateTimeField(editable=False, null=True)),
                ("retention_key_id", models.UUIDField(default=uuid.uuid4, editable=False)),
                (
                    "user",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="pairwise_subjects",
                        to=settings.AUTH_USER_MODEL,
                        verbose_name="user",
                    ),
                ),
            ],
            options={
                "verbose_name": "pairwise subject",
                "verbose_name_plural": "pairwise subjects",
                "permissions": (
                    ("export_pairwisesubject", "Can export all that is held of persons"),
                    ("reveal_storedclaim", "Can reveal claims of other persons"),
                ),
            },
        ),
        migrations.CreateModel(
            name="PendingRevocation",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        editable=False, primary_key=True, serialize=False, verbose_name="id"
                    ),
                ),
                ("provider", models.CharField(max_length=64, verbose_name="provider")),
                ("session", models.UUIDField(null=True, verbose_name="session")),
                ("token", django_phi_oidc.fields.SealedTextField(bind=("id",), null=True)),
                (
                    "session_token",
                    django_phi_oidc.fields.SealedTextField(
                        bind=("token_type_hint", "session"),
                        null=True,
                        source_table="django_phi_oidc_oidcsession",
                    ),
                ),
                (
                    "token_type_hint",
                    models.CharField(max_length=16, verbose_name="token type hint"),
                ),
                ("token_digest", models.CharField(max_length=64, null=True)),
                (
                    "token_expires_at",
                    models.DateTimeField(null=True, verbose_name="token expires at"),
                ),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("pending", "pending"),
                            ("done", "revoked"),
                            ("unsupported", "not supported by the provider"),
                            ("refused", "refused by the provider"),
                            ("abandoned", "abandoned"),
                        ],
                        default="pending",
                        max_length=16,
                        verbose_name="status",
                    ),
                ),
                ("attempts", models.PositiveIntegerField(default=0, verbose_name="attempts")),
                ("due_at", models.DateTimeField(verbose_name="due at")),
                ("lease_until", models.DateTimeField(null=True)),
                (
                    "last_fault",
                    models.CharField(blank=True, max_length=64, verbose_name="last fault"),
                ),
                ("created_at", models.DateTimeField(verbose_name="created at")),
                (
                    "first_attempt_at",
                    models.DateTimeField(null=True, verbose_name="first attempt at"),
                ),
                ("finished_at", models.DateTimeField(null=True, verbose_name="finished at")),
                ("provider_busy_until", models.DateTimeField(editable=False, null=True)),
                ("blocked_until", models.DateTimeField(editable=False, null=True)),
                ("missing_key", models.CharField(blank=True, editable=False, max_length=8)),
                ("end_job", models.UUIDField(editable=False, null=True)),
            ],
            options={
                "verbose_name": "pending revocation",
                "verbose_name_plural": "pending revocations",
                "permissions": (("retry_pendingrevocation", "Can have revocations tried again"),),
                "default_permissions": ("view",),
                "indexes": [
                    models.Index(
                        condition=models.Q(("status", "pending")),
                        fields=["due_at"],
                        name="phi_oidc_revocation_due",
                    ),
                    models.Index(
                        condition=models.Q(("status", "pending")),
                        fields=["session"],
                        name="phi_oidc_revocation_session",
                    ),
                    models.Index(
                        condition=models.Q(("token_digest__isnull", False)),
                        fields=["token_digest"],
                        name="phi_oidc_revocation_token",
                    ),
                    models.Index(
                        condition=models.Q(("provider_busy_until__isnull", False)),
                        fields=["provider_busy_until"],
                        name="phi_oidc_revocation_busy",
                    ),
                    models.Index(
                        condition=models.Q(("end_job__isnull", False)),
                        fields=["end_job"],
                        name="phi_oidc_revocation_end_job",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="PairwiseIdentifier",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("sector", models.CharField(max_length=255)),
                ("value", models.CharField(max_length=64)),
                (
                    "user",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "verbose_name": "pairwise identifier",
                "verbose_name_plural": "pairwise identifiers",
                "default_permissions": (),
                "constraints": [
                    models.UniqueConstraint(
                        fields=("user", "sector"), name="phi_oidc_pairwise_user_sector_unique"
                    ),
                    models.UniqueConstraint(
                        fields=("sector", "value"), name="phi_oidc_pairwise_sector_value_unique"
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="OIDCSession",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        editable=False, primary_key=True, serialize=False, verbose_name="id"
                    ),
                ),
                ("provider", models.CharField(max_length=64, verbose_name="provider")),
                ("issuer", models.CharField(max_length=255)),
                ("sid_digest", models.CharField(blank=True, max_length=64)),
                ("session_key", django_phi_oidc.fields.SealedTextField(bind=("id",), null=True)),
                ("session_key_digest", models.CharField(max_length=64)),
                ("access_token", django_phi_oidc.fields.SealedTextField(bind=("id",), null=True)),
                ("access_token_digest", models.CharField(max_length=64, null=True)),
                ("refresh_token", django_phi_oidc.fields.SealedTextField(bind=("id",), null=True)),
                ("dpop_seed", django_phi_oidc.fields.SealedTextField(bind=("id",), null=True)),
                ("id_token", django_phi_oidc.fields.SealedTextField(bind=("id",), null=True)),
                (
                    "id_token_claims",
                    django_phi_oidc.fields.SealedTextField(bind=("id",), null=True),
                ),
                (
                    "access_token_expires_at",
                    models.DateTimeField(null=True, verbose_name="access token expires at"),
                ),
                ("auth_time", models.DateTimeField(null=True, verbose_name="auth time")),
                ("acr", models.CharField(blank=True, max_length=255, verbose_name="acr")),
                ("started_at", models.DateTimeField(verbose_name="started at")),
                ("last_seen_at", models.DateTimeField(verbose_name="last seen at")),
                (
                    "due_at",
                    models.DateTimeField(
                        db_default=datetime.datetime(1970, 1, 1, 0, 0, tzinfo=datetime.UTC),
                        default=datetime.datetime(1970, 1, 1, 0, 0, tzinfo=datetime.UTC),
                        editable=False,
                    ),
                ),
                (
                    "ended_at",
                    models.DateTimeField(db_index=True, null=True, verbose_name="ended at"),
                ),
                (
                    "end_reason",
                    models.CharField(
                        blank=True,
                        choices=[
                            ("logout", "the user signed out"),
                            ("django_logout", "django.contrib.auth.logout was called"),
                            ("replaced", "another sign-in on the same browser"),
                            ("session_lost", "the Django session was flushed"),
                            ("row_deleted", "the row of the session was deleted"),
                            (
                                "audit_unavailable",
                                "the sign-in could not be written to the audit log",
                            ),
                            ("subject_unlinked", "the link to the account was deleted"),
                            ("idle_timeout", "idle timeout"),
                            ("absolute_timeout", "absolute timeout"),
                            ("user_inactive", "the account was deactivated or deleted"),
                            ("password_changed", "the account's password was changed"),
                            ("roles_changed", "the account's groups or permissions were changed"),
                            ("administrator", "an administrator ended it"),
                            ("account_owner", "the user ended it from another device"),
                            ("parallel_limit", "limit of parallel sessions"),
                            ("backchannel_logout", "back-channel logout by the provider"),
                            ("frontchannel_logout", "front-channel logout by the provider"),
                            ("security_event", "a security event of the provider"),
                            ("invalid_grant", "the provider refused the refresh token"),
                            (
                                "refresh_mismatch",
                                "a refresh returned tokens of another user or sign-in",
                            ),
                        ],
                        max_length=32,
                        verbose_name="end reason",
                    ),
                ),
                ("refresh_lease_until", models.DateTimeField(null=True)),
                ("browser", models.CharField(blank=True, db_default="", default="", max_length=32)),
                (
                    "platform",
                    models.CharField(blank=True, db_default="", default="", max_length=32),
                ),
                ("network", models.CharField(blank=True, db_default="", default="", max_length=64)),
                (
                    "user",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                        verbose_name="user",
                    ),
                ),
                (
                    "subject",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to="django_phi_oidc.pairwisesubject",
                    ),
                ),
            ],
            options={
                "verbose_name": "OIDC session",
                "verbose_name_plural": "OIDC sessions",
                "permissions": (("end_oidcsession", "Can end sessions"),),
                "default_permissions": ("view",),
                "indexes": [
                    models.Index(
                        condition=models.Q(("ended_at", None), ("sid_digest__gt", "")),
                        fields=["sid_digest"],
                        name="phi_oidc_session_sid",
                    ),
                    models.Index(fields=["started_at"], name="phi_oidc_session_started"),
                    models.Index(
                        condition=models.Q(("ended_at", None)),
                        fields=["due_at"],
                        name="phi_oidc_session_due",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="StoredClaim",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "session",
                    models.UUIDField(
                        default=uuid.UUID("00000000-0000-0000-0000-000000000000"),
                        verbose_name="session",
                    ),
                ),
                ("name", models.CharField(max_length=255, verbose_name="name")),
                (
                    "bucket",
                    models.CharField(
                        default="", editable=False, max_length=40, verbose_name="bucket"
                    ),
                ),
                (
                    "value",
                    django_phi_oidc.fields.SealedTextField(
                        bind=("subject_id", "session", "name", "owner", "retained_until"),
                        bucket="retention_key_names",
                    ),
                ),
                ("purpose", models.CharField(max_length=32, verbose_name="purpose")),
                ("obtained_at", models.DateTimeField(verbose_name="obtained at")),
                (
                    "expires_at",
                    models.DateTimeField(db_index=True, null=True, verbose_name="expires at"),
                ),
                (
                    "held_until",
                    models.DateTimeField(editable=False, null=True, verbose_name="held until"),
                ),
                ("owner", models.CharField(editable=False, max_length=255)),
                ("retained_until", models.DateTimeField(editable=False)),
                (
                    "subject",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="claims",
                        to="django_phi_oidc.pairwisesubject",
                        verbose_name="subject",
                    ),
                ),
            ],
            options={
                "verbose_name": "stored claim",
                "verbose_name_plural": "stored claims",
                "permissions": (("scrub_storedclaim", "Can erase claims of other persons"),),
                "default_permissions": ("view",),
                "indexes": [
                    models.Index(
                        condition=models.Q(("bucket", ""), _negated=True),
                        fields=["bucket"],
                        name="phi_oidc_claim_bucket",
                    ),
                    models.Index(
                        condition=models.Q(
                            ("session", uuid.UUID("00000000-0000-0000-0000-000000000000")),
                            _negated=True,
                        ),
                        fields=["session"],
                        name="phi_oidc_claim_session",
                    ),
                ],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("subject", "session", "name"), name="phi_oidc_stored_claim_unique"
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("expires_at__isnull", False),
                            models.Q(
                                ("session", uuid.UUID("00000000-0000-0000-0000-000000000000")),
                                _negated=True,
                            ),
                            _connector="OR",
                        ),
                        name="phi_oidc_stored_claim_ends",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="SubjectDigest",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("issuer", models.CharField(max_length=255)),
                ("key_id", models.CharField(max_length=8)),
                ("digest", models.CharField(max_length=64)),
                ("binding", models.CharField(max_length=64)),
                (
                    "subject",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="digests",
                        to="django_phi_oidc.pairwisesubject",
                    ),
                ),
            ],
            options={
                "verbose_name": "subject digest",
                "verbose_name_plural": "subject digests",
                "indexes": [models.Index(fields=["key_id"], name="phi_oidc_subject_digest_key")],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("issuer", "digest"), name="phi_oidc_subject_digest_unique"
                    )
                ],
            },
        ),
        migrations.RunPython(
            omit_like_index, migrations.RunPython.noop, hints={"model_name": "usedidentifier"}
        ),
    ]
