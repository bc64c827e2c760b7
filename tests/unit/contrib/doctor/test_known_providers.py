"""Each known provider is recognized by its metadata, and has a recipe that the parser accepts."""

from dataclasses import fields, replace
from typing import Any

import pytest

from django_phi_oidc.config.providers import ProviderDeclaration, parse_provider
from django_phi_oidc.contrib.doctor.known_providers import (
    KNOWN_PROVIDERS,
    PROVIDERS_BY_SLUG,
    find_known_provider,
)
from django_phi_oidc.contrib.doctor.known_providers.definitions import Recipe, list_differences
from django_phi_oidc.contrib.doctor.recipe_diagnostics import check_known_provider
from tests.support.manual_blocks import ROOT
from tests.support.provider_recipes import build_declaration
from tests.support.published_metadata import PUBLISHED, build_metadata

PREFERRED = "urn:acr.login.gov:verified-facial-match-preferred"
SUPPORTED = {slug: known.recipe for slug, known in PROVIDERS_BY_SLUG.items() if known.recipe}
FEDERATED = [slug for slug, recipe in SUPPORTED.items() if recipe.trust_anchor]
COMPARED = [
    (slug, option.name)
    for slug, recipe in SUPPORTED.items()
    for option in recipe.options
    if option.need in ("required", "advised")
]
EXAMPLES = [
    (slug, option.name) for slug, recipe in SUPPORTED.items() for option in recipe.options if option.need == "example"
]


def find_codes(slug: str, declaration: ProviderDeclaration) -> set[tuple[str, str]]:
    findings = check_known_provider(PUBLISHED[slug], declaration=declaration)
    return {(finding.level, finding.code) for finding in findings if finding.level != "ok"}


@pytest.mark.parametrize("slug", PROVIDERS_BY_SLUG)
def test_provider_is_recognized_by_its_metadata(slug: str) -> None:
    assert find_known_provider(PUBLISHED[slug]) is PROVIDERS_BY_SLUG[slug]
    assert [known.slug for known in KNOWN_PROVIDERS if known.has_mark(PUBLISHED[slug])] == [slug]


def test_each_known_provider_has_a_page_and_a_recipe() -> None:
    assert PUBLISHED.keys() == PROVIDERS_BY_SLUG.keys() == SUPPORTED.keys()
    for known in PROVIDERS_BY_SLUG.values():
        assert (ROOT / known.get_page()).exists(), known.slug


@pytest.mark.parametrize(
    "members",
    [
        {},
        build_metadata("https://id.example.org", "public"),
        {"issuer": "https://accounts.google.com.example"},
        {"issuer": ["https://id.example.org"], "acr_values_supported": [1, None]},
        {"authorization_endpoint": None},
    ],
)
def test_other_metadata_are_not_recognized(members: dict[str, Any]) -> None:
    assert find_known_provider(members) is None
    declaration = parse_provider("default", build_declaration(Recipe(issuer="https://id.example.org")))
    assert list(check_known_provider(members, declaration=declaration)) == []


@pytest.mark.parametrize("slug", SUPPORTED)
def test_recipe_is_accepted_by_the_parser_and_differs_in_nothing(slug: str) -> None:
    recipe = SUPPORTED[slug]
    declaration = parse_provider("default", build_declaration(recipe))
    assert list(list_differences(recipe, declaration)) == []
    assert all(option.reason.endswith(".") for option in recipe.options)


@pytest.mark.parametrize(("slug", "option"), COMPARED)
def test_option_that_differs_from_the_recipe_is_reported_with_its_reason(slug: str, option: str) -> None:
    recipe = SUPPORTED[slug]
    default = {field.name: field.default for field in fields(ProviderDeclaration)}[option]
    otherwise = ("EdDSA",) if option == "id_token_signed_response_alg" else default
    declaration = replace(parse_provider("default", build_declaration(recipe)), **{option: otherwise})
    (expected,) = list_differences(recipe, declaration)
    (finding,) = [
        finding
        for finding in check_known_provider(PUBLISHED[slug], declaration=declaration)
        if finding.code == "recipe_differs"
    ]
    assert finding.level == ("failure" if expected.need == "required" else "warning")
    assert option in finding.text
    assert finding.remedy == expected.reason


@pytest.mark.parametrize(("slug", "option"), EXAMPLES)
def test_example_of_a_recipe_is_reported_only_if_there_is_no_other_value(slug: str, option: str) -> None:
    recipe = SUPPORTED[slug]
    declaration = parse_provider("default", build_declaration(recipe))
    assert list(list_differences(recipe, replace(declaration, **{option: ("another",)}))) == []
    (found,) = list_differences(recipe, replace(declaration, **{option: ()}))
    assert found.name == option


def test_further_parameters_and_algorithms_do_not_differ_from_a_recipe() -> None:
    recipe = SUPPORTED["google"]
    parameters = {"prompt": "select_account", "hd": "example.org"}
    declaration = parse_provider("default", build_declaration(recipe, authorization_parameters=parameters))
    assert list(list_differences(recipe, declaration)) == []
    recipe = SUPPORTED["franceconnect"]
    algs = build_declaration(recipe, id_token_signed_response_alg=["RS256", "ES256"])
    assert list(list_differences(recipe, parse_provider("default", algs))) == []


@pytest.mark.parametrize(
    ("slug", "options", "found"),
    [
        ("keycloak", {}, {("warning", "logout_sub_mismatch")}),
        ("keycloak", {"subject_type": "public"}, set()),
        ("auth0", {}, {("warning", "revocation_partial")}),
        ("cognito", {}, {("warning", "revocation_partial")}),
        ("cognito", {"acr_values": ["mfa"]}, {("warning", "revocation_partial"), ("failure", "acr_insufficient")}),
        ("entra", {}, set()),
        ("entra", {"acr_values": ["mfa"]}, {("failure", "acr_insufficient")}),
        ("google", {"acr_values": ["mfa"]}, {("failure", "acr_insufficient")}),
        ("login-gov", {"acr_values": ["urn:acr.login.gov:verified-facial-match-required"]}, set()),
        ("login-gov", {"acr_values": [PREFERRED]}, {("warning", "acr_insufficient")}),
        ("login-gov", {"acr_values": [PREFERRED], "acr_accepted": ["urn:acr.login.gov:verified"]}, set()),
    ],
)
def test_known_fault_is_reported_if_it_matters(slug: str, options: dict[str, Any], found: set[tuple[str, str]]) -> None:
    declaration = parse_provider("default", build_declaration(SUPPORTED[slug], **options))
    assert find_codes(slug, declaration) == found


@pytest.mark.parametrize("slug", FEDERATED)
def test_member_of_a_federation_is_declared_with_it(slug: str) -> None:
    declaration = parse_provider("default", build_declaration(SUPPORTED[slug]))
    assert find_codes(slug, declaration) == set()
    assert find_codes(slug, replace(declaration, app_options=())) == {("failure", "federation_undeclared")}


def test_recognized_provider_is_named_with_its_page() -> None:
    declaration = parse_provider("default", build_declaration(SUPPORTED["okta"]))
    first, *_ = check_known_provider(PUBLISHED["okta"], declaration=declaration)
    assert (first.check, first.level) == ("provider", "ok")
    assert first.text == "recognized as Okta; its settings: docs/how-to/providers/okta.md"
    spring = {"end_session_endpoint": "https://op.example/connect/logout"}
    first, *_ = check_known_provider(spring, declaration=declaration)
    assert first.text == "recognized as Spring Authorization Server"


def test_provider_whose_metadata_are_not_found_is_recognized_by_its_issuer() -> None:
    """Those of Pro Santé Connect have another name, which only a declaration of metadata_url finds."""
    recipe = SUPPORTED["psc"]
    raw = build_declaration(recipe)
    del raw["metadata_url"]
    findings = list(check_known_provider({"issuer": recipe.issuer}, declaration=parse_provider("default", raw)))
    assert [(finding.level, finding.code) for finding in findings] == [("ok", ""), ("warning", "recipe_differs")]
    assert "metadata_url" in findings[1].text
