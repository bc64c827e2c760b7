"""The choice between several providers, and the URLs that start a sign-in."""

from urllib.parse import urlsplit

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.encoding import iri_to_uri
from django.utils.http import url_has_allowed_host_and_scheme, urlencode

from .. import conf
from ..access.step_up import MAX_RETURN_PATH_LENGTH


def needs_provider_selection() -> bool:
    """Return whether more than one provider is declared."""
    return len(conf.providers()) > 1


def render_provider_selection(request: HttpRequest) -> HttpResponse:
    """Return the page with a link for each provider, in the order of declaration. It shows only
    their labels.
    """
    next_url = parse_next_url(request)
    prompts_login = is_login_prompt_requested(request)
    ways = []
    for name, declaration in conf.providers().items():
        ways.append(
            {
                "label": declaration.label or name,
                "url": build_sign_in_url(name, next_url=next_url, prompts_login=prompts_login),
            }
        )
    return render(request, "django_phi_oidc/choose.html", {"ways": ways})


def build_sign_in_url(provider: str | None, *, next_url: str, prompts_login: bool = False) -> str:
    """Return the URL that starts a sign-in with that provider. None: with the only one, or the page
    to choose one.

    prompts_login: the provider asks for an authentication, even if it has a session.
    """
    kwargs = None
    if provider is not None:
        kwargs = {"provider": provider}

    url = reverse("oidc_authentication_init", kwargs=kwargs)

    query = {}
    if next_url:
        query["next"] = next_url
    if prompts_login:
        query["prompt"] = "login"

    if query:
        return f"{url}?{urlencode(query)}"
    return url


def is_login_prompt_requested(request: HttpRequest) -> bool:
    """Return whether the URL asks for a new authentication. Anyone may write such a URL: it only
    adds a prompt.
    """
    return request.GET.get("prompt") == "login"


def parse_next_url(request: HttpRequest) -> str:
    """Return `next` as `parse_local_url` does."""
    return parse_local_url(request, request.GET.get("next", ""))


def parse_local_url(request: HttpRequest, url: str) -> str:
    """Return the URL, encoded for a header; empty when it is on another host, relative or too long.

    A relative reference, such as `?page=2`, would lead from the callback URL to itself.
    """
    safe = url_has_allowed_host_and_scheme(
        url, allowed_hosts={request.get_host()}, require_https=request.is_secure()
    )
    if safe:
        encoded = iri_to_uri(url)
    else:
        encoded = ""

    parts = urlsplit(encoded)
    is_absolute = bool(parts.netloc) or parts.path.startswith("/")
    if is_absolute and len(encoded) <= MAX_RETURN_PATH_LENGTH:
        return encoded
    return ""
