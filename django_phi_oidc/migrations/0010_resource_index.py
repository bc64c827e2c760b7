from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("django_phi_oidc", "0009_activation_codes")]

    operations = [
        migrations.AddIndex(
            model_name="auditevent",
            index=models.Index(
                condition=models.Q(("resource__gt", "")), fields=["resource", "id"], name="phi_oidc_audit_resource"
            ),
        ),
    ]
