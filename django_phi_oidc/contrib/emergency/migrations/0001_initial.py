import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

import django_phi_oidc.fields


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="EmergencyAccess",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        editable=False, primary_key=True, serialize=False, verbose_name="id"
                    ),
                ),
                ("actor", models.CharField(editable=False, max_length=255)),
                (
                    "is_local",
                    models.BooleanField(
                        default=False, editable=False, verbose_name="local account"
                    ),
                ),
                (
                    "resource",
                    models.CharField(editable=False, max_length=200, verbose_name="resource"),
                ),
                ("permissions", models.JSONField(editable=False)),
                (
                    "purpose",
                    models.CharField(editable=False, max_length=16, verbose_name="purpose"),
                ),
                ("reason", django_phi_oidc.fields.SealedTextField(bind=("id",))),
                ("opened_at", models.DateTimeField(editable=False, verbose_name="opened at")),
                ("expires_at", models.DateTimeField(editable=False, verbose_name="expires at")),
                ("closed_at", models.DateTimeField(editable=False, null=True)),
                (
                    "close_reason",
                    models.CharField(
                        choices=[
                            ("closed", "closed by the person"),
                            ("expired", "expired"),
                            ("administrator", "closed by an administrator"),
                        ],
                        default="",
                        editable=False,
                        max_length=16,
                    ),
                ),
                ("alert_due_at", models.DateTimeField(editable=False, null=True)),
                (
                    "alerted_at",
                    models.DateTimeField(editable=False, null=True, verbose_name="alerted at"),
                ),
                ("reviewed_by", models.CharField(default="", editable=False, max_length=255)),
                ("reviewed_at", models.DateTimeField(editable=False, null=True)),
                (
                    "verdict",
                    models.CharField(
                        choices=[("justified", "justified"), ("not_justified", "not justified")],
                        default="",
                        editable=False,
                        max_length=16,
                        verbose_name="verdict",
                    ),
                ),
                ("note", django_phi_oidc.fields.SealedTextField(bind=("id",), null=True)),
                (
                    "user",
                    models.ForeignKey(
                        editable=False,
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                        verbose_name="user",
                    ),
                ),
            ],
            options={
                "verbose_name": "emergency access",
                "verbose_name_plural": "emergency accesses",
                "permissions": (
                    ("open_emergencyaccess", "Can open emergency access to one resource"),
                    (
                        "open_emergencyaccess_everywhere",
                        "Can open emergency access to every resource",
                    ),
                    (
                        "review_emergencyaccess",
                        "Can review emergency access of other persons, and close it",
                    ),
                ),
                "default_permissions": ("view",),
                "indexes": [
                    models.Index(
                        condition=models.Q(("closed_at", None)),
                        fields=["expires_at"],
                        name="phi_oidc_emergency_open",
                    ),
                    models.Index(
                        condition=models.Q(("alert_due_at", None), _negated=True),
                        fields=["alert_due_at"],
                        name="phi_oidc_emergency_alert",
                    ),
                    models.Index(fields=["opened_at"], name="phi_oidc_emergency_opened"),
                ],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("expires_at__gt", models.F("opened_at"))),
                        name="phi_oidc_emergency_ends",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("close_reason", ""), ("closed_at", None)),
                            models.Q(
                                models.Q(("closed_at", None), _negated=True),
                                models.Q(("close_reason", ""), _negated=True),
                            ),
                            _connector="OR",
                        ),
                        name="phi_oidc_emergency_closed",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("reviewed_by", models.F("actor")), _negated=True),
                        name="phi_oidc_emergency_two_persons",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(
                                ("note__isnull", True),
                                ("reviewed_at", None),
                                ("reviewed_by", ""),
                                ("verdict", ""),
                            ),
                            models.Q(
                                models.Q(("reviewed_at", None), _negated=True),
                                models.Q(("reviewed_by", ""), _negated=True),
                                models.Q(("verdict", ""), _negated=True),
                            ),
                            _connector="OR",
                        ),
                        name="phi_oidc_emergency_reviewed",
                    ),
                ],
            },
        ),
    ]
