"""Follow the link from a user's page to the person page, and print the result. Migrations go to the current folder."""

import json
from pathlib import Path

import django
from django.core.management import call_command

Path("hospital_staff_migrations").mkdir()
Path("hospital_staff_migrations", "__init__.py").touch()
django.setup()

from django.contrib.auth.models import Group  # noqa: E402 -- models need Django to be set up
from django.test import Client  # noqa: E402
from django.urls import reverse  # noqa: E402

from django_phi_oidc.audit.models import AuditEvent  # noqa: E402

from .models import Member  # noqa: E402

call_command("makemigrations", "hospital_staff", verbosity=0)
call_command("migrate", verbosity=0)
call_command("migrate", database="phi_audit", verbosity=0)
with Path("groups.txt").open("w") as file:
    call_command("phi_oidc", "groups", stdout=file)
patient = Member.objects.create_user("amina@example.test")
results = {}
for group in ("", "Privacy officer"):
    officer = Member.objects.create_user(f"{group[:1]}officer@example.test", is_staff=True)
    officer.groups.set(Group.objects.filter(name=group))
    client = Client()
    client.force_login(officer, backend="django_phi_oidc.backends.OIDCAuthenticationBackend")
    person_url = reverse("admin:phi_oidc_person", args=[patient.pk])
    change = client.get(reverse("admin:hospital_staff_member_change", args=[patient.pk])).content.decode()
    results[group] = {
        "links": change.count(f'<a href="{person_url}">'),
        "keeps the host template": "The host's own tool" in change,
        "page": client.get(person_url).status_code,
    }
results["denied"] = list(AuditEvent.objects.filter(action="access.denied").values_list("resource", flat=True)) == [
    f"user/{patient.pk}"
]
print(json.dumps(results))
