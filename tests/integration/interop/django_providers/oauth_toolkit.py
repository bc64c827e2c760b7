"""django-oauth-toolkit: the URLs, as its documentation mounts them, its claims and its client."""

from typing import Any

from django.contrib.auth.views import LoginView
from django.urls import include, path
from oauth2_provider.models import get_application_model
from oauth2_provider.oauth2_validators import OAuth2Validator

ISSUER_PATH = "/o"


class ClaimsValidator(OAuth2Validator):
    """Adds the claims of the granted scopes to the ID Token and UserInfo."""

    def get_additional_claims(self) -> dict[str, Any]:
        return {
            "name": lambda request: request.user.get_full_name(),
            "birthdate": lambda request: "1984-03-09",
            "address": lambda request: {"locality": "Hill Valley", "street_address": "3 Lake Road"},
        }


def register_client(client: dict[str, Any]) -> None:
    get_application_model().objects.create(
        client_id=client["client_id"],
        client_secret=client["client_secret"],
        client_type="confidential",
        authorization_grant_type="authorization-code",
        algorithm="RS256",
        redirect_uris=client["redirect_uri"],
        post_logout_redirect_uris=client["post_logout_redirect_uri"],
        skip_authorization=True,
    )


urlpatterns = [
    path("o/", include("oauth2_provider.urls", namespace="oauth2_provider")),
    path("accounts/login/", LoginView.as_view()),
]
