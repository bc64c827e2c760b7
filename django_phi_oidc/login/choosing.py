"""Where a sign-in begins: at the one provider, or, where several are declared, on the page that asks which."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.encoding import iri_to_uri
from django.utils.http import url_has_allowed_host_and_scheme, urlencode

from .. import conf
from ..access.stepping import LONGEST_NEXT


def must_choose() -> bool:
    """Say whether there is more than one provider to sign in with."""
    return len(conf.providers()) > 1


def choose(request: HttpRequest) -> HttpResponse:
    """Return the page with a link for each provider, in the order declared. It tells their labels and nothing else."""
    next_url = read_next(request)
    ways = [
        {"label": declared.label or name, "url": begin_url(name, next_url=next_url)}
        for name, declared in conf.providers().items()
    ]
    return render(request, "django_phi_oidc/choose.html", {"ways": ways})


def begin_url(provider: str | None, *, next_url: str) -> str:
    """Return the URL that begins a sign-in there; without a provider, the one that asks where there is a choice."""
    url = reverse("oidc_authentication_init", kwargs={"provider": provider} if provider is not None else None)
    return f"{url}?{urlencode({'next': next_url})}" if next_url else url


def read_next(request: HttpRequest) -> str:
    """Return the page to go to after the sign-in, as a header takes it; empty when it is not ours."""
    url = request.GET.get("next", "")
    safe = url_has_allowed_host_and_scheme(url, allowed_hosts={request.get_host()}, require_https=request.is_secure())
    encoded = iri_to_uri(url) if safe else ""
    return encoded if len(encoded) <= LONGEST_NEXT else ""
