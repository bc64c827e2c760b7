from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="SinkCursor",
            fields=[
                ("name", models.CharField(max_length=64, primary_key=True, serialize=False)),
                ("tree_size", models.BigIntegerField(default=0)),
                ("checkpoint_size", models.BigIntegerField(default=0)),
                ("leaf_hash", models.BinaryField(default=bytes, max_length=32)),
                ("root_hash", models.BinaryField(default=bytes, max_length=32)),
                ("epoch", models.PositiveIntegerField(default=0)),
                ("attempts", models.PositiveIntegerField(default=0)),
                ("due_at", models.DateTimeField()),
                ("lease_until", models.DateTimeField(null=True)),
                ("last_fault", models.CharField(blank=True, max_length=64)),
                ("failing_since", models.DateTimeField(null=True)),
                ("delivered_at", models.DateTimeField(null=True)),
                ("lagging", models.BooleanField(default=False)),
            ],
            options={
                "verbose_name": "delivery of the audit log",
                "verbose_name_plural": "deliveries of the audit log",
                "permissions": (("deliver_sinkcursor", "Can request deliveries of the audit log"),),
                "default_permissions": ("view",),
            },
        ),
    ]
