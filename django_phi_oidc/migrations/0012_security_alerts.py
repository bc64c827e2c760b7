from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("django_phi_oidc", "0011_emergency_access"),
    ]

    operations = [
        migrations.CreateModel(
            name="AnomalyMemory",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "kind", "key", blank=True, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("kind", models.CharField(max_length=64)),
                ("key", models.CharField(blank=True, max_length=256)),
                ("state", models.TextField()),
                ("expires_at", models.DateTimeField()),
            ],
            options={
                "default_permissions": (),
            },
        ),
        migrations.CreateModel(
            name="WatchCursor",
            fields=[
                ("name", models.CharField(editable=False, max_length=16, primary_key=True, serialize=False)),
                ("version", models.PositiveBigIntegerField(default=0)),
                ("tree_size", models.BigIntegerField(default=0)),
                ("leaf_hash", models.BinaryField(default=bytes, max_length=32)),
                ("sealed_at", models.DateTimeField(null=True)),
            ],
            options={
                "default_permissions": (),
            },
        ),
        migrations.CreateModel(
            name="AlertMute",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("kind", models.CharField(max_length=64)),
                ("key", models.CharField(blank=True, max_length=256)),
                ("until", models.DateTimeField()),
                ("note", models.CharField(max_length=255)),
                ("muted_at", models.DateTimeField(editable=False)),
                ("muted_by", models.CharField(blank=True, editable=False, max_length=256)),
                ("lifted_at", models.DateTimeField(editable=False, null=True)),
            ],
            options={
                "default_permissions": ("view", "add", "change"),
                "indexes": [models.Index(fields=["kind", "until"], name="phi_oidc_alertmute_kind")],
            },
        ),
        migrations.CreateModel(
            name="SecurityAlert",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("kind", models.CharField(editable=False, max_length=64)),
                (
                    "severity",
                    models.CharField(
                        choices=[("info", "info"), ("warning", "warning"), ("critical", "critical")],
                        editable=False,
                        max_length=8,
                    ),
                ),
                ("key", models.CharField(blank=True, editable=False, max_length=256)),
                ("count", models.PositiveBigIntegerField(default=0, editable=False)),
                ("first_seen", models.DateTimeField(editable=False)),
                ("last_seen", models.DateTimeField(editable=False)),
                ("event", models.UUIDField(editable=False, null=True)),
                ("due_at", models.DateTimeField(editable=False, null=True)),
                ("told_at", models.DateTimeField(editable=False, null=True)),
                ("acknowledged_at", models.DateTimeField(editable=False, null=True)),
                ("acknowledged_by", models.CharField(blank=True, editable=False, max_length=256)),
                ("note", models.TextField(blank=True, max_length=2000)),
            ],
            options={
                "permissions": (("acknowledge_securityalert", "Can acknowledge security alerts"),),
                "default_permissions": ("view",),
                "indexes": [
                    models.Index(
                        condition=models.Q(("due_at", None), _negated=True),
                        fields=["due_at"],
                        name="phi_oidc_securityalert_due",
                    ),
                    models.Index(fields=["-last_seen"], name="phi_oidc_securityalert_seen"),
                ],
                "constraints": [
                    models.UniqueConstraint(
                        condition=models.Q(("acknowledged_at", None)),
                        fields=("kind", "key"),
                        name="phi_oidc_securityalert_open",
                    )
                ],
            },
        ),
    ]
