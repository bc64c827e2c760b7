from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="TrailJob",
            fields=[
                ("id", models.UUIDField(editable=False, primary_key=True, serialize=False)),
                ("kind", models.CharField(max_length=16)),
                ("asked_by", models.CharField(max_length=256)),
                ("asked_at", models.DateTimeField()),
                ("format", models.CharField(blank=True, max_length=8)),
                ("filters", models.JSONField(default=dict)),
                ("state", models.CharField(default="waiting", max_length=8)),
                ("attempts", models.PositiveSmallIntegerField(default=0)),
                ("lease_until", models.DateTimeField(null=True)),
                ("done", models.BigIntegerField(default=0)),
                ("total", models.BigIntegerField(default=0)),
                ("fault", models.CharField(blank=True, max_length=64)),
                ("result", models.JSONField(default=dict)),
            ],
            options={
                "verbose_name": "export or verification",
                "verbose_name_plural": "exports and verifications",
                "default_permissions": (),
                "indexes": [models.Index(fields=["asked_at"], name="phi_oidc_trailjob_asked")],
            },
        ),
    ]
