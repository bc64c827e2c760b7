"""Sign two persons in, and the first one again, and print the results. Migrations go to the current folder."""

import json
from pathlib import Path

import django
from django.core.management import call_command

Path("custom_accounts_migrations").mkdir()
Path("custom_accounts_migrations", "__init__.py").touch()
django.setup()

from django.conf import settings  # noqa: E402 -- models need Django to be set up
from django.contrib.auth import get_user_model  # noqa: E402
from django.core.checks import run_checks  # noqa: E402
from django.test import override_settings  # noqa: E402

from django_phi_oidc.audit.models import AuditEvent  # noqa: E402
from django_phi_oidc.testing.mock_provider import DemoProvider, demo_accounts  # noqa: E402
from tests.support.http_browser import InProcessBrowser  # noqa: E402
from tests.support.portal_fixtures import client, declaration  # noqa: E402

BASE = "http://testserver"

call_command("makemigrations", "custom_accounts", verbosity=0)
call_command("migrate", verbosity=0, skip_checks=True)
call_command("migrate", database="phi_audit", verbosity=0, skip_checks=True)
results = {}
op = DemoProvider(accounts=demo_accounts())
with op.running():
    op.register_client(client(BASE))
    with override_settings(PHI_OIDC={**settings.PHI_OIDC, "PROVIDERS": {"default": declaration(op)}}):
        browsers = [InProcessBrowser(BASE) for _ in range(3)]
        persons = ("amina", "jonas", "amina")
        pages = [browser.sign_in(op, person) for browser, person in zip(browsers, persons, strict=True)]
        results["statuses"] = [page.status for page in pages]
        results["users"] = [browser.user() for browser in browsers]
        results["active tokens"] = len(op.active_tokens)
        ids = ("django_phi_oidc.E036", "django_phi_oidc.W036")
        results["checks"] = [(item.id, item.msg, item.hint) for item in run_checks() if item.id in ids]
        users = get_user_model()._default_manager.order_by("pk")
        results["accounts"] = [
            {
                "email": getattr(user, user.get_email_field_name()),
                "password": user.password,
                "username": getattr(user, "username", None),
            }
            for user in users
        ]
        refused = AuditEvent.objects.filter(action="login.refused").order_by("id")
        results["refusals"] = list(refused.values_list("reason", "outcome"))
        results["pages"] = [page.body for page in pages if page.status != 302]
print(json.dumps(results))
