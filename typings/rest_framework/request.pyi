from typing import Any

from django.http import HttpRequest, QueryDict

class Request(HttpRequest):
    _request: HttpRequest
    auth: Any
    @property
    def query_params(self) -> QueryDict: ...
