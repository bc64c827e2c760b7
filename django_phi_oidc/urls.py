"""URLs, with the names of mozilla-django-oidc, so that its templates keep working."""

from contextlib import suppress

from django.urls import include, path

from . import conf
from ._internal.view_decorators import public_view
from .contrib.emergency.views import EmergencyCloseView, EmergencyView
from .contrib.individual_rights.account_views import (
    AccountView,
    EndOtherSessionsView,
    EndSessionView,
    OwnDisclosuresView,
    OwnExportView,
)
from .contrib.invitations.activation import ActivationView
from .contrib.monitoring.health import HealthView
from .contrib.shared_signals.views import EventPushView
from .login.break_glass import BreakGlassLoginView
from .login.client_metadata import ClientKeysView, EntityConfigurationView, SectorIdentifierView
from .login.redirect_url import SignedInView
from .login.step_up import StepUpView
from .login.third_party import InitiateLoginView
from .login.views import OIDCAuthenticationCallbackView, OIDCAuthenticationRequestView
from .options import SettingInvalid
from .sessions.backchannel_logout import BackchannelLogoutView
from .sessions.frontchannel_logout import FrontchannelLogoutView
from .sessions.views import LoggedOutView, OIDCLogoutView, SessionTimeLeftView

urlpatterns = [
    path("authenticate/", OIDCAuthenticationRequestView.as_view(), name="oidc_authentication_init"),
    path(
        "callback/", OIDCAuthenticationCallbackView.as_view(), name="oidc_authentication_callback"
    ),
    path("initiate/", InitiateLoginView.as_view(), name="oidc_initiate_login"),
    path("signed-in/", SignedInView.as_view(), name="oidc_signed_in"),
    path("activate/", ActivationView.as_view(), name="oidc_activate"),
    path("step-up/", StepUpView.as_view(), name="oidc_step_up"),
    path("emergency/", public_view(EmergencyView.as_view()), name="oidc_emergency"),
    path(
        "emergency/<uuid:emergency>/close/",
        public_view(EmergencyCloseView.as_view()),
        name="oidc_emergency_close",
    ),
    path("account/", AccountView.as_view(), name="oidc_account"),
    path("account/disclosures/", OwnDisclosuresView.as_view(), name="oidc_account_disclosures"),
    path("account/export/", OwnExportView.as_view(), name="oidc_account_export"),
    path("account/sessions/end/", EndOtherSessionsView.as_view(), name="oidc_account_end_others"),
    path(
        "account/sessions/<uuid:session>/end/",
        EndSessionView.as_view(),
        name="oidc_account_end_session",
    ),
    path("logout/", OIDCLogoutView.as_view(), name="oidc_logout"),
    path("logged-out/", LoggedOutView.as_view(), name="oidc_logged_out"),
    path("session/", SessionTimeLeftView.as_view(), name="oidc_session"),
    path("backchannel-logout/", BackchannelLogoutView.as_view(), name="oidc_backchannel_logout"),
    path("frontchannel-logout/", FrontchannelLogoutView.as_view(), name="oidc_frontchannel_logout"),
    path("ssf/events/", EventPushView.as_view(), name="oidc_ssf_events"),
    path("local-login/", BreakGlassLoginView.as_view(), name="oidc_local_login"),
    path("health/", HealthView.as_view(), name="oidc_health"),
    path("jwks.json", ClientKeysView.as_view(), name="oidc_jwks"),
    path("sector-identifier.json", SectorIdentifierView.as_view(), name="oidc_sector_identifier"),
    path(
        ".well-known/openid-federation",
        EntityConfigurationView.as_view(),
        name="oidc_entity_configuration",
    ),
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

# Only if it is declared: this imports scim2-models. A mistake in the setting is reported by a
# system check.
with suppress(SettingInvalid):
    if conf.scim():
        urlpatterns.insert(0, path("scim/v2/", include("django_phi_oidc.contrib.scim.routes")))
