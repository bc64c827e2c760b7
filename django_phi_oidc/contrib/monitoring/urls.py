"""The URL of the health check."""

from django.urls import path

from .health import HealthView

urlpatterns = [path("health/", HealthView.as_view(), name="oidc_health")]
