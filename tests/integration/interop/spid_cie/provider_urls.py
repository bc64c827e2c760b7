"""The URLs of the trust anchor and of the provider, as the examples of spid_cie_oidc mount them."""

from django.urls import path
from spid_cie_oidc.authority.urls import urlpatterns as authority_urls
from spid_cie_oidc.entity.views import entity_configuration
from spid_cie_oidc.provider.urls import urlpatterns as provider_urls

urlpatterns = [
    path("ta/.well-known/openid-federation", entity_configuration),
    path("oidc/op/.well-known/openid-federation", entity_configuration),
    *authority_urls,
    *provider_urls,
]
