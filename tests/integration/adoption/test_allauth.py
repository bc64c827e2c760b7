"""A project with django-allauth, 20 users and live sessions is moved to this package as the page says."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.adoption.host_project import (
    SECRET,
    USERS,
    HostProject,
    read_printed_settings,
    run_host_project,
)
from tests.support.manual_blocks import block

pytestmark = [pytest.mark.allauth, pytest.mark.each_database]
PAGE = "migrate-from-allauth"
LOGIN = "/accounts/oidc/hospital/login/"
COMMAND = ("phi_oidc", "migrate-from", "allauth")


@pytest.fixture
def project(tmp_path: Path) -> Iterator[HostProject]:
    """The project, with users who have signed in by allauth."""
    apps = ("allauth", "allauth.account", "allauth.socialaccount", "allauth.socialaccount.providers.openid_connect")
    with run_host_project(
        tmp_path,
        PAGE,
        redirect_uri=f"http://testserver{LOGIN}callback/",
        apps=" ".join(f'"{app}",' for app in apps),
        middleware='"allauth.account.middleware.AccountMiddleware",',
        backend="allauth.account.auth_backends.AuthenticationBackend",
        urls='path("accounts/", include("allauth.urls")),',
        library=f'{block(PAGE, "old")}LOGIN_URL = "account_login"\n',
    ) as project:
        assert project.manage("migrate").returncode == 0
        yield project


def set_up(project: HostProject) -> None:
    """Follow the page up to the link of the users."""
    project.append_settings(block(PAGE, "installed"))
    project.create_settings("init")
    project.apply_diff("urls", "urls.py")


def migrate(project: HostProject) -> None:
    for words in (["migrate"], ["migrate", "--database", "phi_audit"]):
        done = project.manage(*words)
        assert done.returncode == 0, done.stderr


def change_account(project: HostProject, user: str, change: str) -> None:
    """Execute a statement with `account`, the social account of the user."""
    rows = "from allauth.socialaccount.models import SocialAccount"
    script = f"{rows}; account = SocialAccount.objects.get(user__email='{user}@example.org'); {change}; account.save()"
    done = project.manage("shell", "--verbosity", "0", "-c", script)
    assert done.returncode == 0, done.stderr


def test_page_leads_from_allauth_to_the_same_accounts_and_back(project: HostProject) -> None:
    before = project.sign_in(USERS, path=LOGIN)
    assert len({result["user"] for result in before}) == len(USERS)
    assert "" not in {result["user"] for result in before}
    old_cookies = dict(project.cookies)
    shutil.copytree(project.folder / "portal", project.folder / "previous")
    project.append_settings(block(PAGE, "installed"))
    printed = project.run_block("print").stdout
    project.assert_printed_as_on_the_page(printed, "printed")
    assert "redirect URI: https://your.host/oidc/callback/" in printed
    project.create_settings("init")
    project.apply_diff("urls", "urls.py")
    linked = project.run_block("link")
    assert linked.returncode == 0, linked.stdout + linked.stderr
    assert "hospital: 20 social accounts. After --apply: 20 linked." in linked.stdout
    assert linked.stdout.endswith("hospital: 20 linked.\n")
    assert "django_phi_oidc.E" not in linked.stderr
    assert "W087" not in linked.stderr
    subs = [project.op.get_subject(user, "portal") for user in USERS]
    assert not any(sub in linked.stdout + linked.stderr + printed for sub in subs)

    again = project.manage(*COMMAND, "--apply")
    assert (again.returncode, again.stdout) == (0, "hospital: 20 linked before.\n")
    events = project.manage("phi_oidc", "audit", "export", "--action", "subject.linked")
    rows = [json.loads(line) for line in events.stdout.splitlines()]
    assert {row["resource"] for row in rows} == {f"user/{result['user']}" for result in before}
    assert len(rows) == len(USERS)
    assert all(row["actor"].startswith("os:") and row["detail"] == {"created": False} for row in rows)

    assert set(project.find_signed_in(old_cookies).values()) == {""}, "sessions of the previous backend"
    after = project.sign_in(USERS)
    assert [result["user"] for result in after] == [result["user"] for result in before]
    assert project.read_database("User.objects.count()") == len(USERS)

    shutil.rmtree(project.folder / "portal")
    shutil.copytree(project.folder / "previous", project.folder / "portal")
    (back,) = project.sign_in(USERS[:1], path=LOGIN)
    assert back["user"] == before[0]["user"]


def test_account_that_may_not_be_linked_is_refused_and_the_others_are_linked(project: HostProject) -> None:
    users = USERS[:8]
    project.sign_in(users, path=LOGIN)
    set_up(project)
    migrate(project)
    change_account(project, "user0", "account.user.is_staff = True; account.user.save()")
    change_account(project, "user1", "account.user.is_active = False; account.user.save()")
    change_account(project, "user2", "account.uid = 'user2'")
    change_account(project, "user3", "account.extra_data['id_token']['iss'] = 'https://other.example'")
    change_account(project, "user4", "account.extra_data = {}; account.uid = 'user4@example.org'")
    change_account(project, "user7", "account.user.username = 'night'; account.user.save()")
    local = 'AUTHENTICATION_BACKENDS.append("django_phi_oidc.contrib.local_accounts.backends.BreakGlassBackend")\n'
    app = 'INSTALLED_APPS.append("django_phi_oidc.contrib.local_accounts")\n'
    project.append_settings(f'{app}PHI_OIDC["BREAK_GLASS_ACCOUNTS"] = ["night"]\n{local}')
    (other,) = project.sign_in(["user5"])
    assert other["user"] != ""

    shown = project.manage(*COMMAND)
    assert "8 social accounts. After --apply: 2 linked, 1 refused: this person is linked to another user" in " ".join(
        shown.stdout.replace("\n#  ", "").split()
    )
    assert project.manage("phi_oidc", "subject", "list", "--json").stdout.count("\n") == 1, "only that of the sign-in"
    applied = project.manage(*COMMAND, "--apply", "--json")
    assert applied.returncode == 1
    assert "6 social accounts were not linked" in applied.stderr
    row = json.loads(applied.stdout)
    assert [item["outcome"] for item in row["refused"]] == [
        "privileged",
        "other_sub",
        "other_issuer",
        "invalid_sub",
        "taken",
        "privileged",
    ]
    assert row["outcomes"]["linked"] == 2, "the deactivated user, and one that differs in nothing"
    assert "user2" not in applied.stdout + applied.stderr, "a uid is never shown"

    allowed = project.manage(*COMMAND, "--apply", "--allow-privileged")
    assert allowed.returncode == 1
    assert "2 linked, 2 linked before" in allowed.stdout
    after = project.sign_in(["user0", "user1"])
    assert [result["status"] for result in after] == [302, 403], "a deactivated user gets no new account"


MISMATCHES = {
    'PHI_OIDC["PROVIDERS"]["hospital"]["issuer"] = "https://other.example"': "another issuer",
    'PHI_OIDC["PROVIDERS"]["hospital"]["client_id"] = "other"': "another client_id",
    'PHI_OIDC["PROVIDERS"]["clinic"] = PHI_OIDC["PROVIDERS"].pop("hospital")': "no provider hospital",
    'SOCIALACCOUNT_PROVIDERS["openid_connect"]["APPS"][0]["settings"]["uid_field"] = "email"': "uid is not the sub",
}


def test_provider_that_does_not_match_is_refused_as_a_whole(project: HostProject) -> None:
    project.sign_in(USERS[:1], path=LOGIN)
    set_up(project)
    migrate(project)
    matching = project.settings.read_text()
    for change, refusal in MISMATCHES.items():
        project.settings.write_text(f"{matching}{change}\n")
        applied = project.manage(*COMMAND, "--apply")
        assert applied.returncode == 1, change
        assert refusal in applied.stdout
    assert refusal in " ".join(project.manage(*COMMAND).stdout.replace("\n#  ", "").split())
    assert project.manage("phi_oidc", "subject", "list", "--json").stdout == ""
    project.settings.write_text(matching)
    assert project.manage(*COMMAND, "--apply").stdout == "hospital: 1 linked.\n"


def test_application_of_the_database_is_read_like_one_of_the_settings(project: HostProject) -> None:
    project.append_settings(f"SOCIALACCOUNT_PROVIDERS = {{}}\n{block(PAGE, 'installed')}")
    script = (
        "from allauth.socialaccount.models import SocialApp; SocialApp.objects.create(provider='openid_connect', "
        f"provider_id='hospital', name='H', client_id='portal', secret={SECRET!r}, "
        f"settings={{'server_url': '{project.op.issuer}/.well-known/openid-configuration'}})"
    )
    assert project.manage("shell", "-c", script).returncode == 0
    printed = project.manage(*COMMAND)
    assert printed.returncode == 0, printed.stderr
    declared = read_printed_settings(printed.stdout, OIDC_CLIENT_SECRET="from the environment")
    provider = declared["PROVIDERS"]["hospital"]
    assert (provider["issuer"], provider["client_id"]) == (project.op.issuer, "portal")
    assert provider["client_secret"] == "from the environment"
    assert SECRET not in printed.stdout
    assert "secret key" in printed.stdout


def test_sign_in_by_allauth_beside_this_package_is_reported_and_its_account_pages_are_not(project: HostProject) -> None:
    """W087."""
    set_up(project)
    assert "W087" not in project.manage("check").stderr
    backend = "allauth.account.auth_backends.AuthenticationBackend"
    project.append_settings(f'AUTHENTICATION_BACKENDS.append("{backend}")\n')
    assert f"(django_phi_oidc.W087) {backend}" in project.manage("check").stderr
    project.append_settings(f'AUTHENTICATION_BACKENDS.remove("{backend}")\n')
    urls = project.folder / "portal" / "urls.py"
    account_pages = 'urlpatterns += [path("accounts/", include("allauth.account.urls"))]\n'
    urls.write_text(urls.read_text() + account_pages)
    assert "W087" not in project.manage("check").stderr
    urls.write_text(urls.read_text().replace("allauth.account.urls", "allauth.urls"))
    reported = project.manage("check").stderr
    assert "(django_phi_oidc.W087) The URLs" in reported
    assert "openid_connect_login" in reported
