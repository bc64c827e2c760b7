from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("django_phi_oidc", "0012_security_alerts")]

    operations = [
        migrations.AlterModelOptions(
            name="pairwisesubject",
            options={"permissions": (("export_pairwisesubject", "Can export all that is held of persons"),)},
        ),
    ]
