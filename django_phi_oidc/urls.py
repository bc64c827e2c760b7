"""URLs, with the names of mozilla-django-oidc, so that its templates keep working.

Those of the apps that are installed follow.
"""

from django.urls import URLPattern, URLResolver, path

from ._internal.app_configs import list_installed_features
from .login.client_metadata import ClientKeysView, SectorIdentifierView
from .login.redirect_url import SignedInView
from .login.step_up import StepUpView
from .login.views import OIDCAuthenticationCallbackView, OIDCAuthenticationRequestView
from .sessions.backchannel_logout import BackchannelLogoutView
from .sessions.frontchannel_logout import FrontchannelLogoutView
from .sessions.timeout_responses import SessionTimeLeftView
from .sessions.user_logout import LoggedOutView, OIDCLogoutView

urlpatterns: list[URLPattern | URLResolver] = [
    path("authenticate/", OIDCAuthenticationRequestView.as_view(), name="oidc_authentication_init"),
    path(
        "callback/", OIDCAuthenticationCallbackView.as_view(), name="oidc_authentication_callback"
    ),
    path("signed-in/", SignedInView.as_view(), name="oidc_signed_in"),
    path("step-up/", StepUpView.as_view(), name="oidc_step_up"),
    path("logout/", OIDCLogoutView.as_view(), name="oidc_logout"),
    path("logged-out/", LoggedOutView.as_view(), name="oidc_logged_out"),
    path("session/", SessionTimeLeftView.as_view(), name="oidc_session"),
    path("backchannel-logout/", BackchannelLogoutView.as_view(), name="oidc_backchannel_logout"),
    path("frontchannel-logout/", FrontchannelLogoutView.as_view(), name="oidc_frontchannel_logout"),
    path("jwks.json", ClientKeysView.as_view(), name="oidc_jwks"),
    path("sector-identifier.json", SectorIdentifierView.as_view(), name="oidc_sector_identifier"),
    path(
        "<str:provider>/authenticate/",
        OIDCAuthenticationRequestView.as_view(),
        name="oidc_authentication_init",
    ),
    path(
        "<str:provider>/callback/",
        OIDCAuthenticationCallbackView.as_view(),
        name="oidc_authentication_callback",
    ),
    path("<str:provider>/logout/", OIDCLogoutView.as_view(), name="oidc_logout"),
]

for _config in list_installed_features():
    if _config.name != __package__:
        _module = _config.find_module("urls")
        if _module is not None:
            urlpatterns += _module.urlpatterns
