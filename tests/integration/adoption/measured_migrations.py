"""The migration of a project with twenty users to this package, as the manual's pages say."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

from tests.integration.adoption.library_set_ups import (
    ALLAUTH_URLS,
    MOZILLA_SETTINGS,
    MOZILLA_URLS,
    Portal,
    append_generated_settings,
    install_phi_oidc,
    load_variables,
    migrate,
)
from tests.integration.adoption.portal_visitors import open_portal
from tests.integration.adoption.provider_process import PERSONS, SECRET
from tests.support.http_browser import Browser
from tests.support.manual_blocks import block, commands

JOINED_BEFORE = """\
from datetime import timedelta
from django.utils import timezone
User.objects.update(date_joined=timezone.now() - timedelta(days=60))
"""
LINK_BY_EMAIL = """\
PHI_OIDC["PROVIDERS"]["default"]["link_verified_email"] = {{"accounts_created_before": "{first}", "until": "{last}"}}
"""
OTHER_DEVICES = 5
"""Persons with a second browser, in which they do not sign in again."""


def add_users(portal: Portal, browsers: dict[str, Browser]) -> dict[str, str]:
    """Sign all other persons in with the present library, and return the accounts of all, by person.

    The accounts are made two months older, because in a project that is moved they are not from today.
    """
    with portal.project.serving():
        for person in PERSONS:
            browsers.setdefault(person, Browser(portal.project.origin))
        accounts = {person: open_portal(browser, person) for person, browser in browsers.items()}
    portal.project.run_python(JOINED_BEFORE)
    assert len(set(accounts.values())) == len(PERSONS)
    return accounts


def migrate_from_mozilla(portal: Portal) -> None:
    """Follow docs/how-to/migrate-from-mozilla.md. The users are linked by their verified e-mail addresses."""
    project = portal.project
    former = MOZILLA_SETTINGS.format(issuer=portal.provider.issuer).splitlines()
    # The start page stays the same.
    take_over(portal, "migrate-from-mozilla", deleted=[line for line in former if not line.startswith("LOG")])
    project.delete_lines(MOZILLA_URLS.splitlines()[-1:])
    today = datetime.now(tz=UTC).date()
    project.append_settings(LINK_BY_EMAIL.format(first=today, last=today + timedelta(days=30)))
    project.append_urls(block("install", "urls"))
    migrate(project)


def migrate_from_allauth(portal: Portal) -> None:
    """Follow docs/how-to/migrate-from-allauth.md. The users are linked by the `sub` that allauth stored."""
    project = portal.project
    take_over(portal, "migrate-from-allauth", deleted=())
    project.delete_lines(ALLAUTH_URLS.splitlines()[-1:])
    project.append_urls(block("install", "urls"))
    migrate(project)
    project.type("python manage.py phi_oidc migrate-from allauth --apply")


def take_over(portal: Portal, page: str, *, deleted: Sequence[str]) -> None:
    """Install the wheel, create keys and settings from those of the library, and then delete those."""
    # The second command of the block pastes the lines.
    init, _ = commands(page, "init")
    install_phi_oidc(portal, init, page=page)
    portal.project.delete_lines(deleted)
    append_generated_settings(portal.project)
    load_variables(portal.project, {"OIDC_CLIENT_SECRET": SECRET})


MIGRATIONS = {"mozilla-django-oidc": migrate_from_mozilla, "django-allauth": migrate_from_allauth}


def measure_migration(portal: Portal, library: str, browsers: dict[str, Browser]) -> None:
    """Migrate, and sign all persons in again. The measurement ends with the third person."""
    project = portal.project
    accounts = add_users(portal, browsers)
    other_devices = {person: Browser(project.origin) for person in PERSONS[:OTHER_DEVICES]}
    with project.serving():
        for person, browser in other_devices.items():
            assert open_portal(browser, person) == accounts[person]
    users = project.read("User.objects.count()")
    project.start_measurement()
    MIGRATIONS[library](portal)
    with project.serving():
        for person in PERSONS[:3]:
            assert open_portal(browsers[person], person) == accounts[person], "the account of before"
        project.stop_measurement()
        for person in PERSONS[3:]:
            assert browsers[person].get("/").status == 302, "the session of the former library is not valid"
            assert open_portal(browsers[person], person) == accounts[person]
        check_former_sessions(portal, other_devices)
    assert project.read("User.objects.count()") == users, "no second account"
    linked = project.run("python manage.py phi_oidc audit export --action subject.linked").splitlines()
    assert {json.loads(line)["resource"] for line in linked} == {f"user/{account}" for account in accounts.values()}


def check_former_sessions(portal: Portal, other_devices: Mapping[str, Browser]) -> None:
    """Sessions that were not used since the change are listed and ended, and not valid before that either."""
    project = portal.project
    listed = project.run("python manage.py phi_oidc sessions list --foreign --json").splitlines()
    assert len(listed) >= len(other_devices)
    assert {browser.get("/").status for browser in other_devices.values()} == {302}
    project.run("python manage.py phi_oidc sessions end --foreign")
    assert project.run("python manage.py phi_oidc sessions list --foreign --json") == ""
