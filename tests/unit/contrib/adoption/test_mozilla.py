"""The settings of mozilla-django-oidc and their equivalents. tests/integration/adoption has complete projects."""

import os
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import pytest
from django.test import override_settings

from django_phi_oidc.backends import OIDCAuthenticationBackend
from django_phi_oidc.contrib.adoption.mozilla import has_settings, read_mozilla_settings
from django_phi_oidc.contrib.adoption.settings_plan import (
    SettingsPlan,
    describe_plan,
    format_plan,
    format_settings,
    list_variables,
)
from django_phi_oidc.options import list_mistakes, list_unknown_options
from tests.docs.test_docs import free_port
from tests.unit.contrib.adoption.metadata_server import MetadataServer, run_metadata_server

SECRET = "a-client-secret-that-is-never-printed"
REALM = "/realms/hospital"


@pytest.fixture(scope="module")
def server() -> Iterator[MetadataServer]:
    with run_metadata_server() as server:
        yield server


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "REQUESTS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)


def build_settings(server: MetadataServer, **changed: Any) -> dict[str, Any]:
    protocol = f"{server.base}{REALM}/protocol/openid-connect"
    return {
        "OIDC_RP_CLIENT_ID": "portal",
        "OIDC_RP_CLIENT_SECRET": SECRET,
        "OIDC_RP_SIGN_ALGO": "RS256",
        "OIDC_OP_AUTHORIZATION_ENDPOINT": f"{protocol}/auth",
        "OIDC_OP_TOKEN_ENDPOINT": f"{protocol}/token",
        "OIDC_OP_JWKS_ENDPOINT": f"{protocol}/certs",
        **changed,
    }


def read(server: MetadataServer, metadata: dict[str, Any] | None = None, **changed: Any) -> SettingsPlan:
    server.documents.clear()
    server.publish(REALM, **(metadata or {}))
    with override_settings(**build_settings(server, **changed)):
        return read_mozilla_settings()


def get_options(plan: SettingsPlan) -> dict[str, Any]:
    """Return the options of the provider that the printed settings declare, after a check of their validity."""
    environment = {item.name: item.value or "https://from.example" for item in list_variables(plan)}
    environment |= {f"PHI_{ring}_KEYS": "x" for ring in ("ENCRYPTION", "SUBJECT", "AUDIT_MAC")}
    names: dict[str, Any] = {}
    with patch.dict(os.environ, environment):
        exec(format_plan(plan), names)
    with override_settings(PHI_OIDC=names["PHI_OIDC"]):
        assert (list_unknown_options(), list_mistakes()) == ([], [])
    return dict(names["PHI_OIDC"]["PROVIDERS"]["default"])


def find_notes(plan: SettingsPlan, subject: str) -> list[str]:
    return [note.text for note in plan.notes if note.subject == subject]


def test_usual_settings_become_a_short_valid_declaration(server: MetadataServer) -> None:
    plan = read(server)
    assert get_options(plan) == {
        "issuer": f"{server.base}{REALM}",
        "client_id": "portal",
        "client_secret": "https://from.example",
        "allow_loopback_http": True,
        "token_endpoint_auth_method": "client_secret_post",
    }
    assert list(plan.claims) == ["email"]
    assert len(format_settings(plan).splitlines()) <= 15


@pytest.mark.parametrize(
    ("changed", "option", "value"),
    [
        ({"OIDC_TOKEN_USE_BASIC_AUTH": True}, "token_endpoint_auth_method", None),
        ({"OIDC_CREATE_USER": False}, "provisioning", "existing"),
        ({"OIDC_CREATE_USER": True}, "provisioning", None),
        ({"OIDC_VERIFY_SSL": "/etc/ssl/op.pem"}, "ca_bundle", "/etc/ssl/op.pem"),
        ({"OIDC_PROXY": {"https": "http://user:pw@proxy:1"}}, "proxy", "https://from.example"),
        ({"OIDC_AUTH_REQUEST_EXTRA_PARAMS": {"prompt": "login"}}, "authorization_parameters", {"prompt": "login"}),
        ({"OIDC_AUTH_REQUEST_EXTRA_PARAMS": {"max_age": "60"}}, "max_age", 60),
        ({"OIDC_AUTH_REQUEST_EXTRA_PARAMS": {"acr_values": "a b"}}, "acr_values", ["a", "b"]),
        ({"OIDC_AUTH_REQUEST_EXTRA_PARAMS": {"nonce": "x"}}, "authorization_parameters", None),
        (
            {"OIDC_RP_SCOPES": "openid offline_access"},
            "resource_scopes",
            {"offline_access": {"purpose": "HOPERAT", "basis": "FILL IN: why the portal may request it"}},
        ),
    ],
)
def test_setting_becomes_an_option(server: MetadataServer, changed: Any, option: str, value: Any) -> None:
    # A proxy or a CA file that does not exist: the metadata cannot be fetched.
    assert get_options(read(server, **changed)).get(option) == value


@pytest.mark.parametrize(
    ("metadata", "option", "value"),
    [
        ({}, "subject_type", None),
        ({"subject_types_supported": ["public"]}, "subject_type", "public"),
        ({"subject_types_supported": ["pairwise"]}, "subject_type", None),
        ({"revocation_endpoint": None}, "revocation", "best_effort"),
        ({}, "revocation", None),
    ],
)
def test_metadata_decide_an_option(server: MetadataServer, metadata: Any, option: str, value: Any) -> None:
    assert get_options(read(server, metadata)).get(option) == value


@pytest.mark.parametrize(
    ("subject", "changed", "harmless", "text"),
    [
        ("OIDC_RP_SIGN_ALGO", {"OIDC_RP_SIGN_ALGO": "HS256"}, {"OIDC_RP_SIGN_ALGO": "ES256"}, "client secret"),
        ("OIDC_RP_SIGN_ALGO", {"OIDC_RP_SIGN_ALGO": None}, {"OIDC_RP_SIGN_ALGO": "RS256"}, "default"),
        ("OIDC_RP_SIGN_ALGO", {"OIDC_RP_SIGN_ALGO": "RS512"}, {"OIDC_RP_SIGN_ALGO": "PS256"}, "not supported"),
        ("OIDC_RP_CLIENT_SECRET", {"OIDC_RP_CLIENT_SECRET": ""}, {}, "without a secret"),
        ("OIDC_RP_IDP_SIGN_KEY", {"OIDC_RP_IDP_SIGN_KEY": "pem"}, {}, "jwks_uri"),
        ("OIDC_USERNAME_ALGO", {"OIDC_USERNAME_ALGO": "a.b"}, {}, "get_username"),
        ("OIDC_VERIFY_SSL", {"OIDC_VERIFY_SSL": False}, {"OIDC_VERIFY_SSL": True}, "ca_bundle"),
        ("OIDC_PROXY", {"OIDC_PROXY": {"https": "socks5://x"}}, {"OIDC_PROXY": {"http": "http://x"}}, "https URL"),
        ("OIDC_USE_NONCE", {"OIDC_USE_NONCE": False}, {"OIDC_USE_NONCE": True}, "nonce"),
        ("OIDC_RP_SCOPES profile", {"OIDC_RP_SCOPES": "openid profile"}, {"OIDC_RP_SCOPES": "openid"}, "CLAIMS"),
        (
            "OIDC_AUTH_REQUEST_EXTRA_PARAMS claims",
            {"OIDC_AUTH_REQUEST_EXTRA_PARAMS": {"claims": "{}"}},
            {"OIDC_AUTH_REQUEST_EXTRA_PARAMS": {"ui_locales": "sv"}},
            "protocol code",
        ),
        ("LOGIN_REDIRECT_URL_FAILURE", {"LOGIN_REDIRECT_URL_FAILURE": "/failed"}, {}, "login_failed.html"),
        ("OIDC_STORE_ACCESS_TOKEN", {"OIDC_STORE_ACCESS_TOKEN": True}, {}, "get_access_token"),
        ("OIDC_OP_LOGOUT_URL_METHOD", {"OIDC_OP_LOGOUT_URL_METHOD": "a.b"}, {}, "metadata"),
        (
            "OIDC_OP_TOKEN_ENDPOINT",
            {"OIDC_OP_TOKEN_ENDPOINT": "https://inside.example/token"},
            {},
            "metadata_overrides",
        ),
    ],
)
def test_setting_without_an_equivalent_is_named(
    server: MetadataServer, subject: str, changed: Any, harmless: Any, text: str
) -> None:
    (note,) = find_notes(read(server, **changed), subject)
    assert text in note
    assert find_notes(read(server, **harmless), subject) == []


def test_environment_of_requests_is_named_because_it_is_not_read(
    server: MetadataServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    assert "proxy" in find_notes(read(server), "HTTPS_PROXY")[0]


def test_secret_is_nowhere_in_the_output(server: MetadataServer) -> None:
    plan = read(
        server, OIDC_PROXY={"https": f"http://user:{SECRET}@127.0.0.1:{free_port()}"}, OIDC_RP_IDP_SIGN_KEY=SECRET
    )
    assert SECRET not in format_plan(plan)
    assert SECRET not in repr(describe_plan(plan))
    assert [item.name for item in plan.variables] == ["OIDC_CLIENT_SECRET", "OIDC_ISSUER", "OIDC_PROXY"]


def test_issuer_that_is_not_found_is_an_environment_variable(server: MetadataServer) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    names = ("OIDC_OP_AUTHORIZATION_ENDPOINT", "OIDC_OP_TOKEN_ENDPOINT", "OIDC_OP_JWKS_ENDPOINT")
    plan = read(server, **{name: f"{nowhere}/{name}" for name in names})
    assert str(plan.providers["default"]["issuer"]) == 'read_variable("OIDC_ISSUER")'
    assert "OIDC_ISSUER" in [item.name for item in plan.variables]


class Hooks(OIDCAuthenticationBackend):
    """Derives from the backend of this package, so that it is no left-over."""


def test_overridden_hooks_of_the_backend_are_named_with_their_counterparts(server: MetadataServer) -> None:
    path = "tests.unit.contrib.adoption.mozilla_classes"
    plan = read(
        server,
        AUTHENTICATION_BACKENDS=[f"{path}.PortalBackend", "django.contrib.auth.backends.ModelBackend"],
        MIDDLEWARE=[f"{path}.PortalRefresh"],
        OIDC_CALLBACK_CLASS=f"{path}.PortalCallback",
        REST_FRAMEWORK={"DEFAULT_AUTHENTICATION_CLASSES": ["mozilla_django_oidc.contrib.drf.OIDCAuthentication"]},
    )
    assert "derives from" in find_notes(plan, f"{path}.PortalBackend.create_user")[0]
    assert "issuer and sub" in find_notes(plan, f"{path}.PortalBackend.filter_users_by_claims")[0]
    assert "PermissionDenied" in find_notes(plan, f"{path}.PortalBackend.verify_claims")[0]
    assert find_notes(plan, f"{path}.PortalBackend.get_username") == [], "not overridden"
    assert find_notes(plan, f"{path}.PortalBackend.helper") == [], "no hook"
    assert "LOGIN_REDIRECT_URL" in find_notes(plan, f"{path}.PortalCallback.success_url")[0]
    assert "900 s" in find_notes(plan, f"{path}.PortalRefresh")[0]
    assert "API" in find_notes(plan, "mozilla_django_oidc.contrib.drf.OIDCAuthentication")[0]
    text = "\n".join(plan.removals)
    assert f"{path}.PortalBackend in AUTHENTICATION_BACKENDS" in text
    assert f"{path}.PortalRefresh in MIDDLEWARE" in text
    assert "ModelBackend in AUTHENTICATION_BACKENDS" in text
    assert "OIDC_RP_CLIENT_ID" in text


def test_backend_with_settings_of_its_own_is_read_as_far_as_possible(server: MetadataServer) -> None:
    path = "tests.unit.contrib.adoption.mozilla_classes.PortalBackend"
    with override_settings(AUTHENTICATION_BACKENDS=[path]):
        assert has_settings()
        plan = read_mozilla_settings()
    assert not has_settings()
    assert [item.name for item in plan.variables] == ["OIDC_CLIENT_SECRET", "OIDC_ISSUER", "OIDC_CLIENT_ID"]
    assert "only the settings themselves" in find_notes(plan, f"{path}.get_settings")[0]


def test_class_that_cannot_be_imported_is_named(server: MetadataServer) -> None:
    plan = read(server, OIDC_AUTHENTICATE_CLASS="no.such.View")
    assert "cannot be imported" in find_notes(plan, "no.such.View")[0]


def test_backend_of_this_package_is_not_named(server: MetadataServer) -> None:
    plan = read(server, AUTHENTICATION_BACKENDS=[f"{__name__}.Hooks"])
    assert not any("AUTHENTICATION_BACKENDS" in removal for removal in plan.removals)


def test_redirect_uri_is_named_only_if_it_changes(server: MetadataServer) -> None:
    with override_settings(ROOT_URLCONF="tests.support.portal_urls"):
        assert read(server).redirect_uris == []
    with override_settings(ROOT_URLCONF="tests.urls"):
        assert read(server, OIDC_AUTHENTICATION_CALLBACK_URL="no_such_name").redirect_uris == ["/oidc/callback/"]
