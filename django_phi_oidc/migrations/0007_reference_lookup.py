"""Add the permission to look up the reference of a refusal."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("django_phi_oidc", "0006_overview")]

    operations = [
        migrations.AlterModelOptions(
            name="auditevent",
            options={
                "base_manager_name": "objects",
                "default_permissions": ("view",),
                "ordering": ("id",),
                "permissions": (
                    ("export_auditevent", "Can export audit events"),
                    ("lookup_auditevent", "Can look up the reference of a refusal"),
                ),
                "verbose_name": "audit event",
                "verbose_name_plural": "audit events",
            },
        ),
    ]
