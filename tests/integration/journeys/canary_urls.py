"""Pages that open claims, on purpose and otherwise, and that fall over after it."""

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
    """The person's claims; variables that are nowhere make Django log whatever else there is."""

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
    """Open all that there is, and fall over; without ?reveal=1, with a variable that a report would show."""
    if request.GET.get("reveal"):
        found = reveal_many(Actor.from_request(request), [request.user], NAMES, purpose="PATRQT")
        held = [each.value for each in found[request.user.pk].values()]
    else:
        held = [request.GET.get("control", "")]
    raise RuntimeError(f"with {len(held)} values")


@login_required
def by_accident(request: HttpRequest) -> HttpResponse:
    """Put masked claims wherever a value could go; with ?echo=, that text into head and body."""
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
