"""URLs of SCIM 2.0, if a provider declares it: this imports scim2-models.

A system check reports a mistake in the setting.
"""

from contextlib import suppress

from django.urls import URLPattern, URLResolver, include, path

from ... import conf
from ...options import SettingInvalid

urlpatterns: list[URLPattern | URLResolver] = []

with suppress(SettingInvalid):
    if conf.scim():
        urlpatterns.append(path("scim/v2/", include("django_phi_oidc.contrib.scim.routes")))
