"""URLs of emergency access."""

from django.urls import path

from ..._internal.view_decorators import public_view
from .views import EmergencyCloseView, EmergencyView

urlpatterns = [
    path("emergency/", public_view(EmergencyView.as_view()), name="oidc_emergency"),
    path(
        "emergency/<uuid:emergency>/close/",
        public_view(EmergencyCloseView.as_view()),
        name="oidc_emergency_close",
    ),
]
