"""Which access tokens the portal's own APIs take, and what their scopes permit, as declared in `API`. No Django."""

from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, fields
from datetime import timedelta
from typing import Any, Literal, get_args

from ..errors import DeclarationInvalid

TokenVerificationMethod = Literal["jwt", "introspection"]
MAX_INTROSPECTION_CACHE = timedelta(seconds=60)


@dataclass(frozen=True, slots=True, kw_only=True)
class APIDeclaration:
    """What a provider's access tokens are to the portal's APIs."""

    provider: str
    audience: str
    """What `aud` of an access token must name (RFC 9068 2.2, RFC 8707 2): 1 to 255 visible ASCII characters, and not
    the provider's `client_id`."""
    method: TokenVerificationMethod
    """`jwt`: signed tokens of RFC 9068; `introspection`: the provider is asked (RFC 7662), which one provider alone can
    be."""
    scopes: tuple[tuple[str, frozenset[str]], ...] = ()
    """Scope → list of permissions, as `has_perm` knows them, of which a token with it may use what the person has."""
    introspection_cache: timedelta = timedelta(seconds=10)
    """timedelta or seconds, 60 at most: how long a process relies on a yes of the provider's."""
    clients: frozenset[str] | None = None
    """List of the clients whose tokens are taken. Default: none: all that the provider gives such tokens."""

    def get_permissions(self, scopes: Iterable[str]) -> frozenset[str]:
        """Return what these scopes permit together: nothing for those that are not declared."""
        known = dict(self.scopes)
        return frozenset().union(*(known.get(scope, ()) for scope in scopes))

    def get_scopes(self, permission: str) -> tuple[str, ...]:
        """Return the scopes that permit it, in the order of their declaration."""
        return tuple(scope for scope, permissions in self.scopes if permission in permissions)


def parse_api(provider: str, raw: Any) -> APIDeclaration:
    """Return what raw declares of a provider's access tokens.

    Raises: DeclarationInvalid, which names the option.
    """
    where = f"API[{provider!r}]"
    if not isinstance(raw, Mapping):
        raise DeclarationInvalid(f"{where} must be a dictionary.")
    known = {field.name: field for field in fields(APIDeclaration) if field.name != "provider"}
    if unknown := sorted(str(key) for key in raw if key not in known):
        raise DeclarationInvalid(f"{where} has no option {', '.join(unknown)}.")
    if missing := sorted(key for key, field in known.items() if field.default is MISSING and key not in raw):
        raise DeclarationInvalid(f"{where} lacks {', '.join(missing)}.")
    if not _is_visible_ascii(raw["audience"]):
        raise DeclarationInvalid(f"{where}['audience'] must be 1 to 255 visible ASCII characters.")
    if raw["method"] not in get_args(TokenVerificationMethod):
        raise DeclarationInvalid(f"{where}['method'] must be one of {', '.join(get_args(TokenVerificationMethod))}.")
    values = dict(raw)
    if "scopes" in raw:
        values["scopes"] = _parse_scopes(f"{where}['scopes']", raw["scopes"])
    if "introspection_cache" in raw:
        values["introspection_cache"] = _parse_cache_duration(
            f"{where}['introspection_cache']", raw["introspection_cache"]
        )
    if raw.get("clients") is not None:
        values["clients"] = _parse_clients(f"{where}['clients']", raw["clients"])
    return APIDeclaration(provider=provider, **values)


def list_api_faults(apis: Mapping[str, APIDeclaration], *, client_ids: Mapping[str, str]) -> Iterable[str]:
    """Yield, in words, what makes a declaration useless or unsafe. clients: the declared providers' client ids."""
    for name, api in apis.items():
        if name not in client_ids:
            yield f"API[{name!r}]: there is no such provider."
        elif api.audience == client_ids[name]:
            yield f"API[{name!r}]['audience'] is the client_id, which is the audience of ID Tokens."
    if len(asked := [name for name, api in apis.items() if api.method == "introspection"]) > 1:
        yield f"API: {' and '.join(map(repr, asked))} would be shown tokens of each other; one may be asked about them."


def is_scope_token(value: object) -> bool:
    """Say whether value is a scope-token of at most 255 characters. Spec: RFC 6749 3.3."""
    return _is_visible_ascii(value) and not set(str(value)) & set('"\\')


def _is_visible_ascii(value: object) -> bool:
    return (
        isinstance(value, str)
        and 0 < len(value) <= 255
        and value.isascii()
        and value.isprintable()
        and " " not in value
    )


def _parse_scopes(option_path: str, raw: Any) -> tuple[tuple[str, frozenset[str]], ...]:
    if not isinstance(raw, Mapping):
        raise DeclarationInvalid(f"{option_path} must be a dictionary.")
    for scope, permissions in raw.items():
        if not is_scope_token(scope):
            raise DeclarationInvalid(f"{option_path}: a scope is visible ASCII without quotation mark and backslash.")
        # A text is a list of its letters to whoever forgets the brackets.
        if not isinstance(permissions, list | tuple) or not all(
            isinstance(permission, str) and permission.strip() for permission in permissions
        ):
            raise DeclarationInvalid(f"{option_path}[{scope!r}] must be a list of permissions.")
    return tuple((scope, frozenset(permissions)) for scope, permissions in raw.items())


def _parse_clients(option_path: str, raw: Any) -> frozenset[str]:
    if not isinstance(raw, list | tuple) or not raw or not all(isinstance(client, str) and client for client in raw):
        raise DeclarationInvalid(f"{option_path} must be a list of client ids, and not empty.")
    return frozenset(raw)


def _parse_cache_duration(option_path: str, value: Any) -> timedelta:
    """Seconds, as JSON has them, or a timedelta."""
    if (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and 0 <= value <= MAX_INTROSPECTION_CACHE.total_seconds()
    ):
        return timedelta(seconds=value)
    if isinstance(value, timedelta) and timedelta(0) <= value <= MAX_INTROSPECTION_CACHE:
        return value
    raise DeclarationInvalid(f"{option_path} must be a timedelta or a number of seconds, from 0 to 60.")
