"""Charts: patients see their own after a step-up, clinicians those of their patients, each for a purpose."""

from typing import Any, cast

from django.contrib.auth.backends import BaseBackend
from django.contrib.auth.decorators import login_required, permission_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from django.views.generic import TemplateView

from django_phi_oidc.access.mixins import PHIAccessMixin
from django_phi_oidc.audit.purposes import PATIENT_REQUEST
from django_phi_oidc.fields import SealedTextField

from .models import Chart

STEP_UP_ACR = ("urn:example:loa:3",)
"""The acr of the demo provider for a second factor."""
PERMISSION = "portal.view_chart"
EXAMPLE_NOTES = "Blood pressure 128/82.\nAllergic to penicillin.\nNext visit: bring the list of medicines."


class CareTeamBackend(BaseBackend):
    """Grants access to a chart to its patient and to the care team."""

    def has_perm(self, user_obj: Any, perm: str, obj: Any = None) -> bool:
        """Decide only about charts, one at a time."""
        if perm != PERMISSION or not isinstance(obj, Chart) or not user_obj.is_active:
            return False
        if obj.patient_id == user_obj.pk:
            return True
        return bool(user_obj.has_perm(PERMISSION)) and obj.care_team.filter(pk=user_obj.pk).exists()


class ChartView(PHIAccessMixin, TemplateView):
    """A chart, shown if permission, acr and purpose are sufficient."""

    template_name = "portal/chart.html"
    permission = PERMISSION
    acr = STEP_UP_ACR

    def get_patient(self) -> Any:
        """Return the primary key of the patient."""
        raise NotImplementedError

    def get_resource(self) -> str:
        """Return the patient's identifier in the audit log."""
        return f"Patient/{self.get_patient()}"

    def get_permission_object(self) -> Chart | None:
        """Return the chart for the permission check; None, which is refused, if there is no chart."""
        return Chart.objects.filter(patient=self.get_patient()).first()

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        """Decrypt the notes, after access was granted."""
        chart = Chart.objects.get(patient=self.get_patient())
        sealed = cast(SealedTextField, Chart._meta.get_field("notes"))
        return super().get_context_data(chart=chart, notes=sealed.decrypt(chart), **kwargs)


class OwnChart(ChartView):
    """The chart of the user, created at the first visit."""

    purpose = PATIENT_REQUEST

    def get_patient(self) -> Any:
        return self.request.user.pk

    def get_permission_object(self) -> Chart | None:
        """Return the user's chart, or a new one."""
        return super().get_permission_object() or Chart(patient_id=self.request.user.pk)

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        """Create the chart if there is none, and show it."""
        Chart.objects.get_or_create(patient_id=request.user.pk, defaults={"notes": EXAMPLE_NOTES})
        return super().get(request, *args, **kwargs)


class PatientChart(ChartView):
    """The chart of a patient, for the care team."""

    purpose = "TREAT"

    def get_patient(self) -> Any:
        return self.kwargs["pk"]


@login_required
@permission_required(PERMISSION, raise_exception=True)
@never_cache
@require_safe
def patients(request: HttpRequest) -> HttpResponse:
    """List the clinic's patients by number, and mark the user's own patients."""
    charts = Chart.objects.exclude(patient=request.user).order_by("patient")[:100]
    own_chart_ids = set(Chart.objects.filter(care_team=request.user).values_list("pk", flat=True))
    return render(request, "portal/patients.html", {"charts": [(chart, chart.pk in own_chart_ids) for chart in charts]})
