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
    assert find_ids(settings, ADMIN_ASSURANCE={"vot": ["P9"]}) == set()


def test_g14_level_of_only_one_provider_does_not_cover_the_admin(settings: Any) -> None:
    assert find_ids(settings, PROVIDERS=providers(settings, STRONG, [])) == {"W055"}
    assert find_ids(settings, PROVIDERS=providers(settings, STRONG, STRONG)) == set()


@pytest.mark.parametrize(
    "level",
    [
        {"acr_accepted": STRONG},
        {"vtr": ["P9.Cp.Cd"], "vtm": "https://op.example.test/trustmark"},
        {"amr_required": ["mfa"]},
        {"provider_requires_mfa": True},
    ],
    ids=lambda level: next(iter(level)),
)
def test_g14_each_kind_of_level_answers_the_warnings(settings: Any, level: dict[str, Any]) -> None:
    (declared,) = providers(settings, []).values()
    assert find_ids(settings, PROVIDERS={"default": declared}) == {"W057"}
    assert find_ids(settings, PROVIDERS={"default": {**declared, **level}}) == set()
    assert find_ids(settings, PROVIDERS={"default": {**declared, **level}, "other": declared}) == {"W055"}


def test_g14_warning_has_the_line_that_answers_it(settings: Any) -> None:
    (message,) = [m for m in run_checks(include_deployment_checks=True) if m.id == "django_phi_oidc.W057"]
    name = next(iter(settings.PHI_OIDC["PROVIDERS"]))
    assert f'PHI_OIDC["PROVIDERS"]["{name}"]["provider_requires_mfa"] = True' in str(message.hint)


def test_providers_with_different_trust_marks_are_an_error(settings: Any) -> None:
    """E119: `P9` of one trust framework is not `P9` of another (RFC 8485 5)."""
    (declared,) = providers(settings, []).values()
    mark = "https://op.example.test/trustmark"
    for other, ids in (("", set()), (mark, set()), (f"{mark}/", {"E119"})):
        named = {"a": {**declared, "vtm": mark}, "b": {**declared, "vtm": other}, "c": declared}
        settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, PROVIDERS=named)
        found = {str(message.id).rpartition(".")[2] for message in run_checks()}
        assert found & {"E119"} == ids


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
        ({"vot": ["P9 Cp"]}, {"vot": ["P9.Cp"]}),
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
