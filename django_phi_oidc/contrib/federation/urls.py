"""The URL of the entity configuration. Spec: OpenID Federation 1.0 9."""

from django.urls import path

from .views import EntityConfigurationView

urlpatterns = [
    path(
        ".well-known/openid-federation",
        EntityConfigurationView.as_view(),
        name="oidc_entity_configuration",
    ),
]
