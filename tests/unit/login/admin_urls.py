"""A host project with the admin, but without the URLs of django_phi_oidc."""

from django.contrib import admin
from django.urls import path

urlpatterns = [path("admin/", admin.site.urls)]
