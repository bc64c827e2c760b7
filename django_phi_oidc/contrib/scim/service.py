"""Dispatch an operation to its endpoint: by method and path, as a request or as part of a bulk
request.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from scim2_models import (
    BaseModel,
    Context,
    InvalidFilterException,
    ListResponse,
    NotFoundException,
    ResponseParameters,
    ScimFilter,
    SearchRequest,
)

from .resources import (
    ENDPOINTS,
    ResourceEndpoint,
    build_completeness,
    format_version,
    matches_version,
)
from .schemas import (
    MAX_RESULTS,
    build_resource_types,
    build_schemas,
    build_service_provider_config,
)
from .scim_responses import SCIMResponse, build_error, build_response
from .scim_users import ClientRequest
from .search_conditions import MAX_FILTER_LENGTH

DISCOVERY = ("ServiceProviderConfig", "ResourceTypes", "Schemas")
SEARCH = ".search"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One operation of a client."""

    method: str
    path: Sequence[str]
    """The segments below the base URL."""
    parameters: Mapping[str, str] = field(default_factory=dict)
    """Of the query."""
    data: Mapping[str, Any] = field(default_factory=dict, repr=False)
    if_match: str = ""
    if_none_match: str = ""


class ServiceProvider:
    """The endpoints, for one authenticated request. base_url: without a slash at its end."""

    def __init__(self, request: ClientRequest, base_url: str) -> None:
        self.request = request
        self.base_url = base_url
        self.endpoints: dict[str, ResourceEndpoint] = {}
        for name, endpoint_class in ENDPOINTS.items():
            self.endpoints[name] = endpoint_class(request, base_url)

    def perform(self, operation: Operation) -> SCIMResponse:
        """Return the response. Raises: REFUSALS, UNAVAILABLE_ERRORS."""
        match operation.path:
            case [("ServiceProviderConfig" | "ResourceTypes" | "Schemas") as name, *rest] if (
                len(rest) < 2
            ):
                return self._discover(name, rest, operation)
            case [name] if name in self.endpoints:
                return self._perform_on_type(self.endpoints[name], operation)
            case [name, last] if name in self.endpoints and last == SEARCH:
                if operation.method == "POST":
                    return self._search(self.endpoints[name], operation.data)
                return _refuse()
            case [name, resource_id] if name in self.endpoints:
                return self._perform_on_resource(self.endpoints[name], resource_id, operation)
            case [last] if last == SEARCH:
                if operation.method == "POST":
                    return self._search_all(operation.data)
                return _refuse()
        raise NotFoundException

    def _discover(self, name: str, rest: Sequence[str], operation: Operation) -> SCIMResponse:
        if operation.method != "GET":
            return _refuse()
        if "filter" in operation.parameters:
            return build_error(403, "Discovery documents can't be filtered.")  # RFC 7644 4
        models = [endpoint.model for endpoint in self.endpoints.values()]
        if name == "ServiceProviderConfig":
            if rest:
                raise NotFoundException
            return build_response(build_service_provider_config(self.base_url))

        build: Any
        if name == "ResourceTypes":
            build = build_resource_types
        else:
            build = build_schemas

        documents = build(models, self.base_url)
        if not rest:
            return build_response(
                _build_list(documents, [type(documents[0])], total=len(documents))
            )
        found = []
        for document in documents:
            if document.id == rest[0]:
                found.append(document)
        if not found:
            raise NotFoundException
        return build_response(found[0])

    def _perform_on_type(self, endpoint: ResourceEndpoint, operation: Operation) -> SCIMResponse:
        if operation.method == "GET":
            return self._search(endpoint, operation.parameters)
        if operation.method != "POST":
            return _refuse()
        parameters = _parse_parameters(endpoint, operation)
        row = endpoint.create(operation.data)
        return self._respond(
            endpoint, row, parameters, status=201, context=Context.RESOURCE_CREATION_RESPONSE
        )

    def _perform_on_resource(
        self, endpoint: ResourceEndpoint, resource_id: str, operation: Operation
    ) -> SCIMResponse:
        parameters = _parse_parameters(endpoint, operation)
        match operation.method:
            case "GET":
                row = endpoint.get(resource_id)
                if operation.if_none_match and matches_version(row, operation.if_none_match):
                    return SCIMResponse(status=304, version=format_version(row))
                return self._respond(endpoint, row, parameters)
            case "PUT":
                row = endpoint.replace(resource_id, operation.data, if_match=operation.if_match)
                return self._respond(
                    endpoint, row, parameters, context=Context.RESOURCE_REPLACEMENT_RESPONSE
                )
            case "PATCH":
                row = endpoint.patch(resource_id, operation.data, if_match=operation.if_match)
                return self._respond(
                    endpoint, row, parameters, context=Context.RESOURCE_PATCH_RESPONSE
                )
            case "DELETE":
                endpoint.delete(resource_id, if_match=operation.if_match)
                return SCIMResponse(status=204)
        return _refuse()

    def _respond(
        self,
        endpoint: ResourceEndpoint,
        row: Any,
        parameters: ResponseParameters[Any],
        *,
        status: int = 200,
        context: Context = Context.RESOURCE_QUERY_RESPONSE,
    ) -> SCIMResponse:
        (resource,) = endpoint.render([row], is_complete=build_completeness(parameters))
        location = endpoint.get_location(row)
        version = format_version(row)
        return build_response(
            resource,
            status=status,
            context=context,
            parameters=parameters,
            location=location,
            version=version,
        )

    def _search(self, endpoint: ResourceEndpoint, data: Mapping[str, Any]) -> SCIMResponse:
        search = _parse_search(endpoint.model, data)
        total, resources = endpoint.search(search)
        page = _build_list(resources, [endpoint.model], total=total, start=search.start_index or 1)
        return build_response(page, parameters=search)

    def _search_all(self, data: Mapping[str, Any]) -> SCIMResponse:
        """Search users, then groups. Spec: RFC 7644 3.4.2.1."""
        models = tuple(endpoint.model for endpoint in self.endpoints.values())
        search = _parse_search(_unite(models), data)
        start = search.start_index or 1
        max_count = MAX_RESULTS
        if search.count is not None:
            max_count = min(search.count, MAX_RESULTS)
        total = 0
        resources = list[Any]()
        for endpoint in self.endpoints.values():
            own = search.model_copy(
                update={
                    "filter": _bind_filter(search.filter, endpoint.model),
                    "start_index": max(1, start - total),
                    "count": max(0, max_count - len(resources)),
                }
            )
            matches, page = endpoint.search(own, is_alone=False)
            total += matches
            resources += page
        return build_response(
            _build_list(resources, models, total=total, start=start), parameters=search
        )


def _bind_filter(scim_filter: ScimFilter[Any] | None, model: Any) -> ScimFilter[Any] | None:
    if scim_filter is None:
        return None
    filter_class: Any = ScimFilter
    bound: ScimFilter[Any] = filter_class[model](str(scim_filter))
    return bound


def _refuse() -> SCIMResponse:
    return build_error(405, "The resource does not have this method.")


def _parse_search(model: Any, data: Mapping[str, Any]) -> SearchRequest[Any]:
    """Raises: ValidationError, InvalidFilterException."""
    known = {
        "filter",
        "sortBy",
        "sortOrder",
        "startIndex",
        "count",
        "attributes",
        "excludedAttributes",
        "schemas",
    }
    named = {}
    for name, value in data.items():
        if name in known:
            named[name] = value
    if len(str(named.get("filter", ""))) > MAX_FILTER_LENGTH:
        # Before it is parsed.
        raise InvalidFilterException(detail=f"a filter has at most {MAX_FILTER_LENGTH} characters")
    request_class: Any = SearchRequest
    search: SearchRequest[Any] = request_class[model].model_validate(
        named, scim_ctx=Context.SEARCH_REQUEST
    )
    return search


def _parse_parameters(endpoint: ResourceEndpoint, operation: Operation) -> ResponseParameters[Any]:
    """Raises: ValidationError."""
    names = ("attributes", "excludedAttributes")
    named = {}
    for name, value in operation.parameters.items():
        if name in names:
            named[name] = value
    parameters_class: Any = ResponseParameters
    parameters: ResponseParameters[Any] = parameters_class[endpoint.model].model_validate(named)
    return parameters


def _build_list(
    resources: Sequence[Any], models: Sequence[Any], *, total: int, start: int = 1
) -> BaseModel:
    list_class: Any = ListResponse
    response: BaseModel = list_class[_unite(models)](
        total_results=total,
        start_index=start,
        items_per_page=len(resources),
        resources=list(resources),
    )
    return response


def _unite(models: Sequence[Any]) -> Any:
    union = models[0]
    for model in models[1:]:
        union = union | model
    return union
