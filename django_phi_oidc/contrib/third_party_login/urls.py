"""The URL to register as `initiate_login_uri`. Spec: OIDC Core 4."""

from django.urls import path

from .views import InitiateLoginView

urlpatterns = [
    path("initiate/", InitiateLoginView.as_view(), name="oidc_initiate_login"),
]
