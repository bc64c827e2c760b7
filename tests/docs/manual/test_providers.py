"""The pages of providers: their settings are those of the recipe, and fit the metadata that the providers publish.

Each option is needed, and each page names exactly the warnings that remain. The blocks are `tested: settings` and
`tested: variables`.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from django_phi_oidc.checks import core
from django_phi_oidc.config.providers import parse_provider
from django_phi_oidc.contrib.doctor.known_providers import PROVIDERS_BY_SLUG
from django_phi_oidc.contrib.doctor.probe import ProbeContext, _check_metadata
from django_phi_oidc.errors import Code, SignInRefused
from django_phi_oidc.http.transport import TransportResponse
from django_phi_oidc.oidc.metadata import ProviderMetadata, merge_metadata, process_metadata_response
from tests.docs.manual.provider_settings import PAGES_BY_SLUG, regenerate
from tests.support.error_codes import raises
from tests.support.manual_blocks import ROOT
from tests.support.provider_recipes import build_declaration, write_client_files
from tests.support.published_metadata import PUBLISHED

TEXTS = {slug: page.read_text() for slug, page in PAGES_BY_SLUG.items()}
INDEX = (ROOT / "docs" / "how-to" / "providers" / "index.md").read_text()
SETTINGS = re.compile(r"<!-- tested: \w+ -->\n```python\n(.*?)```", re.DOTALL)
EXPECTED = re.compile(r"Expected warnings: ((?:`\w+`,?\s*)+)")
OTHER_PAGES = {
    "cognito": "amazon-cognito",
    "entra": "entra-id",
    "psc": "pro-sante-connect",
}
"""Those whose name differs from that of the provider for `phi_oidc init`."""
NEEDED: list[tuple[str, dict[str, Any], type[SignInRefused]]] = [
    ("keycloak", {"issuer": "https://id.example.org/auth/realms/patients"}, Code.ISSUER_MISMATCH),
    ("entra", {"revocation": "required"}, Code.REVOCATION_UNSUPPORTED),
    ("entra", {"issuer": "https://login.microsoftonline.com/common/v2.0"}, Code.ISSUER_MISMATCH),
    ("okta", {"subject_type": "pairwise"}, Code.PAIRWISE_UNSUPPORTED),
    ("auth0", {"subject_type": "pairwise"}, Code.PAIRWISE_UNSUPPORTED),
    ("auth0", {"issuer": "https://example.eu.auth0.com"}, Code.ISSUER_MISMATCH),
    ("google", {"subject_type": "pairwise"}, Code.PAIRWISE_UNSUPPORTED),
    ("cognito", {"subject_type": "pairwise"}, Code.PAIRWISE_UNSUPPORTED),
    ("login-gov", {"revocation": "required"}, Code.REVOCATION_UNSUPPORTED),
    ("login-gov", {"issuer": "https://secure.login.gov"}, Code.ISSUER_MISMATCH),
    ("id-me", {"revocation": "required"}, Code.REVOCATION_UNSUPPORTED),
    ("id-me", {"subject_type": "pairwise"}, Code.PAIRWISE_UNSUPPORTED),
    ("clear", {"subject_type": "pairwise"}, Code.PAIRWISE_UNSUPPORTED),
    ("franceconnect", {"revocation": "required"}, Code.REVOCATION_UNSUPPORTED),
    ("franceconnect", {"id_token_signed_response_alg": ["RS256"]}, Code.ALG_UNSUPPORTED),
    ("nhs-login", {"revocation": "required"}, Code.REVOCATION_UNSUPPORTED),
    ("nhs-login", {"id_token_signed_response_alg": ["RS256"]}, Code.ALG_UNSUPPORTED),
    ("psc", {"revocation": "required"}, Code.REVOCATION_UNSUPPORTED),
    ("oracle-health", {"metadata_issuer": ""}, Code.ISSUER_MISMATCH),
    ("oracle-health", {"metadata_overrides": {}}, Code.ALG_UNSUPPORTED),
    ("oracle-health", {"subject_type": "pairwise"}, Code.PAIRWISE_UNSUPPORTED),
    ("singpass", {"revocation": "required"}, Code.REVOCATION_UNSUPPORTED),
    ("singpass", {"subject_type": "pairwise"}, Code.PAIRWISE_UNSUPPORTED),
    ("epic", {"revocation": "required"}, Code.REVOCATION_UNSUPPORTED),
    ("epic", {"subject_type": "pairwise"}, Code.PAIRWISE_UNSUPPORTED),
    ("udap", {"revocation": "required"}, Code.REVOCATION_UNSUPPORTED),
    ("gesundheitsid", {"revocation": "required"}, Code.REVOCATION_UNSUPPORTED),
    ("gesundheitsid", {"id_token_signed_response_alg": ["RS256"]}, Code.ALG_UNSUPPORTED),
    ("spid-cie", {"id_token_signed_response_alg": ["PS256"]}, Code.ALG_UNSUPPORTED),
    ("cis2", {"issuer": PUBLISHED["cis2"]["issuer"].replace(":443", "")}, Code.ISSUER_MISMATCH),
]
# Options for which the doctor warns, or a system check, if they are left out.
HELPFUL: list[tuple[str, str, str]] = [
    ("okta", "id_token_hint", "id_token_hint_required"),
    ("cognito", "end_session_parameters", "end_session_parameter_missing"),
    ("google", "reauthentication", "auth_time_missing"),
    ("clear", "reauthentication", "auth_time_missing"),
]


@pytest.fixture
def declared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    """Return what the pages declare, with key files of this test."""
    found = {}
    for slug in PROVIDERS_BY_SLUG:
        recipe = PROVIDERS_BY_SLUG[slug].recipe
        assert recipe
        for name, value in write_client_files(recipe, tmp_path).items():
            monkeypatch.setenv(name, value)
        (shown,) = SETTINGS.findall(TEXTS[slug])
        names: dict[str, Any] = {"PHI_OIDC": {}}
        exec(shown, names)
        found[slug] = dict(names["PHI_OIDC"]["PROVIDERS"]["default"])
        if recipe.client_key_type:
            # The next recipe writes the same files.
            found[slug]["client_keys"] = build_declaration(recipe)["client_keys"]
    return found


def judge(slug: str, raw: dict[str, Any]) -> ProviderMetadata:
    response = TransportResponse(
        status=200, headers={"content-type": "application/json"}, body=json.dumps(PUBLISHED[slug]).encode()
    )
    return process_metadata_response(response, declaration=parse_provider("default", raw))


def list_warnings(slug: str, raw: dict[str, Any]) -> set[str]:
    """Return what the doctor says of the metadata, and `manage.py check` of the options."""
    declaration = parse_provider("default", raw)
    context = ProbeContext(claims={}, is_only_provider=True)
    members = merge_metadata(PUBLISHED[slug], oauth_members={}, declaration=declaration)
    findings = list(_check_metadata(declaration, context, members))
    assert [finding for finding in findings if finding.level == "failure" and finding.code != "recipe_differs"] == []
    found = {str(finding.code).rpartition(".")[2] for finding in findings if finding.level == "warning"}
    rows = ((number, applies(getattr(declaration, option))) for number, option, applies, _ in core._PROVIDER_WARNINGS)
    overrides = {"W045"} if declaration.metadata_overrides else set()
    return found | overrides | {f"W{number:03}" for number, is_reported in rows if is_reported}


@pytest.mark.parametrize("slug", PROVIDERS_BY_SLUG)
def test_page_shows_the_recipe_of_the_code_and_a_stale_one_is_found(slug: str) -> None:
    recipe, text = PROVIDERS_BY_SLUG[slug].recipe, TEXTS[slug]
    assert recipe
    assert regenerate(text, recipe) == text, "make reference"
    assert f"--provider {slug}`" in text
    stale = text.replace("PHI_OIDC[", "PHI[").replace("OIDC_CLIENT_ID=", "CLIENT_ID=")
    assert regenerate(stale, recipe) == text


def test_each_declaration_fits_the_metadata_of_its_provider(declared: dict[str, Any]) -> None:
    for slug, raw in declared.items():
        metadata = judge(slug, raw)
        assert (metadata.metadata_issuer or metadata.issuer) == PUBLISHED[slug]["issuer"]


@pytest.mark.parametrize("slug", PROVIDERS_BY_SLUG)
def test_page_names_the_warnings_that_remain(declared: dict[str, Any], slug: str) -> None:
    (expected,) = EXPECTED.findall(TEXTS[slug])
    assert set(re.findall(r"\w+", expected)) == list_warnings(slug, declared[slug])


@pytest.mark.parametrize("slug", TEXTS)
def test_page_says_from_where_its_facts_are(slug: str) -> None:
    text = TEXTS[slug]
    (statement,) = re.findall(r"^\*As of \w+ 20\d\d[,.] .*?\*$", text, re.MULTILINE | re.DOTALL)
    assert "Not tried against " in statement
    name = PROVIDERS_BY_SLUG[slug].name.replace(" / ", " and ")
    assert text.startswith(f"# {name}\n")


def test_index_has_a_row_for_each_provider_with_what_its_page_says() -> None:
    rows = re.findall(r"^\| \[[^\]]+\]\(([\w-]+)\.md\) \| `([\w-]+)` \| (.+) \|$", INDEX, re.MULTILINE)
    pages = {slug: OTHER_PAGES.get(slug, slug) for slug in PROVIDERS_BY_SLUG}
    assert {slug: page for page, slug, _ in rows} == pages
    assert {slug: known.get_page() for slug, known in PROVIDERS_BY_SLUG.items()} == {
        slug: f"docs/how-to/providers/{page}.md" for slug, page in pages.items()
    }
    for _, slug, columns in rows:
        subject_type, revocation, logout, backchannel_logout = columns.split(" | ")
        (expected,) = EXPECTED.findall(TEXTS[slug])
        assert subject_type == ("public" if "W001" in expected else "pairwise")
        assert (revocation == "no") == ("W002" in expected)
        assert (logout == "no") == ("end_session_absent" in expected)
        assert (backchannel_logout in ("no", "front-channel")) == ("backchannel_absent" in expected)


@pytest.mark.parametrize(("slug", "option", "code"), HELPFUL)
def test_option_of_a_page_avoids_a_warning(declared: dict[str, Any], slug: str, option: str, code: str) -> None:
    without = {key: value for key, value in declared[slug].items() if key != option}
    assert code not in list_warnings(slug, declared[slug])
    assert code in list_warnings(slug, without)


@pytest.mark.parametrize(("slug", "otherwise", "error"), NEEDED)
def test_what_is_declared_is_needed(
    declared: dict[str, Any], slug: str, otherwise: dict[str, Any], error: type[SignInRefused]
) -> None:
    judge(slug, declared[slug])
    with raises(error):
        judge(slug, declared[slug] | otherwise)
