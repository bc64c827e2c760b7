"""The URL at which a person enters an activation code."""

from django.urls import path

from .activation import ActivationView

urlpatterns = [path("activate/", ActivationView.as_view(), name="oidc_activate")]
