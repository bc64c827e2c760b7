"""The URLs of the JSON views of a user's own account, to be included in a project's URLs."""

from django.urls import path

from ..._internal.view_decorators import public_view
from .account import DisclosuresView, HeldClaimsView, OtherSessionView, OwnDataView, SessionsView

urlpatterns = [
    path("sessions/", public_view(SessionsView.as_view()), name="oidc_account_api_sessions"),
    path(
        "sessions/<uuid:session>/",
        public_view(OtherSessionView.as_view()),
        name="oidc_account_api_session",
    ),
    path(
        "disclosures/", public_view(DisclosuresView.as_view()), name="oidc_account_api_disclosures"
    ),
    path("claims/", public_view(HeldClaimsView.as_view()), name="oidc_account_api_claims"),
    path("export/", public_view(OwnDataView.as_view()), name="oidc_account_api_export"),
]
