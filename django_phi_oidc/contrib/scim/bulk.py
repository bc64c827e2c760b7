"""Bulk requests: up to MAX_BULK_OPERATIONS operations, each a transaction of its own. Spec: RFC
7644 3.7.
"""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

from ...sessions.tasks import INLINE_SECONDS
from .schemas import MAX_BULK_OPERATIONS
from .scim_responses import SCIMResponse, build_error, list_unknown_ids, run
from .scim_users import ClientRequest, SCIMRefused
from .service import Operation, ServiceProvider

REQUEST_SCHEMA = "urn:ietf:params:scim:api:messages:2.0:BulkRequest"
RESPONSE_SCHEMA = "urn:ietf:params:scim:api:messages:2.0:BulkResponse"
_REFERENCE = "bulkId:"
_METHODS = ("POST", "PUT", "PATCH", "DELETE")


@dataclass(slots=True, kw_only=True)
class _Job:
    """The operations of a request, with the ids of the resources that were created."""

    operations: Sequence[Mapping[str, Any]]
    fail_on_errors: int
    """How many errors end the request; 0: any number."""
    ids: dict[str, str] = field(default_factory=dict)
    """Of created resources, by the bulkId."""
    results: dict[int, dict[str, Any]] = field(default_factory=dict)
    """By the place of the operation."""
    errors: int = 0

    @property
    def is_over(self) -> bool:
        return bool(self.fail_on_errors) and self.errors >= self.fail_on_errors


def perform_bulk(
    data: Mapping[str, Any],
    request: ClientRequest,
    base_url: str,
    *,
    report_fault: Callable[[Exception], None],
    report_unknown_ids: Callable[[Collection[UUID]], None],
) -> SCIMResponse:
    """Perform the operations in their order, those that refer to a later bulkId after it.

    Tokens are revoked before the response for INLINE_SECONDS in all, and by the sweep after that.
    Raises: SCIMRefused: too many operations, or not a bulk request.
    """
    job = _parse(data)
    ends_at = time.monotonic() + INLINE_SECONDS
    waiting = list(enumerate(job.operations))
    while waiting:
        postponed: list[tuple[int, Mapping[str, Any]]] = []
        for number, item in waiting:
            if job.is_over:
                continue
            if _find_unresolved(item, job):
                postponed.append((number, item))
                continue
            own = replace(request, is_inline=time.monotonic() < ends_at)
            service = ServiceProvider(own, base_url)
            _perform(
                number,
                item,
                job,
                service,
                report_fault=report_fault,
                report_unknown_ids=report_unknown_ids,
            )
        if len(postponed) == len(waiting):
            for number, item in postponed:
                _add_result(
                    number,
                    item,
                    job,
                    build_error(409, "A bulkId can't be resolved.", "invalidValue"),
                )
            break
        waiting = postponed
    results = [job.results[number] for number in sorted(job.results)]
    return SCIMResponse(status=200, body={"schemas": [RESPONSE_SCHEMA], "Operations": results})


def _parse(data: Mapping[str, Any]) -> _Job:
    operations = data.get("Operations")
    fail_on_errors = data.get("failOnErrors", 0)
    if data.get("schemas") != [REQUEST_SCHEMA] or not isinstance(operations, list):
        raise SCIMRefused(400, "invalidSyntax", "The body is no bulk request.")
    if not all(isinstance(item, Mapping) for item in operations):
        raise SCIMRefused(400, "invalidSyntax", "The body is no bulk request.")
    if (
        isinstance(fail_on_errors, bool)
        or not isinstance(fail_on_errors, int)
        or fail_on_errors < 0
    ):
        raise SCIMRefused(400, "invalidValue", "failOnErrors must be a number of errors.")
    if len(operations) > MAX_BULK_OPERATIONS:
        raise SCIMRefused(413, "", f"A bulk request has at most {MAX_BULK_OPERATIONS} operations.")
    return _Job(operations=operations, fail_on_errors=fail_on_errors)


def _perform(
    number: int,
    item: Mapping[str, Any],
    job: _Job,
    service: ServiceProvider,
    *,
    report_fault: Callable[[Exception], None],
    report_unknown_ids: Callable[[Collection[UUID]], None],
) -> None:
    method = str(item.get("method", "")).upper()
    path = item.get("path")
    data = _resolve(item.get("data", {}), job)
    if method not in _METHODS or not isinstance(path, str) or not isinstance(data, Mapping):
        _add_result(
            number,
            item,
            job,
            build_error(400, "The operation needs a method, a path and data.", "invalidSyntax"),
        )
        return
    if method == "POST" and not isinstance(item.get("bulkId"), str):
        _add_result(number, item, job, build_error(400, "POST needs a bulkId.", "invalidValue"))
        return
    segments = []
    for segment in path.partition("?")[0].strip("/").split("/"):
        segments.append(_resolve(segment, job))
    if segments[-1] == ".search":
        _add_result(
            number, item, job, build_error(400, "A bulk request can't search.", "invalidValue")
        )
        return
    if_match = item.get("version")
    if not isinstance(if_match, str):
        if_match = ""
    operation = Operation(method=method, path=segments, data=data, if_match=if_match)
    response = run(lambda: service.perform(operation), report_fault=report_fault)
    report_unknown_ids(list_unknown_ids(response, segments))

    if method != "POST":
        location = f"{service.base_url}/{'/'.join(segments)}"
    else:
        location = ""

    _add_result(number, item, job, response, location=location)


def _add_result(
    number: int, item: Mapping[str, Any], job: _Job, response: SCIMResponse, *, location: str = ""
) -> None:
    result: dict[str, Any] = {
        "method": str(item.get("method", "")).upper(),
        "status": str(response.status),
    }
    if isinstance(bulk_id := item.get("bulkId"), str):
        result["bulkId"] = bulk_id
    if location := response.location or location:
        result["location"] = location
    if response.version:
        result["version"] = response.version
    if response.status >= 400:
        result["response"] = response.body
        job.errors += 1
    elif isinstance(bulk_id, str) and response.location:
        job.ids[bulk_id] = response.location.rpartition("/")[2]
    job.results[number] = result


def _find_unresolved(item: Mapping[str, Any], job: _Job) -> bool:
    """Return whether the operation refers to a resource that was not created yet."""
    texts = list(_iterate_texts([item.get("path", ""), item.get("data", {})]))
    names = []
    for text in texts:
        if text.startswith((_REFERENCE, "/")):
            names.append(text.partition(_REFERENCE)[2])
    wanted = set()
    for name in names:
        if name:
            wanted.add(name.partition("/")[0])
    return not wanted <= job.ids.keys()


def _iterate_texts(value: Any) -> Any:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _iterate_texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _iterate_texts(item)


def _resolve(value: Any, job: _Job) -> Any:
    """Return the value with ids in place of the references to them."""
    if isinstance(value, str) and value.startswith(_REFERENCE):
        return job.ids.get(value.removeprefix(_REFERENCE), value)
    if isinstance(value, Mapping):
        return {name: _resolve(item, job) for name, item in value.items()}

    if isinstance(value, list):
        return [_resolve(item, job) for item in value]
    return value
