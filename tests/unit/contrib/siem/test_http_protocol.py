import json
from typing import Any

import pytest

from django_phi_oidc.contrib.siem.http_protocol import (
    SendResult,
    process_bundle_response,
    process_lines_response,
)
from django_phi_oidc.http.transport import TransportResponse


def bundle(*statuses: Any) -> TransportResponse:
    entries = [{"response": {"status": status}} for status in statuses]
    return build_response(200, {"resourceType": "Bundle", "type": "batch-response", "entry": entries})


def build_response(status: int, body: Any = None) -> TransportResponse:
    return TransportResponse(status=status, headers={}, body=b"" if body is None else json.dumps(body).encode())


INVALID = SendResult(accepted=0, fault="response_invalid")
BUNDLES = {
    "all": (bundle("201", "201 Created", "200 OK"), SendResult(accepted=3)),
    "one of three refused": (
        bundle("201", "400", "201"),
        SendResult(accepted=1, fault="http_400", needs_operator=True),
    ),
    "one not now": (bundle("201", "201", "429"), SendResult(accepted=2, fault="http_429")),
    "one failed": (bundle("503 Service Unavailable", "201", "201"), SendResult(accepted=0, fault="http_503")),
    "too few": (bundle("201", "201"), INVALID),
    "too many": (bundle("201", "201", "201", "201"), INVALID),
    "no entries": (build_response(200, {"resourceType": "Bundle"}), INVALID),
    "entries that are not a list": (build_response(200, {"entry": "abc"}), INVALID),
    "no object": (build_response(200, [1]), INVALID),
    "empty": (build_response(200), INVALID),
    "a status that is a number": (bundle("201", 201, "201"), SendResult(accepted=1, fault="response_invalid")),
    "a status without digits": (bundle("2xx", "201", "201"), INVALID),
    "a status of two digits": (bundle("20", "201", "201"), INVALID),
    "an entry without a response": (build_response(200, {"entry": [{}, {}, {}]}), INVALID),
    "an entry that is null": (build_response(200, {"entry": [None, {}, {}]}), INVALID),
    "refused as a whole": (
        build_response(403, {"entry": []}),
        SendResult(accepted=0, fault="http_403", needs_operator=True),
    ),
}


@pytest.mark.parametrize(("response", "result"), BUNDLES.values(), ids=BUNDLES)
def test_bundle_response_accepts_leading_2xx_entries(response: TransportResponse, result: SendResult) -> None:
    assert process_bundle_response(response, count=3) == result


@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_2xx_response_accepts_all_lines(status: int) -> None:
    assert process_lines_response(build_response(status), count=3) == SendResult(accepted=3)


@pytest.mark.parametrize(
    ("status", "needs_operator"),
    [(199, False), (304, True), (400, True), (404, True), (408, False), (429, False), (500, False)],
)
def test_other_status_accepts_no_lines(status: int, needs_operator: bool) -> None:
    assert process_lines_response(build_response(status), count=3) == SendResult(
        accepted=0, fault=f"http_{status}", needs_operator=needs_operator
    )
