from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

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
                "verbose_name": "anomaly memory",
                "verbose_name_plural": "anomaly memories",
                "default_permissions": (),
            },
        ),
        migrations.CreateModel(
            name="WatchCursor",
            fields=[
                (
                    "name",
                    models.CharField(
                        editable=False, max_length=16, primary_key=True, serialize=False
                    ),
                ),
                ("version", models.PositiveBigIntegerField(default=0)),
                ("tree_size", models.BigIntegerField(default=0)),
                ("leaf_hash", models.BinaryField(default=bytes, max_length=32)),
                ("sealed_at", models.DateTimeField(null=True)),
            ],
            options={
                "verbose_name": "watch cursor",
                "verbose_name_plural": "watch cursors",
                "default_permissions": (),
            },
        ),
        migrations.CreateModel(
            name="AlertMute",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("kind", models.CharField(max_length=64, verbose_name="kind")),
                ("key", models.CharField(blank=True, max_length=256, verbose_name="key")),
                ("until", models.DateTimeField(verbose_name="until")),
                ("note", models.CharField(max_length=255, verbose_name="note")),
                ("muted_at", models.DateTimeField(editable=False, verbose_name="muted at")),
                (
                    "muted_by",
                    models.CharField(
                        blank=True, editable=False, max_length=256, verbose_name="muted by"
                    ),
                ),
                (
                    "lifted_at",
                    models.DateTimeField(editable=False, null=True, verbose_name="lifted at"),
                ),
            ],
            options={
                "verbose_name": "alert mute",
                "verbose_name_plural": "alert mutes",
                "default_permissions": ("view", "add", "change"),
                "indexes": [models.Index(fields=["kind", "until"], name="phi_oidc_alertmute_kind")],
            },
        ),
        migrations.CreateModel(
            name="SecurityAlert",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("kind", models.CharField(editable=False, max_length=64, verbose_name="kind")),
                (
                    "severity",
                    models.CharField(
                        choices=[
                            ("info", "info"),
                            ("warning", "warning"),
                            ("critical", "critical"),
                        ],
                        editable=False,
                        max_length=8,
                        verbose_name="severity",
                    ),
                ),
                (
                    "key",
                    models.CharField(
                        blank=True, editable=False, max_length=256, verbose_name="key"
                    ),
                ),
                (
                    "count",
                    models.PositiveBigIntegerField(default=0, editable=False, verbose_name="count"),
                ),
                ("first_seen", models.DateTimeField(editable=False, verbose_name="first seen")),
                ("last_seen", models.DateTimeField(editable=False, verbose_name="last seen")),
                ("event", models.UUIDField(editable=False, null=True, verbose_name="event")),
                ("due_at", models.DateTimeField(editable=False, null=True)),
                (
                    "notified_at",
                    models.DateTimeField(editable=False, null=True, verbose_name="notified at"),
                ),
                (
                    "acknowledged_at",
                    models.DateTimeField(editable=False, null=True, verbose_name="acknowledged at"),
                ),
                (
                    "acknowledged_by",
                    models.CharField(
                        blank=True, editable=False, max_length=256, verbose_name="acknowledged by"
                    ),
                ),
                ("note", models.TextField(blank=True, max_length=2000, verbose_name="note")),
            ],
            options={
                "verbose_name": "security alert",
                "verbose_name_plural": "security alerts",
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
