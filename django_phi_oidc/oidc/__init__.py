"""The relying party's side of OpenID Connect as pure functions: no Django, no settings, no clock, no network.

A file is a section of the specifications; a function that builds a request stands beside the one that judges its
answer, and a `Transport` lies between them. Whatever a check depends on is a keyword argument. The steps of a sign-in:

    metadata       build_metadata_request, judge_metadata, build_jwks_request, judge_jwks        Discovery 4
    pushed_authorization  build_par_request, judge_par_response                                  RFC 9126
    authorization  build_authorization_url; read_state, judge_authorization_response             Core 3.1.2, RFC 9207
    token          build_code_request, judge_token_response; received_tokens when it is refused  Core 3.1.3, RFC 6749
    id_token       verify_id_token, the first maker of VerifiedClaims                            Core 3.1.3.7
    userinfo       build_userinfo_request, judge_userinfo_response                               Core 5.3
    refresh        build_refresh_request, judge_refresh_response, verify_refreshed_id_token      Core 12
    revocation     build_revocation_request, judge_revocation_response                           RFC 7009
    access_token   addressee, verify_access_token: what comes to an API of the portal's own      RFC 9068
    introspection  build_introspection_request, judge_introspection_response                     RFC 7662
    logout         build_end_session_url, hint_parameters                                        RP-Initiated Logout 2

Below them: `jose` judges the structure of a JWS, `jwks` the choice of a key, `client_auth` adds the client's proof,
`transport` holds the types of an exchange. Signatures are verified by PyJWT and cryptography, never by our arithmetic.

A judging function raises an error of `django_phi_oidc.errors` with the code of the rule, whatever it is given, or
returns a frozen value that has passed. Messages and reprs hold no token, no secret, no `sub`, no query string, and no
error raised here has another one in its context: a parser's error holds the text that it could not parse.
"""
