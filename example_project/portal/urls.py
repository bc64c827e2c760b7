"""Routes of the portal."""

from django.contrib import admin
from django.urls import include, path

from . import views

urlpatterns = [
    path("", views.home, name="home"),
    path("portal/", views.portal, name="portal"),
    path("portal/profile/", views.Profile.as_view(), name="profile"),
    path("healthz", views.healthz, name="healthz"),
    path("admin/login/", views.admin_login),
    path("admin/", admin.site.urls),
    path("oidc/", include("django_phi_oidc.urls")),
]
handler404 = "portal.views.not_found"
handler500 = "portal.views.broken"
