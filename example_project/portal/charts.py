"""Charts: a patient's own behind a stronger sign-in, a patient's for who treats them, and for a purpose."""

from typing import Any, cast

from django.contrib.auth.backends import BaseBackend
from django.contrib.auth.decorators import login_required, permission_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from django.views.generic import TemplateView

from django_phi_oidc.access.mixins import PHIAccessMixin
from django_phi_oidc.access.policy import PATIENT_REQUEST
from django_phi_oidc.fields import SealedTextField

from .models import Chart

STRONG = ("urn:example:loa:3",)
"""What the demo provider reaches with a second factor."""
PERMISSION = "portal.view_chart"
INVENTED = "Blood pressure 128/82.\nAllergic to penicillin.\nNext visit: bring the list of medicines."


class CareTeamBackend(BaseBackend):
    """Says whose chart somebody may see: their own, and those of the patients whom they treat."""

    def has_perm(self, user_obj: Any, perm: str, obj: Any = None) -> bool:
        """Answer for charts alone, one at a time."""
        if perm != PERMISSION or not isinstance(obj, Chart) or not user_obj.is_active:
            return False
        if obj.patient_id == user_obj.pk:
            return True
        return bool(user_obj.has_perm(PERMISSION)) and obj.care_team.filter(pk=user_obj.pk).exists()


class ChartView(PHIAccessMixin, TemplateView):
    """A chart that is opened once all that the guard asks for holds."""

    template_name = "portal/chart.html"
    permission = PERMISSION
    acr = STRONG

    def get_patient(self) -> Any:
        """Return the primary key of the patient whose chart is asked for."""
        raise NotImplementedError

    def get_resource(self) -> str:
        """Return the patient as the trail names them."""
        return f"Patient/{self.get_patient()}"

    def get_permission_object(self) -> Chart | None:
        """Return the chart that the permission is asked for; None where there is none, which the guard refuses."""
        return Chart.objects.filter(patient=self.get_patient()).first()

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        """Open the notes: the guard has let somebody in."""
        chart = Chart.objects.get(patient=self.get_patient())
        sealed = cast(SealedTextField, Chart._meta.get_field("notes"))
        return super().get_context_data(chart=chart, notes=sealed.decrypt(chart), **kwargs)


class OwnChart(ChartView):
    """The chart of the person who asks, made when they first see it."""

    purpose = PATIENT_REQUEST

    def get_patient(self) -> Any:
        """Return the person."""
        return self.request.user.pk

    def get_permission_object(self) -> Chart | None:
        """Return their chart, or the one that they are going to have."""
        return super().get_permission_object() or Chart(patient_id=self.request.user.pk)

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        """Make the chart where there is none, and show it."""
        Chart.objects.get_or_create(patient_id=request.user.pk, defaults={"notes": INVENTED})
        return super().get(request, *args, **kwargs)


class PatientChart(ChartView):
    """A patient's chart, for who treats them."""

    purpose = "TREAT"

    def get_patient(self) -> Any:
        """Return the patient of the address."""
        return self.kwargs["pk"]


@login_required
@permission_required(PERMISSION, raise_exception=True)
@never_cache
@require_safe
def patients(request: HttpRequest) -> HttpResponse:
    """The clinic's patients, by number: whom somebody treats, and all others."""
    charts = Chart.objects.exclude(patient=request.user).order_by("patient")[:100]
    mine = set(Chart.objects.filter(care_team=request.user).values_list("pk", flat=True))
    return render(request, "portal/patients.html", {"charts": [(chart, chart.pk in mine) for chart in charts]})
