"""URLs of *Your access*, the pages of a user's own account."""

from django.urls import path

from .account_views import (
    AccountView,
    EndOtherSessionsView,
    EndSessionView,
    OwnDisclosuresView,
    OwnExportView,
)

urlpatterns = [
    path("account/", AccountView.as_view(), name="oidc_account"),
    path("account/disclosures/", OwnDisclosuresView.as_view(), name="oidc_account_disclosures"),
    path("account/export/", OwnExportView.as_view(), name="oidc_account_export"),
    path("account/sessions/end/", EndOtherSessionsView.as_view(), name="oidc_account_end_others"),
    path(
        "account/sessions/<uuid:session>/end/",
        EndSessionView.as_view(),
        name="oidc_account_end_session",
    ),
]
