"""The relying party's side of OpenID Connect as pure functions: no Django, no settings, no clock,
no network.

Each module implements one section of the specifications. The function that builds a request stands
next to the one that processes its response, with a `Transport` between them. Everything that a
check depends on is a keyword argument. The steps of a sign-in:

    metadata       build_metadata_request, process_metadata_response, build_jwks_request, ...    Discovery 4
    request_object build_signed_parameters: the request as a signed JWT                          RFC 9101
    pushed_authorization  build_par_request, process_par_response                                RFC 9126
    authorization  build_authorization_url, get_state, process_authorization_response            Core 3.1.2, RFC 9207
    token          build_token_request, process_token_response, extract_received_tokens          Core 3.1.3, RFC 6749
    id_token       verify_id_token, which creates VerifiedClaims                                 Core 3.1.3.7
    userinfo       build_userinfo_request, process_userinfo_response                             Core 5.3
    refresh        build_refresh_request, process_refresh_response, verify_refreshed_id_token    Core 12
    dpop           create_proof_key, create_proof, verify_proof                                  RFC 9449
    revocation     build_revocation_request, process_revocation_response                         RFC 7009
    rp_initiated_logout  build_end_session_url, build_hint_parameters                            RP-Initiated Logout 2

Below them, `jose` parses a JWS, `jwks` selects a key, `client_auth` authenticates the client, and
`transport` defines requests and responses. joserfc and cryptography verify the signatures.
`vectors_of_trust` compares levels of assurance.

A processing function returns a frozen value, or raises an error of `django_phi_oidc.errors` with
the code of the failed rule, for any input. Messages and reprs contain no token, secret, `sub` or
query string. Errors raised here have no context, because a parser's error contains the text that it
could not parse.
"""  # noqa: E501
