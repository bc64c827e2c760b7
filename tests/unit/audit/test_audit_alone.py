"""The audit log in a project that has no other app of this package."""

import json
import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import base64
import json
import sys
from pathlib import Path

from django.conf import settings

from django_phi_oidc.project_settings import add_audit_database

FOLDER = Path(sys.argv[1])
settings.configure(
    SECRET_KEY="only for this test",
    USE_TZ=True,
    INSTALLED_APPS=[
        "django.contrib.admin",
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
        "django.contrib.messages",
        "django.contrib.staticfiles",
        "django_phi_oidc.audit",
    ],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
    ],
    TEMPLATES=[
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "APP_DIRS": True,
            "OPTIONS": {
                "context_processors": [
                    "django.template.context_processors.request",
                    "django.contrib.auth.context_processors.auth",
                    "django.contrib.messages.context_processors.messages",
                ]
            },
        }
    ],
    DATABASES=add_audit_database(
        {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": FOLDER / "db.sqlite3"}}
    ),
    DATABASE_ROUTERS=["django_phi_oidc.audit.router.AuditRouter"],
    ROOT_URLCONF="__main__",
    STATIC_URL="/static/",
    ALLOWED_HOSTS=["testserver"],
    PHI_OIDC={"KEYS": {"audit_mac": [base64.b64encode(bytes(32)).decode()]}},
)
import django

django.setup()
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.db import connections, transaction
from django.test import Client
from django.urls import path, reverse
from django.utils import timezone

from django_phi_oidc.audit.events import Origin, register_actions
from django_phi_oidc.audit.models import AuditEvent
from django_phi_oidc.audit.outbox import enqueue
from django_phi_oidc.audit.recorder import record

urlpatterns = [path("admin/", admin.site.urls)]
for alias in ("default", "phi_audit"):
    call_command("migrate", database=alias, verbosity=0)
register_actions({"ward.opened": ()})
event_id = record("ward.opened", origin=Origin(actor="7", on_behalf_of="8"), now=timezone.now())
with transaction.atomic():
    enqueue("ward.opened", origin=Origin(actor="7"), now=timezone.now())
count = AuditEvent.objects.count()
client = Client()
client.force_login(get_user_model().objects.create_superuser("root"))
urls = [
    reverse("admin:phi_oidc_audit_auditevent_changelist"),
    reverse("admin:phi_oidc_audit_auditevent_change", args=[event_id]),
    reverse("admin:phi_oidc_audit_auditcheckpoint_changelist"),
]
CORE = "access claims conf contrib login management oidc provider sessions subjects testing".split()
own_modules = [name.split(".") for name in sys.modules if name.startswith("django_phi_oidc.")]
print(json.dumps({
    "count": count,
    "pages": [client.get(url).status_code for url in urls],
    "tables": sorted(set(connections["phi_audit"].introspection.table_names()) - {"django_migrations"}),
    "core": sorted({parts[1] for parts in own_modules} & {*CORE}),
}))
"""


def test_audit_log_works_without_the_core_and_imports_nothing_of_it(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result == {
        "count": 2,
        "pages": [200, 200, 200],
        "tables": [f"phi_oidc_audit_audit{name}" for name in ("checkpoint", "event", "leaf", "node", "unsealed")],
        "core": [],
    }
