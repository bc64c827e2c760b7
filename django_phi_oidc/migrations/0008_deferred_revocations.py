from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("django_phi_oidc", "0007_retention")]

    operations = [
        migrations.AddIndex(
            model_name="pendingrevocation",
            index=models.Index(
                condition=models.Q(("status", "pending")), fields=["session"], name="phi_oidc_revocation_session"
            ),
        ),
    ]
