"""Add the digest of the access token to the session, so that its end does not decrypt the token."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("django_phi_oidc", "0016_archive_file")]

    operations = [
        migrations.AddField(
            model_name="oidcsession",
            name="access_token_digest",
            field=models.CharField(max_length=64, null=True),
        ),
    ]
