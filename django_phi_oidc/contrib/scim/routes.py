"""The URL of the SCIM endpoint: `django_phi_oidc.urls` includes it if SCIM is declared."""

from django.urls import path

from .views import SCIMView

urlpatterns = [
    path("", SCIMView.as_view(), name="oidc_scim"),
    path("<path:path>", SCIMView.as_view()),
]
