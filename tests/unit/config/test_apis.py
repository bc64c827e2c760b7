"""What may stand in `API`, and what is said of what may not."""

from datetime import timedelta
from typing import Any

import pytest
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured

from django_phi_oidc import conf
from django_phi_oidc.config.apis import parse_api
from django_phi_oidc.errors import DeclarationInvalid

GOOD: dict[str, Any] = {
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


def test_declaration_says_what_scopes_permit() -> None:
    api = parse_api("default", GOOD)
    assert api.introspection_cache == timedelta(seconds=5)
    assert api.get_permissions(["chart.read"]) == {"portal.view_chart"}
    assert api.get_permissions(["chart.read", "chart.write"]) == {"portal.view_chart", "portal.change_chart"}
    assert api.get_permissions(["x", "undeclared"]) == api.get_permissions([]) == frozenset()
    assert api.get_scopes("portal.view_chart") == ("chart.read", "chart.write")
    assert api.get_scopes("portal.delete_chart") == ()
    assert api.clients == {"app"}
    least = parse_api("default", {"audience": "api", "method": "jwt"})
    assert (least.introspection_cache, least.clients) == (timedelta(seconds=10), None)


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
def test_declaration_that_is_wrong_names_the_option(changed: dict[str, Any], named: str) -> None:
    assert parse_api("default", GOOD)
    with pytest.raises(DeclarationInvalid, match=named):
        parse_api("default", {**GOOD, **changed})


@pytest.mark.parametrize("missing", ["audience", "method"])
def test_declaration_lacks_nothing(missing: str) -> None:
    with pytest.raises(DeclarationInvalid, match=missing):
        parse_api("default", {name: value for name, value in GOOD.items() if name != missing})
    with pytest.raises(DeclarationInvalid, match="dictionary"):
        parse_api("default", [GOOD])


def found(settings: Any, apis: Any, **providers: Any) -> set[str]:
    declared = {**settings.PHI_OIDC["PROVIDERS"], **providers}
    settings.PHI_OIDC = {**settings.PHI_OIDC, "API": apis, "PROVIDERS": declared}
    return {f"{message.id}".rpartition(".")[2] + f" {message.msg}" for message in run_checks()}


def test_checks_tell_of_what_can_not_work(settings: Any) -> None:
    other = {"issuer": "https://other.example", "client_id": "x", "client_secret": "s"}

    def told(apis: Any, number: str) -> list[str]:
        return [text for text in found(settings, apis, other=other) if text.startswith(number)]

    assert told({"default": GOOD, "other": {**GOOD, "method": "jwt"}}, "E026") == []
    assert "no such provider" in told({"elsewhere": GOOD}, "E026")[0]
    assert "audience of ID Tokens" in told({"other": {**GOOD, "audience": "x"}}, "E026")[0]
    assert "each other" in told({"default": GOOD, "other": GOOD}, "E026")[0]
    assert "'method'" in told({"default": {**GOOD, "method": "x"}}, "E002")[0]
    with pytest.raises(ImproperlyConfigured):
        conf.apis()


def test_check_warns_of_transactions_around_the_question(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = found(settings, {"default": GOOD})
    monkeypatch.setitem(settings.DATABASES["default"], "ATOMIC_REQUESTS", True)
    assert {text[:4] for text in found(settings, {"default": GOOD}) - plain} >= {"W026"}
    assert not any(text.startswith("W026") for text in plain | found(settings, {}))
