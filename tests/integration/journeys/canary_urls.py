"""Pages that reveal claims, use masked claims, or raise an exception after revealing claims."""

from collections.abc import Iterator
from urllib.parse import quote

from django.contrib.auth.decorators import login_required
from django.contrib.auth.mixins import LoginRequiredMixin
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.template import engines
from django.template.response import TemplateResponse
from django.urls import path
from django.views.generic import TemplateView

from django_phi_oidc.audit.request_context import Actor
from django_phi_oidc.claims.disclosure import reveal, reveal_many
from django_phi_oidc.claims.masking import MaskedClaim
from django_phi_oidc.claims.views import RevealMixin
from tests.support.portal_urls import urlpatterns as portal

NAMES = ("birthdate", "address", "phone_number", "nickname", "ssn")
PAGE = """<title>{{ purpose }} {{ nowhere }}</title>{% csrf_token %}
{% for claim in claims %}
<p>{{ claim.declared.name }}: {{ claim.masked }} {{ claim.revealed.value }} {{ claim }}</p>
{% endfor %}
{{ form }}"""
TAG = '{% load phi_oidc %}{{ nowhere }}{% reveal claim purpose="TREAT" %}'


class Profile(LoginRequiredMixin, RevealMixin, TemplateView):
    """The user's claims. Undefined variables make Django log the whole template context."""

    def render_to_response(self, context: object, **kwargs: object) -> HttpResponse:
        page = engines["django"].from_string(PAGE)
        return TemplateResponse(self.request, page, context, status=kwargs.get("status", 200))  # type: ignore[arg-type]


@login_required
def by_tag(request: HttpRequest) -> HttpResponse:
    claim = MaskedClaim(Actor.from_request(request), request.user, "birthdate")
    more = "{% include missing %}" if request.GET.get("fail") else ""
    context = {"claim": claim, "missing": "no-such-template.html"}
    return TemplateResponse(request, engines["django"].from_string(TAG + more), context)


@login_required
def streamed(request: HttpRequest) -> StreamingHttpResponse:
    def parts() -> Iterator[str]:
        yield "Born on "
        yield reveal(Actor.from_request(request), request.user, "birthdate", purpose="TREAT")

    return StreamingHttpResponse(parts())


@login_required
def fail(request: HttpRequest) -> HttpResponse:
    """Reveal all claims and raise. Without ?reveal=1, raise with a variable that an error report shows."""
    if request.GET.get("reveal"):
        revealed = reveal_many(Actor.from_request(request), [request.user], NAMES, purpose="PATRQT")
        values = [claim.value for claim in revealed[request.user.pk].values()]
    else:
        values = [request.GET.get("control", "")]
    raise RuntimeError(f"with {len(values)} values")


@login_required
def by_accident(request: HttpRequest) -> HttpResponse:
    """Write masked claims to session, body and cookie. With ?echo=, write that text to header and body."""
    if "echo" in request.GET:
        return HttpResponse(request.GET["echo"], headers={"X-Echo": quote(request.GET["echo"])})
    actor = Actor.from_request(request)
    masked = {name: MaskedClaim(actor, request.user, name) for name in NAMES}
    request.session["seen"] = [f"{claim} {claim!r}" for claim in masked.values()]
    if request.GET.get("json"):
        return JsonResponse(masked)
    response = HttpResponse(" ".join(map(str, masked.values())))
    response.set_cookie("claim", quote(f"{masked['birthdate']}"))
    return response


urlpatterns = [
    path("profile/", Profile.as_view()),
    path("by-tag/", by_tag),
    path("streamed/", streamed),
    path("fail/", fail),
    path("by-accident/", by_accident),
    *portal,
]
