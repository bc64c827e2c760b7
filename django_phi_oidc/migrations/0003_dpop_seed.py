"""Add the sealed seed of the key that the tokens of a session are bound to."""

from django.db import migrations

import django_phi_oidc.fields


class Migration(migrations.Migration):
    dependencies = [("django_phi_oidc", "0002_triggers")]

    operations = [
        migrations.AddField(
            model_name="oidcsession",
            name="dpop_seed",
            field=django_phi_oidc.fields.SealedTextField(bind=("id",), null=True),
        ),
    ]
