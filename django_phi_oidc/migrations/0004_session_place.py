"""Add where a session was opened, coarsely, and two reasons for its end.

The columns have defaults of the database, so that servers with the former release can still insert rows.
"""

from typing import Any

from django.db import migrations, models

END_REASONS = [
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
    ("invalid_grant", "the provider refused the refresh token"),
    ("refresh_mismatch", "a refresh returned tokens of another user or sign-in"),
]


def build_text_field(max_length: int) -> Any:
    return models.CharField(blank=True, db_default="", default="", max_length=max_length)


class Migration(migrations.Migration):
    dependencies = [("django_phi_oidc", "0003_dpop_seed")]

    operations = [
        migrations.AddField("oidcsession", "browser", build_text_field(32)),
        migrations.AddField("oidcsession", "platform", build_text_field(32)),
        migrations.AddField("oidcsession", "network", build_text_field(64)),
        migrations.AlterField(
            "oidcsession",
            "end_reason",
            models.CharField(blank=True, choices=END_REASONS, max_length=32, verbose_name="end reason"),
        ),
    ]
