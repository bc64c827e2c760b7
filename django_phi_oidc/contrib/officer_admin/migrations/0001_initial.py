from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="HourlyCount",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
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
                        fields=("day", "hour", "series", "label"),
                        name="phi_oidc_hourlycount_unique",
                    )
                ],
            },
        ),
    ]
