"""The signed record of how far the audit log was verified."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("django_phi_oidc", "0010_sweep_batches")]

    operations = [
        migrations.CreateModel(
            name="VerificationRecord",
            fields=[
                ("name", models.CharField(editable=False, max_length=16, primary_key=True, serialize=False)),
                ("note", models.TextField()),
            ],
            options={
                "verbose_name": "verification record",
                "verbose_name_plural": "verification records",
                "default_permissions": (),
            },
        ),
    ]
