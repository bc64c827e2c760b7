"""The test portal and the metrics page for Prometheus."""

from django.urls import path

from django_phi_oidc.contrib.monitoring.prometheus import metrics
from tests.support.portal_urls import urlpatterns as portal_patterns

urlpatterns = [*portal_patterns, path("metrics/", metrics)]
