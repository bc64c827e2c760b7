from typing import Any

from .request import Request

class BaseAuthentication:
    def authenticate(self, request: Request) -> tuple[Any, Any] | None: ...
    def authenticate_header(self, request: Request) -> str | None: ...
