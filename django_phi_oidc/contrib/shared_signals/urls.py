"""The URL to which a transmitter pushes security events."""

from django.urls import path

from .views import EventPushView

urlpatterns = [path("ssf/events/", EventPushView.as_view(), name="oidc_ssf_events")]
