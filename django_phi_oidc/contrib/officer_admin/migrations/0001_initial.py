from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="HourlyCount",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("day", models.DateField()),
                ("hour", models.PositiveSmallIntegerField()),
                ("series", models.CharField(max_length=16)),
                ("label", models.CharField(blank=True, max_length=256)),
                ("count", models.PositiveBigIntegerField()),
            ],
            options={
                "verbose_name": "hourly count",
                "verbose_name_plural": "hourly counts",
                "default_permissions": (),
                "constraints": [
                    models.UniqueConstraint(
                        fields=("day", "hour", "series", "label"),
                        name="phi_oidc_hourlycount_unique",
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="SessionEndJob",
            fields=[
                ("id", models.UUIDField(editable=False, primary_key=True, serialize=False)),
                ("selection", models.JSONField(default=dict)),
                ("requested_by", models.CharField(max_length=256, verbose_name="requested by")),
                ("requested_at", models.DateTimeField(verbose_name="requested at")),
                ("client_ip", models.CharField(blank=True, max_length=64)),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("waiting", "waiting for a worker"),
                            ("running", "running"),
                            ("done", "done"),
                            ("failed", "failed"),
                        ],
                        default="waiting",
                        max_length=8,
                        verbose_name="state",
                    ),
                ),
                ("attempts", models.PositiveIntegerField(default=0)),
                ("failures", models.PositiveSmallIntegerField(default=0)),
                ("lease_until", models.DateTimeField(null=True)),
                ("total", models.PositiveIntegerField(default=0)),
                ("done", models.PositiveIntegerField(default=0)),
                ("fault", models.CharField(blank=True, max_length=64)),
            ],
            options={
                "verbose_name": "request to end sessions",
                "verbose_name_plural": "requests to end sessions",
                "permissions": (("end_many_oidcsessions", "Can end the sessions of many people"),),
                "default_permissions": (),
                "indexes": [
                    models.Index(fields=["requested_at"], name="phi_oidc_end_job_requested")
                ],
            },
        ),
    ]
