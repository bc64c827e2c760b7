"""Pages on which users see who accessed their record."""

from typing import Any

from django.contrib.auth import get_user_model
from django.http import HttpRequest, HttpResponse
from django.urls import include, path
from django.views.generic import TemplateView

from django_phi_oidc.access.mixins import AssuranceMixin
from django_phi_oidc.contrib.individual_rights.recipients import Recipient
from django_phi_oidc.contrib.individual_rights.views import AccountingMixin


class Record(AccountingMixin, TemplateView):
    template_name = "record.html"
    page_size = 3


class MixedOrder(TemplateView, AccountingMixin):  # type: ignore[misc]
    template_name = "record.html"


class Strong(AssuranceMixin, AccountingMixin, TemplateView):
    template_name = "record.html"
    acr = ("gold",)


class Named(Record):
    def get_recipient_name(self, recipient: Recipient) -> str:
        return f"Dr. {recipient.name}" if recipient.name else "a former colleague"


class Failing(Record):
    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        super().get_context_data(**kwargs)
        raise RuntimeError("after the accounting")


def anybody(request: HttpRequest) -> HttpResponse:
    """Change the request's user to another one, as an API token next to a session cookie does."""
    request.user = get_user_model()._default_manager.get(pk=request.GET["user"])
    response = Record.as_view()(request)
    return response.render() if hasattr(response, "render") else response  # type: ignore[return-value]


SHOWN = "{{ it.occurred_at|date:'Y-m-d' }}|{{ shown.actor_name }}|{{ it.purpose_name }}|"
SEEN = "{{ it.claims|join:',' }}{{ it.resource }}|{{ it.emergency }}"
TEMPLATE = f"""{{% load tz %}}<p id="since">{{{{ since|utc|date:"c" }}}}</p><ul>
{{% for shown in disclosures %}}{{% with it=shown.disclosure %}}<li>{SHOWN}{SEEN}</li>
{{% endwith %}}{{% endfor %}}</ul>
{{% if newer %}}<a id="newer" href="{{{{ newer }}}}">newer</a>{{% endif %}}
{{% if older %}}<a id="older" href="{{{{ older }}}}">older</a>{{% endif %}}
{{% if shows_own %}}<p id="own"></p>{{% endif %}}
{{% if begins_at %}}<p id="begins">{{{{ begins_at|utc|date:"c" }}}}</p>{{% endif %}}"""
urlpatterns = [
    path("record/", Record.as_view()),
    path("record/<int:pk>/", Record.as_view()),
    path("mixed/", MixedOrder.as_view()),
    path("strong/", Strong.as_view()),
    path("named/", Named.as_view()),
    path("failing/", Failing.as_view()),
    path("anybody/", anybody),
    path("oidc/", include("django_phi_oidc.urls")),
]
