"""Sessions that are refreshed by a lease, more ways in which they end, and who may end them."""

from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("django_phi_oidc", "0005_delivery"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.AlterModelOptions(
            name="oidcsession",
            options={"default_permissions": ("view",), "permissions": (("end_oidcsession", "Can end sessions"),)},
        ),
        migrations.AlterModelOptions(
            name="pendingrevocation",
            options={
                "default_permissions": ("view",),
                "permissions": (("retry_pendingrevocation", "Can have revocations tried again"),),
            },
        ),
        migrations.AddField(
            model_name="oidcsession",
            name="refresh_lease_until",
            field=models.DateTimeField(null=True),
        ),
        migrations.AlterField(
            model_name="oidcsession",
            name="end_reason",
            field=models.CharField(
                blank=True,
                choices=[
                    ("logout", "the person signed out"),
                    ("django_logout", "django.contrib.auth.logout was called"),
                    ("replaced", "somebody signed in on the same browser"),
                    ("session_lost", "the Django session was flushed"),
                    ("audit_unavailable", "the sign-in could not be written to the trail"),
                    ("subject_unlinked", "the person's link to the account was deleted"),
                    ("idle_timeout", "nobody did anything for as long as is allowed"),
                    ("absolute_timeout", "it had lasted for as long as is allowed"),
                    ("user_inactive", "the account was deactivated or deleted"),
                    ("password_changed", "the account's password was changed"),
                    ("roles_changed", "the account's groups or permissions were changed"),
                    ("administrator", "an administrator ended it"),
                    ("backchannel_logout", "the provider said that the person signed out"),
                    ("frontchannel_logout", "the provider sent the browser to say so"),
                    ("invalid_grant", "the provider refused to refresh its tokens"),
                    ("refresh_mismatch", "a refresh gave tokens of another person or sign-in"),
                ],
                max_length=32,
            ),
        ),
        migrations.AddIndex(
            model_name="oidcsession",
            index=models.Index(fields=["started_at"], name="phi_oidc_session_started"),
        ),
    ]
