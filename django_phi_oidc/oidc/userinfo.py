"""Plain R7: claims that did not come in the ID Token. Signed answers are not read. Spec: OIDC Core 5.3."""

import hmac
from collections.abc import Mapping
from typing import Any

from ..errors import UserInfoInvalid, UserInfoSubMismatch
from .jose import parse_json_object
from .metadata import ProviderMetadata
from .transport import Request, Response, media_type


def build_userinfo_request(*, metadata: ProviderMetadata, access_token: str) -> Request:
    """Return the request for the person's claims, the token in the header. Spec: Core 5.3.1, RFC 6750 2.1.

    Raises: UserInfoInvalid when the OP has no UserInfo endpoint.
    """
    if not metadata.userinfo_endpoint:
        raise UserInfoInvalid("The OP has no UserInfo endpoint.")
    headers = {"Accept": "application/json", "Authorization": f"Bearer {access_token}"}
    return Request(method="GET", url=metadata.userinfo_endpoint, headers=headers)


def judge_userinfo_response(response: Response, *, sub: str) -> Mapping[str, Any]:
    """Return the claims of the person whom sub names, sub being that of the verified ID Token.

    NOT checked: types and values of the claims.

    Raises: UserInfoInvalid, UserInfoSubMismatch.
    Spec: Core 5.3.2, 5.3.4.
    """
    claims = read_userinfo(response)
    check_userinfo_sub(claims, sub=sub)
    return claims


def read_userinfo(response: Response) -> Mapping[str, Any]:
    """`userinfo_invalid`: the answer is 200 and a JSON object, sent as such. Spec: Core 5.3.2."""
    if response.status == 200 and media_type(response) == "application/json":
        try:
            return parse_json_object(response.body)
        except ValueError:
            pass
    raise UserInfoInvalid


def check_userinfo_sub(claims: Mapping[str, Any], *, sub: str) -> None:
    """`userinfo_sub_mismatch`: the answer's sub is the ID Token's. Spec: Core 5.3.2 (token substitution)."""
    claimed = claims.get("sub")
    if not isinstance(claimed, str) or not hmac.compare_digest(claimed.encode(), sub.encode()):
        raise UserInfoSubMismatch
