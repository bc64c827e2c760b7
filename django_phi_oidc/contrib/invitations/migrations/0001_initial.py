import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="ActivationCode",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("provider", models.CharField(max_length=64, verbose_name="provider")),
                ("key_id", models.CharField(editable=False, max_length=8)),
                ("digest", models.CharField(editable=False, max_length=64)),
                ("created_at", models.DateTimeField(editable=False, verbose_name="created at")),
                (
                    "created_by",
                    models.CharField(editable=False, max_length=255, verbose_name="created by"),
                ),
                ("expires_at", models.DateTimeField(editable=False, verbose_name="expires at")),
                (
                    "redeemed_at",
                    models.DateTimeField(editable=False, null=True, verbose_name="redeemed at"),
                ),
                (
                    "revoked_at",
                    models.DateTimeField(editable=False, null=True, verbose_name="revoked at"),
                ),
                ("privileges", models.JSONField(default=list, editable=False)),
                ("binding", models.CharField(editable=False, max_length=64)),
                (
                    "user",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                        verbose_name="user",
                    ),
                ),
            ],
            options={
                "verbose_name": "activation code",
                "verbose_name_plural": "activation codes",
                "permissions": (("issue_activationcode", "Can make and revoke activation codes"),),
                "default_permissions": ("view",),
                "constraints": [
                    models.UniqueConstraint(
                        fields=("digest",), name="phi_oidc_activation_code_digest_unique"
                    ),
                    models.UniqueConstraint(
                        condition=models.Q(("redeemed_at", None), ("revoked_at", None)),
                        fields=("user", "provider"),
                        name="phi_oidc_activation_code_live_unique",
                    ),
                ],
            },
        ),
    ]
