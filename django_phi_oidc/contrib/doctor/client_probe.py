"""Find out how the client is registered, by the requests of a sign-in that no user makes.

The authorization endpoint is asked with `prompt=none`: a provider returns the error
`login_required` to a registered redirect URI, and shows an error page of its own for any other. The
same request with an invented redirect URI shows whether it makes that difference. The token
endpoint refuses an invented code with `invalid_grant` if it knows the client, and with
`invalid_client` if not.
Spec: OIDC Core 3.1.2.6; RFC 6749 4.1.2.1, 5.2.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from urllib.parse import parse_qs, urlsplit

from ..._internal import randomness
from ...claims.minimization import build_claims_request
from ...config.claims import ClaimDeclaration
from ...config.providers import ProviderDeclaration
from ...errors import (
    Code,
    PARError,
    PushedRequestError,
    TokenError,
    TokenResponseError,
    TransportError,
)
from ...http.transport import Transport, TransportRequest, TransportResponse, add_query
from ...oidc.authorization import AuthorizationRequest, build_authorization_parameters
from ...oidc.client_auth import AssertionFreshness, ClientContext
from ...oidc.dpop import SEED_BYTES, create_proof_key, is_dpop_enabled
from ...oidc.error_codes import get_error_code
from ...oidc.metadata import ProviderMetadata
from ...oidc.pushed_authorization import build_par_request, is_par_enabled, process_par_response
from ...oidc.remedies import find_remedy
from ...oidc.request_object import build_signed_parameters
from ...oidc.token import build_token_request, process_token_response
from ...provider.dpop_requests import send_with_proof
from ..common.provider_findings import (
    FindingLevel,
    ProviderFinding,
    diagnose_request_error,
    sanitize_text,
)

TIMEOUT_SECONDS = 10.0
"""For each response."""
PROOF_ERRORS = ("invalid_dpop_proof", "use_dpop_nonce")
_SILENT_ERRORS = (
    "login_required",
    "interaction_required",
    "consent_required",
    "account_selection_required",
)
"""What a provider answers to prompt=none if the request is otherwise valid. Spec: OIDC Core
3.1.2.6.
"""
_FATAL_ERRORS = ("unauthorized_client", "invalid_scope", "unsupported_response_type")
"""Other errors may be caused by prompt=none, which a sign-in does not send."""

ClientVerdict = Literal["known", "rejected", "forbidden", "proof_required", "unclear"]
AnswerPlace = Literal["callback", "refused", "elsewhere"]
PARAnswer = Literal["unused", "accepted"] | PushedRequestError


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenAnswer:
    """The answer of the token endpoint to an invented code."""

    verdict: ClientVerdict
    text: str
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorizationAnswer:
    """Where the authorization endpoint sends a browser without a session, and the error that it
    passes there.
    """

    place: AnswerPlace
    text: str
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrationAnswers:
    """All that the provider shows of the registration."""

    callback_url: str
    token: TokenAnswer
    par: PARAnswer
    authorization: AuthorizationAnswer
    invented: AuthorizationAnswer
    """For a redirect URI that can only be registered by a wildcard."""

    @property
    def is_redirect_uri_known(self) -> bool:
        """Whether the provider treats the redirect URI otherwise than an invented one, so that it
        knows the client.
        """
        return self.authorization.place not in (self.invented.place, "refused")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientProbe:
    """The requests. No login page is followed, and nothing is changed."""

    declaration: ProviderDeclaration
    metadata: ProviderMetadata
    callback_url: str
    claims: Mapping[str, ClaimDeclaration]
    transport: Transport
    clock: Callable[[], datetime]

    def send_invented_code(self) -> TokenAnswer:
        """Raises: TransportError."""
        code = randomness.token_b64url(32)
        code_verifier = randomness.token_b64url(32)
        response = self._send(
            lambda: build_token_request(
                code=code,
                redirect_uri=self.callback_url,
                code_verifier=code_verifier,
                **self._build_context(),
            )
        )
        return process_token_answer(response, declaration=self.declaration)

    def push_request(self) -> PARAnswer:
        """Push the request of a sign-in, if sign-ins are pushed. Raises: TransportError."""
        if not is_par_enabled(metadata=self.metadata, declaration=self.declaration):
            return "unused"
        response = self._send(
            lambda: build_par_request(
                parameters=self._build_parameters(self.callback_url, is_pushed=True),
                **self._build_context(),
            )
        )
        try:
            process_par_response(response, declaration=self.declaration)
        except PushedRequestError as error:
            return error
        return "accepted"

    def send_browser_request(self, redirect_uri: str) -> AuthorizationAnswer:
        """Send the request of a sign-in as the browser would, with `prompt=none`."""
        parameters = self._build_parameters(redirect_uri, is_pushed=False)
        url = add_query(self.metadata.authorization_endpoint, parameters)
        request = TransportRequest(
            method="GET", url=url, headers={"Accept": "text/html"}, accepts_redirect=True
        )
        try:
            response = self.transport.send(request, timeout_seconds=TIMEOUT_SECONDS)
        except TransportError as error:
            text = f"the authorization endpoint could not be asked ({error.code})"
            return AuthorizationAnswer(place="elsewhere", text=text)
        return process_authorization_answer(response, redirect_uri=redirect_uri)

    def _send(self, build_request: Callable[[], TransportRequest]) -> TransportResponse:
        """Send the request as a sign-in does: with a proof of a new key, if the declaration has
        DPoP.
        """
        is_enabled = is_dpop_enabled(metadata=self.metadata, declaration=self.declaration)
        key = None
        if is_enabled:
            key = create_proof_key(randomness.token_b64url(SEED_BYTES))

        return send_with_proof(
            build_request,
            transport=self.transport,
            key=key,
            clock=self.clock,
            timeout_seconds=TIMEOUT_SECONDS,
        )

    def _build_context(self) -> ClientContext:
        freshness = AssertionFreshness(now=self.clock(), jti=randomness.token_b64url(32))
        return ClientContext(
            metadata=self.metadata, declaration=self.declaration, freshness=freshness
        )

    def _build_parameters(self, redirect_uri: str, *, is_pushed: bool) -> dict[str, str]:
        state, nonce, code_verifier = (randomness.token_b64url(32) for _ in range(3))
        claims_request = build_claims_request(self.claims, provider_declaration=self.declaration)
        parameters = build_authorization_parameters(
            metadata=self.metadata,
            declaration=self.declaration,
            request=AuthorizationRequest(
                state=state, nonce=nonce, code_verifier=code_verifier, redirect_uri=redirect_uri
            ),
            scope=claims_request.scope,
            claims=claims_request.claims,
        )
        if not is_pushed:
            parameters["prompt"] = "none"
        freshness = self._build_context()["freshness"]
        return build_signed_parameters(
            parameters, declaration=self.declaration, freshness=freshness, is_pushed=is_pushed
        )


def probe_client(probe: ClientProbe) -> Iterator[ProviderFinding]:
    """Yield the findings about the registration of the client."""
    callback_url = probe.callback_url
    try:
        token = probe.send_invented_code()
        par = probe.push_request()
    except TransportError as error:
        yield diagnose_request_error("client", error, prefix="the client was not checked: ")
        return
    answer = probe.send_browser_request(callback_url)
    invented = answer
    if answer.place != "refused":
        invented = probe.send_browser_request(f"{callback_url}{randomness.token_b64url(16)}/")
    yield from check_registration(
        RegistrationAnswers(
            callback_url=callback_url, token=token, par=par, authorization=answer, invented=invented
        )
    )


def process_token_answer(
    response: TransportResponse, *, declaration: ProviderDeclaration
) -> TokenAnswer:
    """Return what the refusal of an invented code says about the client. Spec: RFC 6749 5.2."""
    text = f"the token endpoint returned {response.status} for an invented code"
    error = ""
    try:
        process_token_response(response, declaration=declaration)
    except TokenError as refusal:
        error = refusal.error
        text = f"{text}, error {refusal.error}"
    except TokenResponseError:
        pass
    verdict: ClientVerdict = "unclear"
    if error in PROOF_ERRORS:
        verdict = "proof_required"
    elif error == "invalid_client" or response.status == 401:
        verdict = "rejected"
    elif error == "invalid_grant":
        verdict = "known"
    elif error in ("unauthorized_client", "unsupported_grant_type"):
        verdict = "forbidden"
    return TokenAnswer(verdict=verdict, text=text, error=error)


def process_authorization_answer(
    response: TransportResponse, *, redirect_uri: str
) -> AuthorizationAnswer:
    """Return where the browser would be sent. Spec: RFC 6749 4.1.2.1."""
    text = f"the authorization endpoint returned {response.status}"
    if 400 <= response.status < 500:
        return AuthorizationAnswer(place="refused", text=text)
    location = response.headers.get("location", "")
    if (
        300 <= response.status < 400
        and location.partition("?")[0].partition("#")[0] == redirect_uri
    ):
        errors = parse_qs(urlsplit(location).query).get("error", [""])
        if errors[0]:
            error = get_error_code(errors[0])
        else:
            error = ""

        return AuthorizationAnswer(place="callback", text=text, error=error)
    return AuthorizationAnswer(place="elsewhere", text=text)


def check_registration(answers: RegistrationAnswers) -> Iterator[ProviderFinding]:
    """Yield the findings: the client, its redirect URI, the request, and DPoP."""
    yield _check_client(answers)
    if answers.token.verdict != "rejected" or answers.is_redirect_uri_known:
        yield _check_redirect_uri(answers)
    yield from _check_request(answers)


def _check_client(answers: RegistrationAnswers) -> ProviderFinding:
    token = answers.token
    match token.verdict:
        case "known":
            return _finding(
                "ok",
                "client",
                "",
                "the token endpoint knows the client: it refused an invented code",
            )
        case "proof_required":
            text = f"{token.text}: it issues only tokens that are bound by DPoP"
            return _finding("failure", "dpop", "dpop_required", text, find_remedy(token.error))
        case "forbidden":
            return _finding("failure", "client", token.error, token.text, find_remedy(token.error))
        case "unclear":
            remedy = "Sign in once: only that shows whether it knows the client."
            return _finding("warning", "client", Code.TOKEN_ERROR, token.text, remedy)
        case "rejected":
            text = token.text
            remedy = find_remedy("invalid_client")
            if answers.is_redirect_uri_known:
                text = f"{text}; the authorization endpoint knows the client_id"
                remedy = (
                    "client_secret or client_keys must be those of the registration, and "
                    "token_endpoint_auth_method its method."
                )
            elif answers.authorization.place == "refused":
                text = f"{text}; the authorization endpoint refuses it, too"
                remedy = (
                    "client_id must be that of the registration at this issuer. If it is, register "
                    f"the redirect URI {answers.callback_url} and "
                    "correct client_secret or client_keys."
                )
            return _finding("failure", "client", "invalid_client", text, remedy)


def _check_redirect_uri(answers: RegistrationAnswers) -> ProviderFinding:
    callback_url = answers.callback_url
    answer = answers.authorization
    if answers.is_redirect_uri_known:
        return _finding("ok", "redirect", "", f"{callback_url} is registered")
    if answer.place == "callback":
        text = f"{callback_url} is accepted, and so is an invented redirect URI"
        remedy = (
            "Register the exact redirect URI, without a wildcard. If "
            "it is, sign in once: only that shows it."
        )
        return _finding("warning", "redirect", "redirect_uri_unchecked", text, remedy)
    if answers.par == "accepted":
        return _finding("ok", "redirect", "", f"{callback_url} is registered")
    if answer.place == "refused":
        text = f"{answer.text} for {callback_url}: it is not registered"
        remedy = (
            f"Register exactly {callback_url} as a redirect URI at "
            "the provider, with the slash at its end."
        )
        return _finding("failure", "redirect", "redirect_uri_unregistered", text, remedy)
    text = f"{answer.text} and no redirect to {callback_url}: it may not be registered"
    remedy = "Compare it with the redirect URIs of the registration, then sign in once."
    return _finding("warning", "redirect", "redirect_uri_unconfirmed", text, remedy)


def _check_request(answers: RegistrationAnswers) -> Iterator[ProviderFinding]:
    """Yield what the provider refuses in the request of a sign-in, if client and redirect URI are
    not the reason.
    """
    error = answers.authorization.error
    par = answers.par
    if isinstance(par, PARError) and par.error in PROOF_ERRORS:
        yield _finding("failure", "dpop", "dpop_required", str(par), find_remedy(par.error))
    elif isinstance(par, PushedRequestError):
        if isinstance(par, PARError):
            par_error = par.error
        else:
            par_error = ""

        is_redirect_uri_wrong = (
            answers.authorization.place == "refused" and answers.token.verdict == "known"
        )
        if par_error != "invalid_client" and not is_redirect_uri_wrong:
            yield diagnose_request_error("par", par)
    elif par == "unused" and error and error not in _SILENT_ERRORS:
        level: FindingLevel
        if error in _FATAL_ERRORS:
            level = "failure"
        else:
            level = "warning"

        text = f"the provider answers the request of a sign-in with the error {error}"
        yield _finding(
            level, "request", Code.PROVIDER_ERROR, text, find_remedy(Code.PROVIDER_ERROR, error)
        )


def _finding(
    level: FindingLevel, check: str, code: str, text: str, remedy: str = ""
) -> ProviderFinding:
    return ProviderFinding(
        check=check, level=level, code=code, text=sanitize_text(text), remedy=remedy
    )
