"""Add the reason of a session that a security event of the provider ended."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("django_phi_oidc", "0012_witnesses")]

    operations = [
        migrations.AlterField(
            model_name="oidcsession",
            name="end_reason",
            field=models.CharField(
                blank=True,
                choices=[
                    ("logout", "the user signed out"),
                    ("django_logout", "django.contrib.auth.logout was called"),
                    ("replaced", "another sign-in on the same browser"),
                    ("session_lost", "the Django session was flushed"),
                    ("row_deleted", "the row of the session was deleted"),
                    ("audit_unavailable", "the sign-in could not be written to the audit log"),
                    ("subject_unlinked", "the link to the account was deleted"),
                    ("idle_timeout", "idle timeout"),
                    ("absolute_timeout", "absolute timeout"),
                    ("user_inactive", "the account was deactivated or deleted"),
                    ("password_changed", "the account's password was changed"),
                    ("roles_changed", "the account's groups or permissions were changed"),
                    ("administrator", "an administrator ended it"),
                    ("account_owner", "the user ended it from another device"),
                    ("parallel_limit", "limit of parallel sessions"),
                    ("backchannel_logout", "back-channel logout by the provider"),
                    ("frontchannel_logout", "front-channel logout by the provider"),
                    ("security_event", "a security event of the provider"),
                    ("invalid_grant", "the provider refused the refresh token"),
                    ("refresh_mismatch", "a refresh returned tokens of another user or sign-in"),
                ],
                max_length=32,
                verbose_name="end reason",
            ),
        ),
    ]
