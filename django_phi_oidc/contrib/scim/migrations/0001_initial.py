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
            name="SCIMClient",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("name", models.CharField(max_length=64, unique=True, verbose_name="name")),
                ("provider", models.CharField(max_length=64, verbose_name="provider")),
                ("created_at", models.DateTimeField(editable=False, verbose_name="created at")),
                (
                    "created_by",
                    models.CharField(editable=False, max_length=255, verbose_name="created by"),
                ),
                (
                    "revoked_at",
                    models.DateTimeField(editable=False, null=True, verbose_name="revoked at"),
                ),
            ],
            options={
                "verbose_name": "SCIM client",
                "verbose_name_plural": "SCIM clients",
                "permissions": (
                    ("manage_scimclient", "Can create, rotate and revoke SCIM clients"),
                ),
                "default_permissions": ("view",),
            },
        ),
        migrations.CreateModel(
            name="SCIMGroup",
            fields=[
                ("id", models.UUIDField(editable=False, primary_key=True, serialize=False)),
                ("provider", models.CharField(max_length=64)),
                ("display_name", models.CharField(max_length=255)),
                ("display_name_key", models.CharField(max_length=255)),
                ("external_id", models.CharField(blank=True, max_length=255)),
                ("version", models.PositiveIntegerField(default=1)),
                ("created_at", models.DateTimeField()),
                ("changed_at", models.DateTimeField()),
            ],
            options={
                "verbose_name": "SCIM group",
                "verbose_name_plural": "SCIM groups",
                "default_permissions": (),
                "constraints": [
                    models.UniqueConstraint(
                        fields=("provider", "display_name_key"),
                        name="phi_oidc_scim_group_name_unique",
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="SCIMToken",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("digest", models.CharField(editable=False, max_length=64, unique=True)),
                ("created_at", models.DateTimeField()),
                ("expires_at", models.DateTimeField()),
                ("last_used_at", models.DateTimeField(null=True)),
                ("revoked_at", models.DateTimeField(null=True)),
                (
                    "client",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="tokens",
                        to="phi_oidc_scim.scimclient",
                    ),
                ),
            ],
            options={
                "verbose_name": "SCIM token",
                "verbose_name_plural": "SCIM tokens",
                "default_permissions": (),
            },
        ),
        migrations.CreateModel(
            name="SCIMUser",
            fields=[
                ("id", models.UUIDField(editable=False, primary_key=True, serialize=False)),
                ("provider", models.CharField(max_length=64)),
                ("user_name", models.CharField(max_length=255)),
                ("user_name_key", models.CharField(max_length=255)),
                ("external_id", models.CharField(blank=True, max_length=255)),
                ("active", models.BooleanField(default=True, null=True)),
                ("has_disabled_account", models.BooleanField(default=False)),
                ("version", models.PositiveIntegerField(default=1)),
                ("created_at", models.DateTimeField()),
                ("changed_at", models.DateTimeField()),
                ("deleted_at", models.DateTimeField(null=True)),
                (
                    "user",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "verbose_name": "SCIM user",
                "verbose_name_plural": "SCIM users",
                "default_permissions": (),
            },
        ),
        migrations.CreateModel(
            name="SCIMMembership",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "group",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="memberships",
                        to="phi_oidc_scim.scimgroup",
                    ),
                ),
                (
                    "member",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="memberships",
                        to="phi_oidc_scim.scimuser",
                    ),
                ),
            ],
            options={
                "verbose_name": "SCIM membership",
                "verbose_name_plural": "SCIM memberships",
                "default_permissions": (),
            },
        ),
        migrations.AddIndex(
            model_name="scimuser",
            index=models.Index(
                fields=["provider", "external_id"], name="phi_oidc_scim_user_external_id"
            ),
        ),
        migrations.AddConstraint(
            model_name="scimuser",
            constraint=models.UniqueConstraint(
                condition=models.Q(("deleted_at", None)),
                fields=("provider", "user_name_key"),
                name="phi_oidc_scim_user_name_unique",
            ),
        ),
        migrations.AddConstraint(
            model_name="scimmembership",
            constraint=models.UniqueConstraint(
                fields=("group", "member"), name="phi_oidc_scim_membership_unique"
            ),
        ),
    ]
