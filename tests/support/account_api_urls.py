"""The URLs of a project with the JSON views of a user's own account."""

from django.urls import include, path

urlpatterns = [
    path("oidc/", include("django_phi_oidc.urls")),
    path("api/account/", include("django_phi_oidc.contrib.account_api.account_urls")),
]
