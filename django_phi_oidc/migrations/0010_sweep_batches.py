"""Add the time until which a provider asked for no further revocation."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("django_phi_oidc", "0009_session_due")]

    operations = [
        migrations.AddField(
            model_name="pendingrevocation",
            name="provider_busy_until",
            field=models.DateTimeField(editable=False, null=True),
        ),
        migrations.AddIndex(
            model_name="pendingrevocation",
            index=models.Index(
                condition=models.Q(("provider_busy_until__isnull", False)),
                fields=["provider_busy_until"],
                name="phi_oidc_revocation_busy",
            ),
        ),
    ]
