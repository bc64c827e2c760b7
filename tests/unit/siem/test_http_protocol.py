import json
from typing import Any

import pytest

from django_phi_oidc.oidc.transport import TransportResponse
from django_phi_oidc.siem.http_protocol import SendResult, process_bundle_response, process_lines_response


def bundle(*statuses: Any) -> TransportResponse:
    entries = [{"response": {"status": status}} for status in statuses]
    return answer(200, {"resourceType": "Bundle", "type": "batch-response", "entry": entries})


def answer(status: int, body: Any = None) -> TransportResponse:
    return TransportResponse(status=status, headers={}, body=b"" if body is None else json.dumps(body).encode())


INVALID = SendResult(accepted=0, fault="response_invalid")
JUDGED = {
    "all": (bundle("201", "201 Created", "200 OK"), SendResult(accepted=3)),
    "one of three refused": (
        bundle("201", "400", "201"),
        SendResult(accepted=1, fault="http_400", needs_operator=True),
    ),
    "one not now": (bundle("201", "201", "429"), SendResult(accepted=2, fault="http_429")),
    "one failed": (bundle("503 Service Unavailable", "201", "201"), SendResult(accepted=0, fault="http_503")),
    "too few": (bundle("201", "201"), INVALID),
    "too many": (bundle("201", "201", "201", "201"), INVALID),
    "no entries": (answer(200, {"resourceType": "Bundle"}), INVALID),
    "entries that are none": (answer(200, {"entry": "abc"}), INVALID),
    "no object": (answer(200, [1]), INVALID),
    "empty": (answer(200), INVALID),
    "a status that is a number": (bundle("201", 201, "201"), SendResult(accepted=1, fault="response_invalid")),
    "a status that is none": (bundle("2xx", "201", "201"), INVALID),
    "a status of two digits": (bundle("20", "201", "201"), INVALID),
    "an entry without a response": (answer(200, {"entry": [{}, {}, {}]}), INVALID),
    "an entry that is none": (answer(200, {"entry": [None, {}, {}]}), INVALID),
    "refused as a whole": (answer(403, {"entry": []}), SendResult(accepted=0, fault="http_403", needs_operator=True)),
}


@pytest.mark.parametrize(("response", "judged"), JUDGED.values(), ids=JUDGED)
def test_judge_bundle_response_takes_what_is_2xx_from_the_first_on(
    response: TransportResponse, judged: SendResult
) -> None:
    assert process_bundle_response(response, count=3) == judged


@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_judge_lines_response_takes_2xx_for_all(status: int) -> None:
    assert process_lines_response(answer(status), count=3) == SendResult(accepted=3)


@pytest.mark.parametrize(
    ("status", "slowly"),
    [(199, False), (304, True), (400, True), (404, True), (408, False), (429, False), (500, False)],
)
def test_judge_lines_response_of_another_status_takes_nothing(status: int, slowly: bool) -> None:
    assert process_lines_response(answer(status), count=3) == SendResult(
        accepted=0, fault=f"http_{status}", needs_operator=slowly
    )
