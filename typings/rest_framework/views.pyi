from collections.abc import Callable, Sequence
from typing import Any

from django.http.response import HttpResponseBase

from .permissions import BasePermission
from .request import Request
from .response import Response

class APIView:
    request: Request
    permission_classes: Sequence[type[BasePermission]]
    @classmethod
    def as_view(cls, **initkwargs: Any) -> Callable[..., HttpResponseBase]: ...
    def get_permissions(self) -> list[BasePermission]: ...
    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None: ...
    def handle_exception(self, exc: Exception) -> Response: ...
    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Any: ...
