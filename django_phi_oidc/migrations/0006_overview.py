"""Add the hourly counts of the overview, and the permissions and the time of failure of deliveries."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("django_phi_oidc", "0005_bulk_end")]

    operations = [
        migrations.AlterModelOptions(
            name="sinkcursor",
            options={
                "verbose_name": "delivery of the audit log",
                "verbose_name_plural": "deliveries of the audit log",
                "default_permissions": ("view",),
                "permissions": (("deliver_sinkcursor", "Can request deliveries of the audit log"),),
            },
        ),
        migrations.AddField(
            model_name="sinkcursor",
            name="failing_since",
            field=models.DateTimeField(null=True),
        ),
        migrations.CreateModel(
            name="HourlyCount",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("day", models.DateField()),
                ("hour", models.PositiveSmallIntegerField()),
                ("series", models.CharField(max_length=16)),
                ("label", models.CharField(blank=True, max_length=256)),
                ("count", models.PositiveBigIntegerField()),
            ],
            options={
                "verbose_name": "hourly count",
                "verbose_name_plural": "hourly counts",
                "default_permissions": (),
                "constraints": [
                    models.UniqueConstraint(
                        fields=("day", "hour", "series", "label"), name="phi_oidc_hourlycount_unique"
                    )
                ],
            },
        ),
    ]
