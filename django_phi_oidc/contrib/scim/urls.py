"""The URLs of the SCIM endpoint."""

from django.urls import path

from .views import SCIMView

urlpatterns = [
    path("scim/v2/", SCIMView.as_view(), name="oidc_scim"),
    path("scim/v2/<path:path>", SCIMView.as_view()),
]
