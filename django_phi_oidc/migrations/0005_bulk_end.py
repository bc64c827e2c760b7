"""Add the jobs that end many sessions, and their revocations."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("django_phi_oidc", "0004_session_place")]

    operations = [
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
                "default_permissions": (),
                "indexes": [models.Index(fields=["requested_at"], name="phi_oidc_end_job_requested")],
            },
        ),
        migrations.AddField(
            model_name="pendingrevocation",
            name="end_job",
            field=models.UUIDField(editable=False, null=True),
        ),
        migrations.AddIndex(
            model_name="pendingrevocation",
            index=models.Index(
                condition=models.Q(("end_job__isnull", False)),
                fields=["end_job"],
                name="phi_oidc_revocation_end_job",
            ),
        ),
    ]
