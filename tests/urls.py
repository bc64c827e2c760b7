"""URLs of the tests' host project."""

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("oidc/", include("django_phi_oidc.urls")),
    path("admin/", admin.site.urls),
]
