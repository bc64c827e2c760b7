"""The portal of the journeys, with the page that Prometheus scrapes."""

from django.urls import path

from django_phi_oidc.metrics.prometheus import metrics
from tests.support.portal_urls import urlpatterns as of_the_portal

urlpatterns = [*of_the_portal, path("metrics/", metrics)]
