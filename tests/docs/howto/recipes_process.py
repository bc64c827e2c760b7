"""Sign persons in to a project that consists of the recipes of one page, and print the results.

The project, the app `clinic`, is written to the current folder; see test_custom_user_models.py.
"""

import json
from io import StringIO
from pathlib import Path
from typing import Any

import django
from django.core.management import call_command

Path("custom_accounts_migrations").mkdir()
Path("custom_accounts_migrations", "__init__.py").touch()
django.setup()

from clinic.models import Person  # type: ignore[import-not-found]  # noqa: E402 -- models need Django to be set up
from django.conf import settings  # noqa: E402
from django.contrib.auth import get_user_model  # noqa: E402
from django.db import connection  # noqa: E402
from django.test import override_settings  # noqa: E402

from django_phi_oidc.audit.models import AuditEvent  # noqa: E402
from django_phi_oidc.testing.mock_provider import Account, Client, DemoProvider, MutableExchange, demo_accounts  # noqa: E402
from tests.support.http_browser import InProcessBrowser  # noqa: E402
from tests.support.portal_fixtures import SECRET, declaration  # noqa: E402

BASE = "http://testserver"
WORKER = Account("lena", "lena-demo", claims={"given_name": "Lena", "family_name": "Haddad"})
UNVERIFIED = Account("unverified", "x", claims={"email": "new@example.org", "email_verified": False})
NUMBERS = {"first": "N-17", "same number": "N-17", "no number": None}
users = get_user_model()._default_manager
op = DemoProvider(accounts=[*demo_accounts(), WORKER, UNVERIFIED, *(Account(name, "x") for name in NUMBERS)])
results: dict[str, Any] = {}


def sign_in(username: str, backend: str, provider: str = "default") -> InProcessBrowser:
    """Sign a person in with that backend, and remember the status and the account."""
    settings.AUTHENTICATION_BACKENDS = [backend]
    browser = InProcessBrowser(BASE, sign_in_url=f"/oidc/{provider}/authenticate/")
    page = browser.sign_in(op, username)
    results.setdefault("statuses", []).append([username, backend.rpartition(".")[2], page.status])
    return browser


def find_account(browser: InProcessBrowser) -> Any:
    return users.get(pk=browser.user())


def list_claims_in_accounts() -> list[Any]:
    out = StringIO()
    call_command("phi_oidc", "audit", "export", "--action", "claim.stored", stdout=out, stderr=StringIO())
    events = [json.loads(line) for line in out.getvalue().splitlines()]
    return [event["detail"]["claims"] for event in events if event["detail"].get("place") == "account"]


def try_names_of_patients() -> None:
    browser = sign_in("amina", "django_phi_oidc.backends.OIDCAuthenticationBackend")
    results["anonymous"] = InProcessBrowser(BASE).get("/hello/").body.strip()
    results["revealed"] = browser.get("/hello/").body.strip()
    results["purposes"] = list(AuditEvent.objects.filter(action="claim.revealed").values_list("purpose", flat=True))
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT session_data FROM {settings.SESSION_TABLE}")
        results["plain sessions"] = sum("Amina" in row[0] for row in cursor.fetchall())
    for _ in range(2):
        browser = sign_in("jonas", "clinic.backends.NameBackend")
        results.setdefault("sealed", []).append(browser.get("/header/").body.strip())
    with connection.cursor() as cursor:
        cursor.execute("SELECT name FROM clinic_person")
        results["plain columns"] = sum("Jonas" in row[0] for row in cursor.fetchall())
    results["copied before"] = list_claims_in_accounts()
    call_command("phi_oidc", "subject", "erase", "--user", f"pk:{browser.user()}", "--yes", stdout=StringIO())
    results["after the erasure"] = Person.objects.count()


def try_names_of_staff() -> None:
    for username, provider in (("lena", "staff"), ("amina", "default")):
        user = find_account(sign_in(username, "clinic.backends.StaffBackend", provider))
        results.setdefault("staff", []).append(user.get_full_name())


def try_addresses() -> None:
    users.create_user("existing", email="JONAS.brandt@example.org")
    for username in ("amina", "jonas", "unverified"):
        user = find_account(sign_in(username, "clinic.backends.AddressBackend"))
        results.setdefault("addresses", []).append(user.email)


def try_user_names() -> None:
    for username, number in NUMBERS.items():

        def add_number(endpoint: str, exchange: MutableExchange, number: str | None = number) -> None:
            if endpoint == "userinfo" and number:
                exchange.reply.json["employee_number"] = number

        op.mutate = add_number
        sign_in(username, "clinic.backends.NumberBackend")
    results["numbers"] = list(users.filter(username__startswith="N-").values_list("username", flat=True))
    refused = AuditEvent.objects.filter(action="login.refused").order_by("id")
    results["refusals"] = list(refused.values_list("reason", flat=True))


call_command("makemigrations", "custom_accounts", verbosity=0)
call_command("makemigrations", "clinic", verbosity=0)
call_command("migrate", verbosity=0, skip_checks=True)
call_command("migrate", database="phi_audit", verbosity=0, skip_checks=True)
with op.running():
    op.register_client(Client("portal", SECRET, [f"{BASE}/oidc/{name}/callback/" for name in ("default", "staff")]))
    providers = {"default": declaration(op), "staff": declaration(op)}
    with override_settings(PHI_OIDC={**settings.PHI_OIDC, "PROVIDERS": providers}):
        try_names_of_patients()
        try_names_of_staff()
        try_addresses()
        try_user_names()
        results["copied"] = list_claims_in_accounts()
print(json.dumps(results))
