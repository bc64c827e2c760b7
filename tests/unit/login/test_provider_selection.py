"""`next` of a sign-in: only a page of this host, named by an absolute path or URL."""

import pytest
from django.test import RequestFactory

from django_phi_oidc.login.provider_selection import parse_next_url


@pytest.mark.parametrize("url", ["/portal/", "/portal/?page=2#top", "https://testserver/a"])
def test_absolute_reference_to_this_host_is_kept(url: str) -> None:
    assert parse_next_url(RequestFactory().get("/", {"next": url}, secure=True)) == url


@pytest.mark.parametrize(
    "url", ["?a", "?next=/portal/", "#top", "portal/", "./portal/", "../portal/", " /portal/", "."]
)
def test_d11_relative_reference_is_ignored(url: str) -> None:
    assert parse_next_url(RequestFactory().get("/", {"next": url}, secure=True)) == ""


@pytest.mark.parametrize("url", ["//elsewhere.example/portal/", "https://elsewhere.example/", "http://testserver/"])
def test_reference_to_another_host_or_without_tls_is_ignored(url: str) -> None:
    assert parse_next_url(RequestFactory().get("/", {"next": url}, secure=True)) == ""
