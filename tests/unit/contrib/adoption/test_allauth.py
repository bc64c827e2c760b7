"""The settings of django-allauth and their equivalents. tests/integration/adoption has complete projects."""

import os
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import pytest
from django.test import override_settings

from django_phi_oidc.config.providers import parse_provider
from django_phi_oidc.contrib.adoption.allauth import (
    get_provider_name,
    list_applications,
    read_allauth_settings,
)
from django_phi_oidc.contrib.adoption.settings_plan import (
    SettingsPlan,
    describe_plan,
    format_plan,
    format_settings,
    list_variables,
)
from django_phi_oidc.contrib.adoption.social_accounts import find_refusal
from django_phi_oidc.options import list_mistakes, list_unknown_options
from tests.unit.contrib.adoption.metadata_server import MetadataServer, run_metadata_server

SECRET = "a-client-secret-that-is-never-printed"


@pytest.fixture(scope="module")
def server() -> Iterator[MetadataServer]:
    with run_metadata_server() as server:
        yield server


def app(**changed: Any) -> dict[str, Any]:
    return {"client_id": "portal", "secret": SECRET, **changed}


def read(**providers: Any) -> SettingsPlan:
    with override_settings(SOCIALACCOUNT_PROVIDERS=providers):
        return read_allauth_settings()


def read_openid_connect(server: MetadataServer, metadata: Any = None, app_settings: Any = None, **options: Any) -> Any:
    """Return the plan for one application of the kind openid_connect."""
    issuer = server.publish("/realms/hospital", **(metadata or {}))
    application = app(provider_id="hospital", settings={"server_url": issuer, **(app_settings or {})})
    return read(openid_connect={"APPS": [application], **options})


def get_providers(plan: SettingsPlan) -> dict[str, Any]:
    """Return the providers that the printed settings declare, after a check of their validity."""
    environment = {item.name: item.value or "https://from.example" for item in list_variables(plan)}
    environment |= {f"PHI_{ring}_KEYS": "x" for ring in ("ENCRYPTION", "SUBJECT", "AUDIT_MAC")}
    names: dict[str, Any] = {}
    with patch.dict(os.environ, environment):
        exec(format_plan(plan), names)
    with override_settings(PHI_OIDC=names["PHI_OIDC"]):
        assert (list_unknown_options(), list_mistakes()) == ([], [])
    return dict(names["PHI_OIDC"]["PROVIDERS"])


def find_notes(plan: SettingsPlan, subject: str) -> str:
    return "\n".join(note.text for note in plan.notes if note.subject == subject)


@pytest.mark.parametrize("suffix", ["", "/.well-known/openid-configuration"])
def test_usual_application_becomes_a_short_valid_declaration(server: MetadataServer, suffix: str) -> None:
    issuer = server.publish("/realms/hospital", subject_types_supported=["pairwise"])
    application = app(provider_id="hospital", settings={"server_url": issuer + suffix})
    plan = read(openid_connect={"APPS": [application]})
    assert get_providers(plan) == {
        "hospital": {
            "issuer": issuer,
            "client_id": "portal",
            "client_secret": "https://from.example",
            "allow_loopback_http": True,
            "token_endpoint_auth_method": "client_secret_post",
        }
    }
    assert [item.name for item in plan.variables] == ["OIDC_CLIENT_SECRET"]
    assert plan.redirect_uris == ["/oidc/callback/"]
    assert len(format_settings(plan).splitlines()) <= 15
    assert SECRET not in format_plan(plan)
    assert SECRET not in repr(describe_plan(plan))


def test_servers_of_old_versions_are_read(server: MetadataServer) -> None:
    issuer = server.publish("/old")
    declared = {"id": "old", "server_url": issuer, "token_auth_method": "client_secret_basic", "APP": app()}
    providers = get_providers(read(openid_connect={"SERVERS": [declared]}))
    assert providers["old"]["issuer"] == issuer
    assert "token_endpoint_auth_method" not in providers["old"]


def test_subjects_stay_as_they_are_because_users_are_linked_by_them(server: MetadataServer) -> None:
    plan = read_openid_connect(server, {"subject_types_supported": ["public", "pairwise"]})
    assert get_providers(plan)["hospital"]["subject_type"] == "public"
    assert "Do not change" in find_notes(plan, "hospital")
    plan = read_openid_connect(server, {"subject_types_supported": ["pairwise"]})
    assert "subject_type" not in get_providers(plan)["hospital"]


@pytest.mark.parametrize(
    ("methods", "declared", "expected"),
    [
        (["client_secret_post", "client_secret_basic"], None, "client_secret_post"),
        (["client_secret_basic"], None, None),
        (["private_key_jwt"], None, "client_secret_post"),
        (None, None, "client_secret_post"),
        (["client_secret_post"], "client_secret_basic", None),
        (["client_secret_basic"], "client_secret_post", "client_secret_post"),
    ],
)
def test_secret_is_sent_as_allauth_sends_it(server: MetadataServer, methods: Any, declared: Any, expected: Any) -> None:
    metadata = {"token_endpoint_auth_methods_supported": methods}
    plan = read_openid_connect(server, metadata, {"token_auth_method": declared})
    assert get_providers(plan)["hospital"].get("token_endpoint_auth_method") == expected


@pytest.mark.parametrize("place", ["application", "provider"])
def test_scopes_and_parameters_of_both_places_are_read(server: MetadataServer, place: str) -> None:
    scopes, parameters = ["openid", "offline_access"], {"prompt": "login", "state": "x"}
    if place == "application":
        plan = read_openid_connect(server, None, {"scope": scopes, "auth_params": parameters})
    else:
        plan = read_openid_connect(server, SCOPE=scopes, AUTH_PARAMS=parameters)
    provider = get_providers(plan)["hospital"]
    assert list(provider["resource_scopes"]) == ["offline_access"]
    assert provider["authorization_parameters"] == {"prompt": "login"}
    assert plan.claims == {}, "the scope email is not requested"
    assert "protocol code" in find_notes(plan, "hospital: auth_params state")


UNREACHABLE = "http://127.0.0.1:1"


@pytest.mark.parametrize(
    ("kind", "options", "issuer", "is_linkable"),
    [
        ("auth0", {"AUTH0_URL": UNREACHABLE}, f"{UNREACHABLE}/", True),
        ("keycloak", {"KEYCLOAK_URL": UNREACHABLE, "KEYCLOAK_REALM": "r"}, f"{UNREACHABLE}/realms/r", True),
        ("google", {"ID_TOKEN_ISSUER": UNREACHABLE}, UNREACHABLE, True),
        ("okta", {"OKTA_BASE_URL": UNREACHABLE.partition("//")[2]}, UNREACHABLE.replace("http:", "https:"), True),
        ("amazon_cognito", {"DOMAIN": "https://x.example"}, "https://from.example", True),
        ("microsoft", {"TENANT": "common"}, "https://from.example", False),
    ],
)
def test_each_known_kind_of_provider_has_its_issuer(kind: str, options: Any, issuer: str, is_linkable: bool) -> None:
    plan = read(**{kind: {"APP": app(), **options}})
    assert get_providers(plan)[kind]["issuer"] == issuer
    notes = find_notes(plan, f"SOCIALACCOUNT_PROVIDERS[{kind!r}]")
    assert ("not the sub" in notes) is not is_linkable
    assert ("is a guess" in notes) is (issuer != "https://from.example"), "its metadata could not be fetched"


def test_tenant_of_microsoft_is_part_of_the_issuer(server: MetadataServer) -> None:
    issuer = server.publish("/1b2c/v2.0")
    server.documents["/contoso.example/v2.0"] = server.documents["/1b2c/v2.0"]
    application = app(settings={"tenant": "contoso.example", "login_url": server.base})
    plan = read(microsoft={"APPS": [application]})
    assert get_providers(plan)["microsoft"]["issuer"] == issuer


def test_several_applications_have_names_and_variables_of_their_own(server: MetadataServer) -> None:
    issuers = [server.publish(path) for path in ("/a", "/b")]
    applications = [
        app(provider_id=name, settings={"server_url": issuer})
        for name, issuer in zip(("my clinic", "lab"), issuers, strict=True)
    ]
    plan = read(openid_connect={"APPS": applications}, github={"APP": app()})
    assert list(get_providers(plan)) == ["my-clinic", "lab"]
    assert [item.name for item in plan.variables] == ["OIDC_MY_CLINIC_CLIENT_SECRET", "OIDC_LAB_CLIENT_SECRET"]
    assert plan.redirect_uris == ["/oidc/my-clinic/callback/", "/oidc/lab/callback/"]
    assert "not known to be an OpenID Provider" in find_notes(plan, "SOCIALACCOUNT_PROVIDERS['github']")


def test_second_application_of_one_name_is_refused(server: MetadataServer) -> None:
    application = app(provider_id="a", settings={"server_url": server.publish("/a")})
    plan = read(openid_connect={"APPS": [application, {**application, "provider_id": "a "}]})
    assert list(plan.providers) == ["a"]
    assert any("declared already" in note.text for note in plan.notes)


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize(
    ("other", "refusal"),
    [
        ({"client_id": "second"}, ""),
        ({"settings": {"server_url": UNREACHABLE}}, "another issuer"),
        ({"settings": {"uid_field": "email"}}, "not the sub"),
    ],
    ids=["client", "issuer", "uid"],
)
def test_accounts_of_applications_with_one_name_are_linked_only_if_each_has_the_issuer(
    server: MetadataServer, other: Any, refusal: str, is_first: bool
) -> None:
    """SocialAccount.provider does not show from which application an account is."""
    issuer = server.publish("/shared")
    application = app(settings={"server_url": issuer})
    second = {**application, **other, "settings": {**application["settings"], **other.get("settings", {})}}
    applications = [second, application] if is_first else [application, second]
    declared = {"issuer": issuer, "client_id": "portal", "client_secret": "s", "subject_type": "public"}
    provider = parse_provider("openid_connect", {**declared, "allow_loopback_http": True})
    with override_settings(SOCIALACCOUNT_PROVIDERS={"openid_connect": {"APPS": applications}}):
        found = [find_refusal(item, provider) for item in list_applications()]
    assert [refusal in text and bool(text) == bool(refusal) for text in found] == [True, True], found


@pytest.mark.parametrize(
    ("name", "expected"),
    [("hospital", "hospital"), ("Øre klinik", "re-klinik"), ("--", "default"), ("x" * 80, "x" * 64)],
)
def test_name_of_a_provider_is_valid(name: str, expected: str) -> None:
    assert get_provider_name(name) == expected


def test_client_without_a_secret_is_named(server: MetadataServer) -> None:
    application = app(provider_id="a", secret="", settings={"server_url": server.publish("/a")})
    plan = read(openid_connect={"APPS": [application]})
    assert "a client without one is not supported" in plan.variables[0].meaning


def test_settings_without_an_equivalent_are_named(server: MetadataServer) -> None:
    with override_settings(
        SOCIALACCOUNT_EMAIL_AUTHENTICATION=True,
        SOCIALACCOUNT_STORE_TOKENS=True,
        SOCIALACCOUNT_ADAPTER="no.such.Adapter",
    ):
        plan = read_openid_connect(server, None, {"openid_configuration_overrides": {"token_endpoint": "x"}})
    assert "issuer and sub" in find_notes(plan, "SOCIALACCOUNT_EMAIL_AUTHENTICATION")
    assert "in clear" in find_notes(plan, "SOCIALACCOUNT_STORE_TOKENS")
    assert "cannot be imported" in find_notes(plan, "no.such.Adapter")
    assert "metadata_overrides" in find_notes(plan, "SOCIALACCOUNT_PROVIDERS['openid_connect']")
    plan = read_openid_connect(server)
    assert [note.subject for note in plan.notes] == ["hospital", "hospital: scope profile"]
