"""The URLs of the portal."""

from django.contrib import admin
from django.urls import include, path

from . import charts, views

urlpatterns = [
    path("", views.home, name="home"),
    path("portal/", views.portal, name="portal"),
    path("portal/profile/", views.Profile.as_view(), name="profile"),
    path("portal/access/", views.Access.as_view(), name="access"),
    path("portal/chart/", charts.OwnChart.as_view(), name="own_chart"),
    path("portal/chart/<int:pk>/", charts.PatientChart.as_view(), name="chart"),
    path("portal/patients/", charts.patients, name="patients"),
    path("healthz", views.healthz, name="healthz"),
    path("admin/login/", views.admin_login),
    path("admin/", admin.site.urls),
    path("oidc/", include("django_phi_oidc.urls")),
]
handler403 = "portal.views.denied"
handler404 = "portal.views.not_found"
handler500 = "portal.views.broken"
