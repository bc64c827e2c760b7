"""The test portal with the SCIM endpoint."""

from django.urls import include, path

from tests.support.portal_urls import urlpatterns as pages

urlpatterns = [path("oidc/scim/v2/", include("django_phi_oidc.contrib.scim.routes")), *pages]
