from typing import Any

from django.http import HttpResponse

class Response(HttpResponse):
    data: Any
    content_type: str | None
    def __init__(self, data: Any = None, status: int | None = None, headers: Any = None) -> None: ...
