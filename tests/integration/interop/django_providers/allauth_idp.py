"""The identity provider of django-allauth: its URLs and its client."""

from typing import Any

from allauth.idp.oidc.models import Client
from django.urls import include, path


def register_client(client: dict[str, Any]) -> None:
    row = Client(id=client["client_id"], name="Portal", skip_consent=False)
    row.set_secret(client["client_secret"])
    row.set_scopes(["openid", "profile", "address"])
    row.set_redirect_uris([client["redirect_uri"]])
    row.set_grant_types(["authorization_code", "refresh_token"])
    row.set_post_logout_redirect_uris([client["post_logout_redirect_uri"]])
    row.save()


urlpatterns = [
    path("accounts/", include("allauth.account.urls")),
    path("", include("allauth.idp.urls")),
]
