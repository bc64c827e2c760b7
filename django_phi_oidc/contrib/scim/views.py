"""The view of the SCIM endpoint."""

from importlib import import_module
from typing import Any

from django.http import Http404, HttpRequest, HttpResponse
from django.utils.decorators import method_decorator
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.debug import sensitive_post_parameters, sensitive_variables

from ..._internal.view_decorators import public_view
from ...sessions.backchannel_logout import SessionlessView
from . import conf


@method_decorator(
    [public_view, csrf_exempt, sensitive_post_parameters(), sensitive_variables()], name="dispatch"
)
class SCIMView(SessionlessView):
    """Every endpoint of the SCIM service provider. 404 if no provider has the option `scim`."""

    http_method_names = ("get", "post", "put", "patch", "delete")

    def get(self, request: HttpRequest, path: str = "") -> HttpResponse:
        if not conf.scim():
            raise Http404
        response: HttpResponse = _import_scim_requests().process_request(request, path)
        return response

    post = put = patch = delete = get

    def http_method_not_allowed(
        self, request: HttpRequest, *args: Any, **kwargs: Any
    ) -> HttpResponse:
        if not conf.scim():
            raise Http404
        response: HttpResponse = _import_scim_requests().refuse_method()
        return response


def _import_scim_requests() -> Any:
    """Import the module that processes the requests, at the first request.

    The models of scim2-models take half a second of CPU time and 15 MB. Otherwise each web process
    would build them when it starts, although few of them ever receive a request of a client. Other
    threads wait for the import lock.
    """
    return import_module(f"{__package__}.scim_requests")
