"""API views of a host project, with and without each permission class."""

from datetime import timedelta
from typing import Any

from django.contrib.auth import get_user_model
from django.http import Http404
from django.urls import include, path
from django.views.decorators.cache import cache_page
from rest_framework.authentication import SessionAuthentication
from rest_framework.exceptions import NotFound
from rest_framework.generics import GenericAPIView
from rest_framework.parsers import FormParser, JSONParser
from rest_framework.permissions import IsAdminUser, IsAuthenticated
from rest_framework.renderers import JSONRenderer
from rest_framework.response import Response
from rest_framework.serializers import Serializer
from rest_framework.views import APIView

from django_phi_oidc.contrib.rest_framework.authentication import BearerAuthentication
from django_phi_oidc.contrib.rest_framework.permissions import HasScope, PHIAccess, RequireAssurance
from tests.support.guarded_views import CACHEABLE, PERMISSION, RAN


class View(APIView):
    authentication_classes = (BearerAuthentication, SessionAuthentication)
    permission_classes = (IsAuthenticated,)
    renderer_classes = (JSONRenderer,)
    parser_classes = (JSONParser, FormParser)

    def get(self, request: Any, **kwargs: Any) -> Response:
        RAN.append(type(self).__name__)
        return Response({"user": request.user.pk, "data": dict(request.data)}, headers=CACHEABLE)

    def post(self, request: Any, **kwargs: Any) -> Response:
        return self.get(request, **kwargs)

    put = post


class Whoami(View):
    pass


class Cached(View):
    pass


class SessionFirst(View):
    authentication_classes = (SessionAuthentication, BearerAuthentication)


class Scoped(View):
    permission_classes = (HasScope,)
    required_scopes = ("chart.read", "chart.write")


class Open(View):
    permission_classes = (HasScope,)
    required_scopes: Any = ()


class Staff(View):
    permission_classes = (IsAdminUser,)


class Chart(View):
    permission_classes = (HasScope, PHIAccess)
    required_scopes = ("chart.read",)
    permission = PERMISSION
    purposes = ("TREAT", "ETREAT")

    def get_resource(self) -> str:
        return f"Patient/{self.kwargs['pk']}"

    def get_purpose(self) -> Any:
        return self.request.data.get("purpose", self.request.query_params.get("purpose", "TREAT"))

    def get_permission_object(self) -> Any:
        return get_user_model()._default_manager.get(pk=self.kwargs["pk"])


class Unscoped(Chart):
    """Only PHIAccess checks what the token permits."""

    permission_classes = (PHIAccess,)


class Whole(View):
    permission_classes = (PHIAccess,)
    permission = PERMISSION
    purpose = "TREAT"

    def get_resource(self) -> str:
        return f"Patient/{self.kwargs['pk']}"


class Gone(Chart):
    error: Any = Http404

    def get_permission_object(self) -> Any:
        raise self.error


class NotThere(Gone):
    error = NotFound


class Generic(Chart, GenericAPIView):
    queryset = get_user_model()._default_manager.all()
    serializer_class = Serializer

    def get_permission_object(self) -> Any:
        return self.get_object()


class Undeclared(View):
    permission_classes = (PHIAccess,)
    permission = PERMISSION


class Sure(View):
    permission_classes = (RequireAssurance,)
    acr = ("urn:example:loa:3", "urn:example:loa:2")
    max_age = timedelta(minutes=5)


class Surer(Sure):
    acr = ("urn:example:loa:3",)


class SureChart(Chart):
    acr = ("urn:example:loa:3",)
    max_age = timedelta(minutes=5)


class Both(Chart):
    permission_classes = (HasScope & PHIAccess,)


class ScopedAndSure(Sure):
    permission_classes = (HasScope, RequireAssurance)
    required_scopes = ("chart.read",)


class Either(View):
    permission_classes = (HasScope | IsAuthenticated,)
    required_scopes = ("chart.write",)


VIEWS = (Whoami, SessionFirst, Scoped, Open, Staff, Sure, Surer, ScopedAndSure, Either)
OF_PATIENTS = (Chart, Both, Unscoped, Whole, Gone, NotThere, Generic, Undeclared, SureChart)
urlpatterns = [
    *(path(f"{view.__name__.lower()}/", view.as_view()) for view in VIEWS),
    *(path(f"{view.__name__.lower()}/<int:pk>/", view.as_view()) for view in OF_PATIENTS),
    path("cached/", cache_page(600)(Cached.as_view())),
    path("oidc/", include("django_phi_oidc.urls")),
]
