"""The URLs of the provider, as the documentation of django-oauth-toolkit mounts them, and its claims."""

from typing import Any

from django.contrib.auth.views import LoginView
from django.urls import include, path
from oauth2_provider.oauth2_validators import OAuth2Validator


class ClaimsValidator(OAuth2Validator):
    """Adds the claims of the granted scopes to the ID Token and UserInfo."""

    def get_additional_claims(self) -> dict[str, Any]:
        return {
            "name": lambda request: request.user.get_full_name(),
            "birthdate": lambda request: "1984-03-09",
            "address": lambda request: {"locality": "Hill Valley", "street_address": "3 Lake Road"},
        }


urlpatterns = [
    path("o/", include("oauth2_provider.urls", namespace="oauth2_provider")),
    path("accounts/login/", LoginView.as_view()),
]
