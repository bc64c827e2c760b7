"""Add the time at which `phi_oidc.end_overdue` looks at a session.

Existing rows are due at once, without a change of their data: the first run of the task computes their times, in
batches. To create the index takes about 3 s for a million live sessions.
"""

import datetime

from django.db import migrations, models

AT_ONCE = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


class Migration(migrations.Migration):
    dependencies = [("django_phi_oidc", "0008_sign_in_storage")]

    operations = [
        migrations.AddField(
            model_name="oidcsession",
            name="due_at",
            field=models.DateTimeField(db_default=AT_ONCE, default=AT_ONCE, editable=False),
        ),
        migrations.AddIndex(
            model_name="oidcsession",
            index=models.Index(condition=models.Q(("ended_at", None)), fields=["due_at"], name="phi_oidc_session_due"),
        ),
    ]
