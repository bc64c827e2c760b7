"""E055, W055, W057: no level of assurance for the admin, or for any sign-in."""

from datetime import timedelta
from types import ModuleType
from typing import Any

import pytest
from django.contrib.admin import AdminSite
from django.core.checks import run_checks
from django.urls import path

from django_phi_oidc.login.admin_site import use_oidc_login
from tests.support.phi_oidc_settings import override_phi_oidc

pytestmark = pytest.mark.django_db(databases=["default", "phi_audit"])
STRONG = ["urn:example:loa:3"]
MONITORED = {"permissions": {"portal.view_chart": "See a chart"}, "mail_to": ["privacy@example.org"]}


def find_ids(settings: Any, *, deploy: bool = True, **options: Any) -> set[str]:
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, **options)
    ids = {str(message.id).rpartition(".")[2] for message in run_checks(include_deployment_checks=deploy)}
    return ids & {"E055", "W055", "W057"}


def providers(settings: Any, *levels: list[str]) -> dict[str, Any]:
    declared = next(iter(settings.PHI_OIDC["PROVIDERS"].values()))
    return {f"p{n}": {**declared, "acr_values": acr} for n, acr in enumerate(levels)}


def test_g14_deployment_without_any_level_of_assurance_is_reported_once(settings: Any) -> None:
    assert find_ids(settings) == {"W057"}
    assert find_ids(settings, deploy=False) == set()


def test_g14_admin_without_a_level_of_assurance_is_reported(settings: Any) -> None:
    assert find_ids(settings, EMERGENCY={**MONITORED, "acr": STRONG}) == {"W055"}
    assert find_ids(settings, ADMIN_ASSURANCE={"max_age": 600}) == {"W055"}
    assert find_ids(settings, ADMIN_ASSURANCE={"acr": STRONG}) == set()


def test_g14_level_of_only_one_provider_does_not_cover_the_admin(settings: Any) -> None:
    assert find_ids(settings, PROVIDERS=providers(settings, STRONG, [])) == {"W055"}
    assert find_ids(settings, PROVIDERS=providers(settings, STRONG, STRONG)) == set()


def test_g14_without_the_admin_no_level_is_required_for_it(settings: Any) -> None:
    settings.ROOT_URLCONF = "tests.integration.journeys.guarded_urls"
    settings.INSTALLED_APPS = [name for name in settings.INSTALLED_APPS if name != "django.contrib.admin"]
    assert find_ids(settings, EMERGENCY={**MONITORED, "acr": STRONG}) == set()


@pytest.mark.parametrize("is_oidc", [False, True])
def test_g14_admin_site_that_does_not_enforce_the_assurance_is_an_error(settings: Any, is_oidc: bool) -> None:
    site = AdminSite(name="desk")
    if is_oidc:
        use_oidc_login(site)
    settings.ROOT_URLCONF = ModuleType("urls")
    settings.ROOT_URLCONF.urlpatterns = [path("desk/", site.urls)]
    assert find_ids(settings, deploy=False) == set(), "nothing is required"
    assert find_ids(settings, deploy=False, ADMIN_ASSURANCE={"acr": STRONG}) == (set() if is_oidc else {"E055"})


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ({"acr": "urn:example:loa:3"}, {"acr": STRONG}),
        ({"acr": ["two words"]}, {"acr": ["two", "words"]}),
        ({"max_age": 59}, {"max_age": timedelta(minutes=1)}),
        ({"privilege_max_age": timedelta(seconds=59)}, {"privilege_max_age": 60}),
        ({"max_ages": 60}, {"max_age": 60}),
    ],
)
def test_g14_wrong_declaration_is_an_error(settings: Any, wrong: Any, right: Any) -> None:
    original = settings.PHI_OIDC
    for declared, expected in ((wrong, ["django_phi_oidc.E002"]), (right, [])):
        settings.PHI_OIDC = override_phi_oidc(original, ADMIN_ASSURANCE=declared)
        assert [message.id for message in run_checks()] == expected
