"""The URL of the sign-in with a password."""

from django.urls import path

from .break_glass import BreakGlassLoginView

urlpatterns = [
    path("local-login/", BreakGlassLoginView.as_view(), name="oidc_local_login"),
]
