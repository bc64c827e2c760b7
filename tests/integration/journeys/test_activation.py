"""Provisioning by invitation: the first sign-in asks for an activation code that links the person to an account."""

import io
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.contrib.sessions.models import Session
from django.core.management import call_command
from django.db import connections
from django.test import Client

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.events import Action, Origin
from django_phi_oidc.audit.recorder import record
from django_phi_oidc.claims.models import StoredClaim
from django_phi_oidc.contrib.invitations.activation_codes import create_code, format_code
from django_phi_oidc.contrib.invitations.models import ActivationCode
from django_phi_oidc.sessions.models import OIDCSession
from django_phi_oidc.subjects.models import PairwiseSubject, SubjectDigest
from django_phi_oidc.testing.mock_provider import DemoProvider
from tests.integration.journeys.file_search import find_in_files, find_texts
from tests.integration.journeys.two_providers import Declare
from tests.support.http_browser import Browser, PortalResponse
from tests.support.log_capture import capture_all_logs
from tests.support.portal_fixtures import EVERYTHING, declaration, events

pytestmark = pytest.mark.django_db(**EVERYTHING)
ACTIVATE, COOKIE = "/oidc/activate/", "phi_oidc_activation"


@pytest.fixture(autouse=True)
def _invitation(op: DemoProvider, settings: Any) -> None:
    declare_default(settings, op, provisioning="invitation")


def declare_default(settings: Any, op: DemoProvider, **options: str) -> None:
    settings.PHI_OIDC = {**settings.PHI_OIDC, "PROVIDERS": {"default": declaration(op, **options)}}


def create_account(name: str) -> Any:
    """Create an account that exists before the first sign-in of its person."""
    return get_user_model().objects.create_user(f"record of {name}")


def invite(user: Any, *words: str) -> str:
    out = io.StringIO()
    call_command("phi_oidc", "subject", "invite", user.get_username(), "--json", *words, stdout=out)
    return str(json.loads(out.getvalue())["code"])


def enter(browser: Browser, code: str) -> PortalResponse:
    """Open the activation page and submit the code."""
    page = browser.get(ACTIVATE)
    assert page.status == 200, page
    token = page.body.partition('name="csrfmiddlewaretoken" value="')[2].partition('"')[0]
    return browser.post(ACTIVATE, csrfmiddlewaretoken=token, code=code)


def continue_sign_in(browser: Browser, page: PortalResponse, op: DemoProvider) -> PortalResponse:
    """Follow the redirect to the sign-in and continue with the provider's session."""
    redirect = browser.get(page.location)
    assert redirect.status == 302, redirect
    return browser.get(op.authorize(redirect.location, "amina", cookies=browser.provider_cookies))


def reasons(action: str) -> list[str]:
    return [event.reason for event in events(action=action)]


def test_first_sign_in_asks_for_a_code_and_a_valid_code_links_the_account(op: DemoProvider, browser: Browser) -> None:
    user = create_account("amina")
    code = invite(user)
    page = browser.sign_in(op, next_url="/portal/letters/")
    assert (page.status, page.location) == (302, ACTIVATE)
    assert browser.user() == ""
    assert reasons("login.refused") == ["not_provisioned"]
    assert op.tokens != []
    assert op.active_tokens == []
    counted = (PairwiseSubject, SubjectDigest, OIDCSession, StoredClaim, Session)
    assert [model.objects.count() for model in counted] == [0] * 5

    page = enter(browser, code)
    assert (page.status, COOKIE in browser.cookies) == (302, False)
    assert browser.user() == "", "a code alone does not sign in: the provider does"
    last = continue_sign_in(browser, page, op)
    assert (last.status, last.location) == (302, "/portal/letters/")
    assert browser.user() == str(user.pk)
    assert get_user_model().objects.get() == user
    assert {claim.name for claim in StoredClaim.objects.all()} == {"birthdate", "address"}
    subject = PairwiseSubject.objects.get()
    actions = {event.action for event in events(subject=str(subject.uuid))}
    assert {"activation.redeemed", "subject.linked", "login.succeeded"} <= actions
    assert reasons("login.refused") == ["not_provisioned"]

    again = Browser(browser.base_url)
    assert again.sign_in(op).location == "/portal/home/"
    assert again.user() == str(user.pk)


def test_wrong_code_is_refused_and_asked_for_again(op: DemoProvider, browser: Browser) -> None:
    user = create_account("amina")
    code = invite(user)
    browser.sign_in(op)
    page = enter(browser, "0000-0000-0000-0000")
    assert (page.status, 'name="code"' in page.body) == (403, True)
    assert browser.user() == ""
    assert reasons("activation.refused") == ["unknown"]
    assert continue_sign_in(browser, enter(browser, code), op).status == 302
    assert browser.user() == str(user.pk)


def test_code_links_the_person_who_signed_in_last(op: DemoProvider, browser: Browser) -> None:
    """Two people use one browser: the code links the last one that the provider authenticated."""
    user = create_account("jonas")
    code = invite(user)
    browser.sign_in(op, "amina")
    browser.provider_cookies.clear()
    browser.sign_in(op, "jonas")
    enter(browser, code)
    assert Browser(browser.base_url).sign_in(op, "amina").location == ACTIVATE
    other = Browser(browser.base_url)
    assert other.sign_in(op, "jonas").location == "/portal/home/"
    assert other.user() == str(user.pk)


def test_code_for_a_deactivated_account_is_refused(op: DemoProvider, browser: Browser) -> None:
    user = create_account("amina")
    code = invite(user)
    active = get_user_model().objects.filter(pk=user.pk)
    active.update(is_active=False)
    browser.sign_in(op)
    assert enter(browser, code).status == 403
    assert reasons("activation.refused") == ["user_inactive"]
    active.update(is_active=True)
    page = enter(browser, code)
    active.update(is_active=False)
    assert continue_sign_in(browser, page, op).status == 403
    assert reasons("login.refused") == ["not_provisioned", "user_inactive"]
    assert op.active_tokens == []


def test_linked_person_is_not_asked_for_a_code(op: DemoProvider, browser: Browser, settings: Any) -> None:
    declare_default(settings, op, provisioning="create")
    assert browser.sign_in(op).status == 302
    declare_default(settings, op, provisioning="invitation")
    again = Browser(browser.base_url)
    assert again.sign_in(op).location == "/portal/home/"
    assert again.user() == browser.user() != ""


@pytest.mark.parametrize("provisioning", ["existing", "invitation"])
def test_only_invitation_provisioning_asks_for_a_code(
    provisioning: str, op: DemoProvider, browser: Browser, settings: Any
) -> None:
    declare_default(settings, op, provisioning=provisioning)
    page = browser.sign_in(op)
    assert (page.status, page.location) == ((302, ACTIVATE) if provisioning == "invitation" else (403, ""))
    assert (COOKIE in browser.cookies) == (provisioning == "invitation")


def test_unlinked_person_needs_a_new_code(op: DemoProvider, browser: Browser) -> None:
    user = create_account("amina")
    code = invite(user)
    browser.sign_in(op)
    continue_sign_in(browser, enter(browser, code), op)
    subject = PairwiseSubject.objects.get()
    call_command("phi_oidc", "subject", "unlink", str(subject.uuid), stdout=io.StringIO())
    assert browser.sign_in(op).location == ACTIVATE
    assert enter(browser, code).status == 403
    assert continue_sign_in(browser, enter(browser, invite(user)), op).status == 302
    assert browser.user() == str(user.pk)


def test_code_for_one_provider_is_refused_for_another(
    clinic: DemoProvider, region: DemoProvider, declare: Declare, browser: Browser
) -> None:
    takes = {"provisioning": "invitation"}
    declare(clinic=takes, region=takes)
    user = create_account("amina")
    code = invite(user, "--provider", "region")

    def sign_in_at(name: str, op: DemoProvider, path: str = "") -> PortalResponse:
        redirect = browser.get(path) if path else browser.start_sign_in(path=f"/oidc/{name}/authenticate/")
        return browser.get(op.authorize(redirect.location, "amina"))

    assert sign_in_at("clinic", clinic).location == ACTIVATE
    assert enter(browser, code).status == 403
    assert sign_in_at("region", region).location == ACTIVATE
    assert "The region’s sign-in" in browser.get(ACTIVATE).body
    page = enter(browser, code)
    assert page.location.startswith("/oidc/region/authenticate/?next=")
    assert sign_in_at("region", region, page.location).location == "/portal/home/"
    assert browser.user() == str(user.pk)


# Where a code is stored after it was shown


@dataclass
class RecordingBrowser(Browser):
    """A browser that keeps all responses."""

    pages: list[PortalResponse] = field(default_factory=list, repr=False)

    def _dispatch(self, method: str, url: str, body: bytes | None) -> PortalResponse:
        page = super()._dispatch(method, url, body)
        self.pages.append(page)
        return page


def find_in_databases(texts: dict[str, str]) -> dict[str, set[str]]:
    """Return the texts found in each table of both databases, and in the files of SQLite databases."""
    hits: dict[str, set[str]] = {}
    for alias in ("default", "phi_audit"):
        connection = connections[alias]
        with connection.cursor() as cursor:
            for table in connection.introspection.table_names(cursor):
                cursor.execute(f"SELECT * FROM {connection.ops.quote_name(table)}")
                if here := find_texts(texts, "\n".join(map(repr, cursor.fetchall())).encode()):
                    hits[f"{alias} {table}"] = here
        if connection.vendor == "sqlite":
            file = Path(connection.settings_dict["NAME"])
            files = [file.with_name(f"{file.name}{suffix}") for suffix in ("", "-wal", "-shm")]
            hits |= {name: names for name, names in find_in_files(texts, files).items() if names}
    return hits


def issue_in_admin(user: Any) -> str:
    """Return the code shown by the admin page, after checking that session and cookies do not contain it."""
    officer = get_user_model().objects.create_user(f"officer for {user.pk}", is_staff=True)
    officer.user_permissions.set(Permission.objects.filter(codename__in=["issue_activationcode", "view_user"]))
    client = Client()
    client.force_login(officer, backend="django_phi_oidc.backends.OIDCAuthenticationBackend")
    answer = client.post(
        "/admin/phi_oidc_invitations/activationcode/add/", {"provider": "default", "user": user.pk}, secure=True
    )
    assert (answer.status_code, "no-store" in answer["Cache-Control"]) == (200, True)
    code = answer.content.decode().partition("<code>")[2].partition("</code>")[0]
    stored = repr([dict(client.session.items()), [morsel.OutputString() for morsel in client.cookies.values()]])
    assert find_texts({"code": code, "normal": code.replace("-", "")}, stored.encode()) == set()
    return code


def search(texts: dict[str, str], lines: Iterable[str], pages: Iterable[PortalResponse]) -> dict[str, set[str]]:
    hits = find_in_databases(texts)
    outputs = {"the log": "\n".join(lines), "a page": repr([(page.headers, page.body) for page in pages])}
    return hits | {place: here for place, text in outputs.items() if (here := find_texts(texts, text.encode()))}


def test_codes_are_not_stored_in_plain_text_after_they_were_shown(
    op: DemoProvider, portal: str, settings: Any, tmp_path: Path
) -> None:
    settings.ROOT_URLCONF = "tests.integration.journeys.activation_urls"
    users = [create_account(name) for name in ("amina", "jonas", "mette")]
    browser, control, sheet = RecordingBrowser(portal), format_code(create_code()), tmp_path / "codes.csv"
    with capture_all_logs() as log:
        codes = [invite(users[0]), issue_in_admin(users[0]), issue_in_admin(users[1]), *invite_all(users[2:], sheet)]
        browser.sign_in(op)
        assert [enter(browser, code).status for code in (codes[0], codes[0].lower(), codes[1])] == [403, 403, 302]
        continue_sign_in(browser, browser.pages[-1], op)
        call_command("phi_oidc", "subject", "invite", "--revoke", users[1].get_username(), stdout=io.StringIO())
        call_command("phi_oidc", "subject", "list", stdout=io.StringIO())
    assert browser.user() == str(users[0].pk)
    assert ActivationCode.objects.count() == len(set(codes)) == 4
    texts = {f"{form} of code {n}": form_of(code) for n, code in enumerate(codes) for form, form_of in FORMS.items()}
    assert search(texts, log.lines, browser.pages) == {}

    get_user_model().objects.filter(pk=users[1].pk).update(last_name=control)
    record(Action.AUDIT_VIEWED, origin=Origin(), now=clock.now(), detail={"page": control})
    planted = search({"control": control}, [*log.lines, control], [*browser.pages, PortalResponse(200, "", control)])
    assert {"default auth_user", "phi_audit phi_oidc_audit_auditevent", "the log", "a page"} <= planted.keys()
    if connections["default"].vendor == "sqlite":
        assert len(planted) >= 6, "in the database files too"
    assert codes[3] in sheet.read_text()


FORMS = {"as shown": str, "lower case": str.lower, "without hyphens": lambda code: code.replace("-", "")}


def invite_all(users: Iterable[Any], sheet: Path) -> list[str]:
    """Return the codes that the command wrote to the CSV file."""
    users_file = sheet.with_name("users.csv")
    users_file.write_text("user\n" + "".join(f"{user.get_username()}\n" for user in users))
    call_command(
        "phi_oidc", "subject", "invite", "--csv", str(users_file), "--output", str(sheet), stdout=io.StringIO()
    )
    return [line.split(",")[1] for line in sheet.read_text().splitlines()[1:]]
