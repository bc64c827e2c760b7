"""The option `API`: valid and invalid declarations."""

from datetime import timedelta
from typing import Any

import pytest
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured

from django_phi_oidc.contrib.apis import conf as apis_conf
from django_phi_oidc.contrib.apis.declaration import parse_api
from django_phi_oidc.errors import DeclarationInvalid

VALID: dict[str, Any] = {
    "audience": "https://portal.example/api",
    "method": "introspection",
    "scopes": {
        "chart.read": ["portal.view_chart"],
        "chart.write": ["portal.view_chart", "portal.change_chart"],
        "x": [],
    },
    "introspection_cache": 5,
    "clients": ["app"],
}


def test_permissions_of_scopes() -> None:
    api = parse_api("default", VALID)
    assert api.introspection_cache == timedelta(seconds=5)
    assert api.get_permissions(["chart.read"]) == {"portal.view_chart"}
    assert api.get_permissions(["chart.read", "chart.write"]) == {"portal.view_chart", "portal.change_chart"}
    assert api.get_permissions(["x", "undeclared"]) == api.get_permissions([]) == frozenset()
    assert api.get_scopes("portal.view_chart") == ("chart.read", "chart.write")
    assert api.get_scopes("portal.delete_chart") == ()
    assert api.clients == {"app"}
    defaults = parse_api("default", {"audience": "api", "method": "jwt"})
    assert (defaults.introspection_cache, defaults.clients) == (timedelta(seconds=10), None)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"audience": ""}, "'audience'"),
        ({"audience": "two words"}, "'audience'"),
        ({"audience": ["a"]}, "'audience'"),
        ({"method": "userinfo"}, "'method'"),
        ({"method": None}, "'method'"),
        ({"scopes": ["chart.read"]}, "'scopes'"),
        ({"scopes": {"chart read": []}}, "'scopes'"),
        ({"scopes": {'chart"': []}}, "'scopes'"),
        ({"scopes": {"chart.read": "portal.view_chart"}}, "'chart.read'"),
        ({"scopes": {"chart.read": [""]}}, "'chart.read'"),
        ({"introspection_cache": 61}, "'introspection_cache'"),
        ({"introspection_cache": timedelta(seconds=-1)}, "'introspection_cache'"),
        ({"introspection_cache": True}, "'introspection_cache'"),
        ({"introspection_cache": float("nan")}, "'introspection_cache'"),
        ({"clients": []}, "'clients'"),
        ({"clients": "app"}, "'clients'"),
        ({"clients": ["app", ""]}, "'clients'"),
        ({"audiences": []}, "audiences"),
    ],
)
def test_wrong_option_is_named(changed: dict[str, Any], named: str) -> None:
    assert parse_api("default", VALID)
    with pytest.raises(DeclarationInvalid, match=named):
        parse_api("default", {**VALID, **changed})


@pytest.mark.parametrize("missing", ["audience", "method"])
def test_missing_option_is_named(missing: str) -> None:
    with pytest.raises(DeclarationInvalid, match=missing):
        parse_api("default", {name: value for name, value in VALID.items() if name != missing})
    with pytest.raises(DeclarationInvalid, match="dictionary"):
        parse_api("default", [VALID])


def find_messages(settings: Any, apis: Any, **providers: Any) -> set[str]:
    declared = {**settings.PHI_OIDC["PROVIDERS"], **providers}
    settings.PHI_OIDC = {**settings.PHI_OIDC, "API": apis, "PROVIDERS": declared}
    return {f"{message.id}".rpartition(".")[2] + f" {message.msg}" for message in run_checks()}


@pytest.mark.django_db
def test_checks_report_declarations_that_can_not_work(settings: Any) -> None:
    other = {"issuer": "https://other.example", "client_id": "x", "client_secret": "s"}

    def find_messages_of(apis: Any, number: str) -> list[str]:
        return [text for text in find_messages(settings, apis, other=other) if text.startswith(number)]

    assert find_messages_of({"default": VALID, "other": {**VALID, "method": "jwt"}}, "E026") == []
    assert "no such provider" in find_messages_of({"elsewhere": VALID}, "E026")[0]
    assert "audience of ID Tokens" in find_messages_of({"other": {**VALID, "audience": "x"}}, "E026")[0]
    assert "each other" in find_messages_of({"default": VALID, "other": VALID}, "E026")[0]
    assert "'method'" in find_messages_of({"default": {**VALID, "method": "x"}}, "E002")[0]
    with pytest.raises(ImproperlyConfigured):
        apis_conf.apis()


@pytest.mark.django_db
def test_check_warns_of_transactions_during_introspection(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = find_messages(settings, {"default": VALID})
    monkeypatch.setitem(settings.DATABASES["default"], "ATOMIC_REQUESTS", True)
    assert {text[:4] for text in find_messages(settings, {"default": VALID}) - plain} >= {"W026"}
    assert not any(text.startswith("W026") for text in plain | find_messages(settings, {}))
