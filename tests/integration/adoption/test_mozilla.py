"""A project with mozilla-django-oidc, 20 users and live sessions is moved to this package as the page says."""

import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from django_phi_oidc._internal import clock
from tests.integration.adoption.host_project import (
    USERS,
    HostProject,
    localize,
    run_host_project,
)
from tests.support.manual_blocks import block

pytestmark = pytest.mark.each_database
PAGE = "migrate-from-mozilla"
REFRESH = "mozilla_django_oidc.middleware.SessionRefresh"


@pytest.fixture
def project(tmp_path: Path) -> Iterator[HostProject]:
    with run_host_project(
        tmp_path,
        PAGE,
        redirect_uri="http://testserver/oidc/callback/",
        apps='"mozilla_django_oidc",',
        middleware=f'"{REFRESH}",',
        backend="mozilla_django_oidc.auth.OIDCAuthenticationBackend",
        urls='path("oidc/", include("mozilla_django_oidc.urls")),',
        library=f'{block(PAGE, "old")}LOGIN_URL = "oidc_authentication_init"\n',
    ) as project:
        yield project


def test_page_leads_from_mozilla_django_oidc_to_linked_users_and_back(project: HostProject) -> None:
    assert project.manage("migrate").returncode == 0
    before = project.sign_in(USERS)
    assert len({result["user"] for result in before}) == len(USERS)
    assert project.find_signed_in(project.cookies) == {user: before[n]["user"] for n, user in enumerate(USERS)}
    old_cookies = dict(project.cookies)
    shutil.copytree(project.folder / "portal", project.folder / "previous")

    project.append_settings(block(PAGE, "installed"))
    printing = project.run_block("print")
    assert printing.returncode == 0, printing.stderr
    project.assert_printed_as_on_the_page(printing.stdout, "printed")
    assert f"{REFRESH} in MIDDLEWARE" in printing.stdout

    project.create_settings("init")
    left_over = project.manage("check")
    assert left_over.returncode == 1
    assert all(f"django_phi_oidc.{check}" in left_over.stderr for check in ("E086", "E088", "W086"))
    project.apply_diff("settings", "settings.py")
    project.apply_diff("urls", "urls.py")
    text = project.settings.read_text()
    for line in localize(block(PAGE, "old"), project.op).splitlines():
        text = text.replace(f"{line}\n", "")
    project.settings.write_text(text)
    tested = project.run_block("test")
    assert tested.returncode == 0, tested.stdout + tested.stderr
    assert "django_phi_oidc.E" not in tested.stderr
    assert "django_phi_oidc.W086" not in tested.stderr

    assert set(project.find_signed_in(old_cookies).values()) == {""}, "sessions of the previous backend"
    foreign = project.manage("phi_oidc", "sessions", "list", "--foreign", "--json")
    assert foreign.stdout.count("anonymous") == len(USERS), foreign.stdout
    rows = [f"pk:{before[number]['user']},{project.op.get_subject(USERS[number], 'portal')}" for number in (0, 1)]
    (project.folder / "subs.csv").write_text("\n".join(["user,sub", *rows]))
    linked = project.manage("phi_oidc", "subject", "link", "--csv", "subs.csv")
    assert linked.stdout == "2 persons were linked, 0 were linked before.\n", linked.stderr
    assert project.read_database("User.objects.update(date_joined='2020-01-01T00:00:00Z')") == len(USERS)
    today = clock.now().date()
    linking = {"accounts_created_before": str(today), "until": str(today + timedelta(days=30))}
    provisioning = {"provisioning": "existing", "link_verified_email": linking}
    project.append_settings(f'PHI_OIDC["PROVIDERS"]["default"] |= {provisioning!r}\n')
    after = project.sign_in(USERS)
    assert [result["user"] for result in after] == [result["user"] for result in before]
    assert project.read_database("User.objects.count()") == len(USERS)

    ended = project.manage("phi_oidc", "sessions", "end", "--all", "--yes")
    assert ended.returncode == 0, ended.stderr
    shutil.rmtree(project.folder / "portal")
    shutil.copytree(project.folder / "previous", project.folder / "portal")
    again = project.sign_in(USERS[:1])
    assert again[0]["user"] == before[0]["user"]
    assert project.find_signed_in({"user1": old_cookies["user1"]}) == {"user1": before[1]["user"]}


def test_left_over_middleware_makes_pages_unreachable_and_is_an_error_of_the_check(project: HostProject) -> None:
    """E086."""
    project.append_settings(block(PAGE, "installed"))
    project.create_settings("init")
    project.apply_diff("urls", "urls.py")
    for words in (["migrate", "--skip-checks"], ["migrate", "--skip-checks", "--database", "phi_audit"]):
        assert project.manage(*words).returncode == 0
    (signed_in,) = project.sign_in(USERS[:1])
    assert signed_in["status"] == 302
    assert signed_in["user"] == ""
    assert f"{project.op.issuer}/authorize" in signed_in["location"]
    reported = project.manage("check")
    assert reported.returncode == 1
    (hint,) = [line for line in reported.stderr.splitlines() if "MIDDLEWARE.remove(" in line]
    project.append_settings(f"{hint.partition('In your settings: ')[2]}\n")
    repaired = project.manage("check")
    assert repaired.returncode == 0, repaired.stderr
    (signed_in,) = project.sign_in(USERS[:1])
    assert signed_in["user"] != ""


def test_apply_links_no_user_and_says_how_to_link_them(project: HostProject) -> None:
    project.append_settings(block(PAGE, "installed"))
    applied = project.manage("phi_oidc", "migrate-from", "mozilla", "--apply")
    assert applied.returncode == 1
    assert "stores no sub" in applied.stderr
