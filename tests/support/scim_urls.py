"""The tests' host project with the SCIM endpoint, which `django_phi_oidc.urls` includes only if SCIM is declared."""

from django.urls import include, path

from tests.unit.sessions.urls import urlpatterns as pages

urlpatterns = [path("oidc/scim/v2/", include("django_phi_oidc.contrib.scim.routes")), *pages]
