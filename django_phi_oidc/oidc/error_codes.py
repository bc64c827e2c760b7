"""The error codes of OAuth and OpenID Connect that may appear in logs, events and pages.

A provider can put any text into `error`. Only the codes below are passed on; every other value
becomes `other`. error_description and error_uri are never read. Spec: RFC 6749 4.1.2.1, 5.2, and
IANA's OAuth Extensions Error Registry.
"""

OTHER_ERROR = "other"
REGISTERED_ERROR_CODES = frozenset(
    {
        # RFC 6749 4.1.2.1 and 5.2
        *("invalid_request", "unauthorized_client", "access_denied", "unsupported_response_type"),
        *("invalid_scope", "server_error", "temporarily_unavailable"),
        *("invalid_client", "invalid_grant", "unsupported_grant_type"),
        # RFC 7009 2.2.1, RFC 6750 3.1, RFC 7591 3.2.2, RFC 8707 2, RFC 9396 5
        *(
            "unsupported_token_type",
            "invalid_token",
            "insufficient_scope",
            "invalid_redirect_uri",
            "invalid_target",
        ),
        "invalid_authorization_details",
        # RFC 9449 5, 8: the provider requires a proof of possession
        *("invalid_dpop_proof", "use_dpop_nonce"),
        # OIDC Core 3.1.2.6
        *(
            "interaction_required",
            "login_required",
            "account_selection_required",
            "consent_required",
        ),
        *("invalid_request_uri", "invalid_request_object", "request_not_supported"),
        *("request_uri_not_supported", "registration_not_supported"),
        # OIDC Core Unmet Authentication Requirements 1.0 2
        "unmet_authentication_requirements",
    }
)


def get_error_code(error: object) -> str:
    """Return the `error` of a response if it is registered, else `other`."""
    if isinstance(error, str) and error in REGISTERED_ERROR_CODES:
        return error
    return OTHER_ERROR
