from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="UnusedPersonKey",
            fields=[
                ("id", models.UUIDField(editable=False, primary_key=True, serialize=False)),
                ("subject_uuid", models.UUIDField(editable=False)),
            ],
            options={
                "verbose_name": "unused person key",
                "verbose_name_plural": "unused person keys",
                "default_permissions": (),
            },
        ),
    ]
