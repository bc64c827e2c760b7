"""URLs of a project with its own handler for refused requests."""

from django.http import HttpRequest, HttpResponse

from tests.support.guarded_views import urlpatterns as urlpatterns  # noqa: PLC0414 -- an explicit re-export


def show_refusal(request: HttpRequest, exception: Exception) -> HttpResponse:
    reference: str = exception.reference  # type: ignore[attr-defined]  # of a RecordedRefusal
    return HttpResponse(f"refused: {reference}", status=403)


handler403 = show_refusal
