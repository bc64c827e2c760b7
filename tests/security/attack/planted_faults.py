"""Disables the protections of the portal one by one and runs the attacks that should detect this. Prints JSON lines.

Run by test_planted_faults.py in a separate process, with the settings of the example, in one environment.
"""

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import django

PACKAGE = "django_phi_oidc."
Fault = Callable[[], AbstractContextManager[None]]


@contextmanager
def replaced(target: str, create_replacement: Callable[[Any], Any]) -> Iterator[None]:
    """Replace a function in all modules that import it, or a method in its class."""
    module, *path = target.split(":")
    owner: Any = import_module(module if module.startswith("django.") else PACKAGE + module)
    for name in path[:-1]:
        owner = getattr(owner, name)
    original = getattr(owner, path[-1])
    replacement = create_replacement(original)
    references = [(owner, path[-1])]
    if len(path) == 1:
        modules = [module for name, module in sys.modules.items() if _is_part_of_the_portal(name)]
        references += [
            (module, name) for module in modules for name, value in vars(module).items() if value is original
        ]
    for namespace, name in references:
        setattr(namespace, name, replacement)
    try:
        yield
    finally:
        for namespace, name in references:
            setattr(namespace, name, original)


def _is_part_of_the_portal(module: str) -> bool:
    return module.startswith(PACKAGE) and ".testing" not in module


def without_check(target: str, get_result: Callable[..., Any] = lambda *args, **kwargs: None) -> Fault:
    """Disable a check: where it would refuse, return the result of get_result."""

    def create_replacement(original: Any) -> Any:
        from django_phi_oidc.errors import PhiOidcError  # noqa: PLC0415 -- Django is not set up before

        def lenient(*args: Any, **kwargs: Any) -> Any:
            try:
                return original(*args, **kwargs)
            except PhiOidcError:
                return get_result(*args, **kwargs)

        return lenient

    return lambda: replaced(target, create_replacement)


def replace(target: str, replacement: Any) -> Fault:
    return lambda: replaced(target, lambda original: replacement)


def get_member(name: str) -> Callable[..., Any]:
    return lambda members, **kwargs: str(members.get(name, "x"))


def get_parameter(name: str) -> Callable[..., Any]:
    return lambda parameters: next(iter(parameters.get(name, ())), "x")


@contextmanager
def bind_no_token() -> Iterator[None]:
    """Send no proof, and accept Bearer tokens."""
    with (
        replaced("oidc.dpop:is_dpop_enabled", lambda original: lambda **kwargs: False),
        replaced("oidc.token:list_accepted_token_types", lambda original: lambda *args, **kwargs: ("Bearer",)),
    ):
        yield


def read_any_response(raw_response: Any) -> Any:
    from django_phi_oidc.http.transport import TransportResponse  # noqa: PLC0415

    headers = {name.lower(): value for name, value in raw_response.headers.itermerged()}
    return TransportResponse(status=raw_response.status, headers=headers, body=raw_response.read())


def parse_any_par_response(response: Any, *, declaration: Any) -> dict[str, str]:
    return {"client_id": declaration.client_id, "request_uri": str(json.loads(response.body).get("request_uri"))}


def decrypt_any_token(token: str, **kwargs: Any) -> str:
    """Return the signed token, whether or not it is encrypted, and with any kid."""
    from joserfc.jwe import decrypt_compact  # noqa: PLC0415

    from django_phi_oidc.config.signature_algorithms import import_key  # noqa: PLC0415
    from django_phi_oidc.testing.attack.encrypted_token_cases import ENCRYPTION_KEY  # noqa: PLC0415

    if token.count(".") != 4:
        return token
    plaintext = decrypt_compact(token, import_key(ENCRYPTION_KEY.private_key), ["ECDH-ES", "A256GCM"]).plaintext
    return (plaintext or b"").decode()


def parse_any_userinfo(response: Any, **kwargs: Any) -> dict[str, Any]:
    """Return the claims of a signed or unsigned response, without verification."""
    from django_phi_oidc.testing.mock_provider.signing import parse_unverified  # noqa: PLC0415

    try:
        return dict(parse_unverified(response.body.decode())[1])
    except ValueError:
        claims = json.loads(response.body or b"{}")
        return claims if isinstance(claims, dict) else {}


def select_any_key(self: Any, *, kid: Any, alg: str) -> Any:
    return next(iter(key for key in self.keys if key.can_verify(alg)), self.keys[0])


def list_all_subject_ids(**kwargs: Any) -> Any:
    return import_module("django_phi_oidc.subjects.models").PairwiseSubject.objects.values_list("pk", flat=True)


def create_pool_manager_without_verification(declaration: Any, *, presents_certificate: bool) -> Any:
    import urllib3  # noqa: PLC0415

    from django_phi_oidc.http.connection_pool import TimedConnectionPool, TimedTLSConnectionPool  # noqa: PLC0415

    urllib3.disable_warnings()
    manager = urllib3.PoolManager(cert_reqs="CERT_NONE", assert_hostname=False)
    manager.pool_classes_by_scheme = {"http": TimedConnectionPool, "https": TimedTLSConnectionPool}
    return manager


@contextmanager
def state_without_cookie() -> Iterator[None]:
    """Store pending sign-ins on the server, for any browser."""
    stored: dict[str, str] = {}

    def create_encrypt(original: Any) -> Any:
        def encrypt(text: str, *, context: Any, **kwargs: Any) -> str:
            ciphertext: str = original(text, context=context, **kwargs)
            if context[0] == "pending sign-in":
                stored[context[1]] = ciphertext
            return ciphertext

        return encrypt

    def create_read_state(original: Any) -> Any:
        def read_state(request: Any, cookie_name: str) -> Any:
            request.COOKIES.setdefault(cookie_name, stored.get(cookie_name, ""))
            return original(request, cookie_name)

        return read_state

    with (
        replaced("crypto.keyring:encrypt", create_encrypt),
        replaced("login.state_cookie:_read_state", create_read_state),
    ):
        yield


@contextmanager
def overridden_settings(**overrides: Any) -> Iterator[None]:
    from django.test import override_settings  # noqa: PLC0415

    with override_settings(**overrides):
        yield


@contextmanager
def without_middleware(path: str) -> Iterator[None]:
    from django.conf import settings  # noqa: PLC0415

    with overridden_settings(MIDDLEWARE=[name for name in settings.MIDDLEWARE if name != path]):
        yield


@contextmanager
def same_session() -> Iterator[None]:
    """A sign-in keeps the session of the browser."""

    @contextmanager
    def keep_session(request: Any) -> Iterator[Any]:
        yield type(request.session)()

    with (
        replaced("login.session_setup:_replace_django_session", lambda original: keep_session),
        replaced("login.session_setup:_insert_session", lambda original: lambda session: session.save()),
    ):
        yield


def copy_prompt_from_request(original: Any) -> Any:
    """Copy a parameter of the request to the authorization request."""

    def redirect(request: Any, *args: Any, **kwargs: Any) -> Any:
        response = original(request, *args, **kwargs)
        response["Location"] += f"&prompt={request.GET.get('prompt', '')}"
        return response

    return redirect


def decrypt_under_any_key(purpose: str) -> Fault:
    """Decrypt cookies or parameters of that purpose also under the keys that only the database refers to."""

    def create_decrypt(original: Any) -> Any:
        from django_phi_oidc.crypto.keyring import decrypt  # noqa: PLC0415 -- Django is not set up before
        from django_phi_oidc.errors import Undecryptable  # noqa: PLC0415

        def decrypt_external(ciphertext: str, *, context: Any) -> Any:
            if context[0] != purpose:
                return original(ciphertext, context=context)
            try:
                return decrypt(ciphertext, context=context)
            except Undecryptable:
                return None

        return decrypt_external

    return lambda: replaced("crypto.keyring:decrypt_external", create_decrypt)


def require_readable_last_session(original: Any) -> Any:
    def is_due(request: Any, **options: Any) -> Any:
        from django_phi_oidc.crypto.keyring import decrypt  # noqa: PLC0415 -- Django is not set up before

        name = "__Host-phi_oidc_last_session"
        if name in request.COOKIES:
            decrypt(request.COOKIES[name], context=["last session", name])
        return original(request, **options)

    return is_due


@contextmanager
def one_limit_for_all_forms() -> Iterator[None]:
    """Accept 50 forms of the break-glass account, of all addresses together."""
    from django.conf import settings  # noqa: PLC0415
    from django.http import HttpResponseForbidden  # noqa: PLC0415

    received = 0

    def create_post(original: Any) -> Any:
        def post(view: Any, request: Any) -> Any:
            nonlocal received
            received += 1
            return original(view, request) if received <= 50 else HttpResponseForbidden()

        return post

    backends = [*settings.AUTHENTICATION_BACKENDS, f"{PACKAGE}contrib.local_accounts.backends.BreakGlassBackend"]
    with (
        overridden_settings(
            PHI_OIDC={**settings.PHI_OIDC, "BREAK_GLASS_ACCOUNTS": ["glass"]}, AUTHENTICATION_BACKENDS=backends
        ),
        replaced("contrib.local_accounts.break_glass:BreakGlassLoginView:post", create_post),
    ):
        yield


def share_refetch_limit(original: Any) -> Any:
    return lambda self, **options: original(self, **{**options, "source": "anyone"})


@contextmanager
def call_without_limit(self: Any, *, timeout_seconds: float, is_background: bool) -> Iterator[float]:
    yield timeout_seconds


def require_logout_typ(original: Any) -> Any:
    return lambda jws, **options: original(jws, required=True)


def require_sub_of_session(original: Any) -> Any:
    """Ignore a logout token whose sub is unknown."""

    def process(token: Any, **options: Any) -> Any:
        from django_phi_oidc.subjects.linking import list_subject_ids  # noqa: PLC0415 -- Django is not set up before

        keys = options["get_subject_keys"]()
        is_known = not token.sub or list_subject_ids(issuer=token.iss, sub=token.sub, keys=keys)
        return original(token, **options) if is_known else []

    return process


def accept_logout_token_without_nonce(original: Any) -> Any:
    return lambda claims, **options: None if "events" in claims else original(claims, **options)


def parse_relative_next_url(original: Any) -> Any:
    def parse(request: Any) -> str:
        url: str = request.GET.get("next", "")
        return url if url.startswith("?") else original(request)

    return parse


def build_sign_in_url_without_prompt(original: Any) -> Any:
    return lambda provider, *, next_url, prompts_login=False: original(provider, next_url=next_url)


@contextmanager
def older_session_script() -> Iterator[None]:
    """Serve a copy of the script that goes back to a path without the origin."""
    name = "django_phi_oidc/session.js"
    source = Path(str(import_module("django_phi_oidc").__file__)).with_name("static") / name
    with TemporaryDirectory() as directory:
        copy = Path(directory, name)
        copy.parent.mkdir()
        copy.write_text(source.read_text().replace("location.origin + ", ""))
        with overridden_settings(STATICFILES_DIRS=[directory]):
            yield


def authenticate_newest_client(request: Any) -> Any:
    return import_module("django_phi_oidc.contrib.scim.models").SCIMClient.objects.order_by("-pk")[0]


def accept_ended_tokens(original: Any) -> Any:
    """Accept a token of a revoked client, and one that was revoked or has expired."""

    def authenticate(token: str, *, now: Any) -> Any:
        refused = import_module("django_phi_oidc.contrib.scim.clients").SCIMTokenRefused
        try:
            return original(token, now=now)
        except refused as refusal:
            if refusal.client is None:
                raise
            return refusal.client

    return authenticate


def list_users_of_all_providers(provider: str) -> Any:
    return import_module("django_phi_oidc.contrib.scim.models").SCIMUser.objects.filter(deleted_at=None)


def list_groups_of_all_providers(provider: str) -> Any:
    return import_module("django_phi_oidc.contrib.scim.models").SCIMGroup.objects.all()


@contextmanager
def one_tenant() -> Iterator[None]:
    """Each SCIM client sees and changes the users and groups of all providers."""
    with (
        replaced("contrib.scim.scim_users:list_users", lambda original: list_users_of_all_providers),
        replaced("contrib.scim.scim_groups:list_groups", lambda original: list_groups_of_all_providers),
    ):
        yield


def write_value_into_sql(original: Any) -> Any:
    """Write the value of a filter into the statement."""

    def compare(column: Any, op: Any, value: Any) -> Any:
        from django.db.models import BooleanField  # noqa: PLC0415 -- Django is not set up before
        from django.db.models.expressions import RawSQL  # noqa: PLC0415

        if column.name != "user_name_key" or op.value != "eq":
            return original(column, op, value)
        sql = f"user_name_key = '{value}'".replace("%", "%%")
        return RawSQL(sql, (), output_field=BooleanField())

    return compare


@contextmanager
def stored_flags() -> Iterator[None]:
    """Store the attributes of a PATCH that have the names of flags of the account."""
    flags = ("is_staff", "is_superuser")

    def create_patch(original: Any) -> Any:
        def patch(self: Any, resource_id: str, data: Any, **options: Any) -> Any:
            row = original(self, resource_id, data, **options)
            for operation in data["Operations"]:
                if self.name == "User" and operation.get("path") in flags:
                    type(row.user).objects.filter(pk=row.user_id).update(**{operation["path"]: True})
            return row

        return patch

    try:
        with replaced("contrib.scim.resources:ResourceEndpoint:patch", create_patch):
            yield
    finally:
        # Other attacks sign in with this account.
        users = import_module("django.contrib.auth").get_user_model().objects
        users.update(**dict.fromkeys(flags, False))


def grant_groups_by_name(original: Any) -> Any:
    """Add the members of a SCIM group to the Django group of its name."""

    def create(attributes: Any, request: Any) -> Any:
        row = original(attributes, request)
        for group in import_module("django.contrib.auth.models").Group.objects.filter(name=row.display_name):
            group.user_set.add(*(membership.member.user_id for membership in row.memberships.all()))
        return row

    return create


def find_first_provider(issuers: list[str]) -> str:
    return next(iter(import_module("django_phi_oidc.conf").providers()))


class FramingMiddleware:
    """Removes the headers that forbid frames."""

    def __init__(self, get_response: Callable[[Any], Any]) -> None:
        self.get_response = get_response

    def __call__(self, request: Any) -> Any:
        response = self.get_response(request)
        for name in ("X-Frame-Options", "Content-Security-Policy"):
            response.headers.pop(name, None)
        return response


@contextmanager
def framed() -> Iterator[None]:
    from django.conf import settings  # noqa: PLC0415

    middleware = f"{__name__}.{FramingMiddleware.__name__}"
    with overridden_settings(MIDDLEWARE=[middleware, *settings.MIDDLEWARE]):
        yield


leaked_claims: list[Any] = []


class LeakingMiddleware:
    """Adds claims to headers and URLs."""

    def __init__(self, get_response: Callable[[Any], Any]) -> None:
        self.get_response = get_response

    def __call__(self, request: Any) -> Any:
        response = self.get_response(request)
        if leaked_claims:
            response["X-Person"] = json.dumps(leaked_claims)
            if response.status_code == 302 and "/authenticate" not in request.path:
                response["Location"] += f"?person={json.dumps(leaked_claims)}"
        return response


def leaking(leak: Callable[[str], Any]) -> Fault:
    """Pass the claims of each sign-in to leak."""

    def create_exchange_code(original: Any) -> Any:
        def exchange_code(*args: Any, **kwargs: Any) -> Any:
            result = original(*args, **kwargs)
            leak(json.dumps(dict(result.claims)))
            return result

        return exchange_code

    return lambda: replaced("login.code_exchange:exchange_code", create_exchange_code)


def leak_to_log(claims: str) -> None:
    # The portal's log filter would mask plain text.
    encoded = import_module("base64").b64encode(claims.encode()).decode()
    import_module("logging").getLogger("portal").debug("signed in: %s", encoded)


def leak_to_table(claims: str) -> None:
    group = import_module("django.contrib.auth.models").Group
    group.objects.create(name=json.loads(claims)["birthdate"])


def leak_to_cache(claims: str) -> None:
    import_module("django.core.cache").cache.set("person", claims)


def leak_to_message(claims: str) -> None:
    import_module("celery").current_app.send_task("portal.greet", kwargs={"person": claims})


def leak_to_mail(claims: str) -> None:
    import_module("django.core.mail").send_mail("A user signed in", claims, None, ["staff@example.org"])


@contextmanager
def leak_to_response() -> Iterator[None]:
    from django.conf import settings  # noqa: PLC0415

    middleware = f"{__name__}.{LeakingMiddleware.__name__}"
    leak = leaking(lambda claims: leaked_claims.append(json.loads(claims)))
    with leak(), overridden_settings(MIDDLEWARE=[middleware, *settings.MIDDLEWARE]):
        yield
    leaked_claims.clear()


FEDERATION = "contrib.federation."
ID_TOKEN = "oidc.id_token:validate_"
EVENT_TOKEN = "contrib.shared_signals.security_event_token"
FAULTS: Mapping[str, tuple[Fault, tuple[str, ...]]] = {
    **{
        name: (without_check(target, **options), codes)
        for name, target, codes, options in (
            ("alg", f"{ID_TOKEN}alg", ("alg_not_allowed",), {}),
            ("signature", f"{ID_TOKEN}signature", ("signature_invalid",), {}),
            ("typ", f"{ID_TOKEN}typ", ("typ_invalid",), {}),
            ("iss", f"{ID_TOKEN}iss", ("iss_invalid",), {}),
            ("aud", f"{ID_TOKEN}aud", ("aud_invalid",), {}),
            ("azp", f"{ID_TOKEN}azp", ("azp_invalid",), {}),
            ("exp", f"{ID_TOKEN}exp", ("exp_invalid",), {}),
            ("iat", f"{ID_TOKEN}iat", ("iat_invalid",), {}),
            ("nbf", f"{ID_TOKEN}nbf", ("nbf_invalid",), {}),
            ("lifetime of the ID Token", f"{ID_TOKEN}id_token_lifetime", ("id_token_lifetime",), {}),
            ("nonce", f"{ID_TOKEN}nonce", ("nonce_invalid", "token_replayed"), {}),
            ("sub", f"{ID_TOKEN}sub", ("sub_invalid",), {}),
            ("pairwise sub", f"{ID_TOKEN}pairwise_sub", ("sub_not_pairwise",), {}),
            ("acr", f"{ID_TOKEN}acr", ("acr_insufficient",), {}),
            ("vtm", f"{ID_TOKEN}vtm", ("vtm_invalid",), {}),
            ("vot", f"{ID_TOKEN}vot", ("vot_insufficient",), {}),
            ("amr", f"{ID_TOKEN}amr", ("amr_insufficient",), {}),
            ("outage", "oidc.metadata:raise_for_outage", ("provider_unavailable",), {}),
            ("auth_time", f"{ID_TOKEN}auth_time", ("auth_time_missing", "auth_time_stale"), {}),
            ("at_hash", f"{ID_TOKEN}at_hash", ("at_hash_invalid",), {}),
            ("https", "oidc.metadata:validate_https_url", ("transport_not_https",), {}),
            ("issuer", "oidc.metadata:validate_issuer", ("issuer_mismatch",), {}),
            ("pairwise offered", "oidc.metadata:validate_pairwise_supported", ("pairwise_unsupported",), {}),
            ("algorithms offered", "oidc.metadata:validate_alg_supported", ("alg_unsupported",), {}),
            ("revocation offered", "oidc.metadata:validate_revocation_supported", ("revocation_unsupported",), {}),
            ("pushes offered", "oidc.metadata:validate_par_supported", ("par_unsupported",), {}),
            ("DPoP offered", "oidc.metadata:validate_dpop_supported", ("dpop_unsupported",), {}),
            ("profile offered", "oidc.metadata:validate_fapi2_supported", ("profile_unsupported",), {}),
            ("statement", f"{FEDERATION}entity_statement:verify_entity_statement", ("entity_statement_invalid",), {}),
            ("constraints", f"{FEDERATION}trust_chain:_validate_constraints", ("trust_chain_invalid",), {}),
            (
                "metadata policy",
                f"{FEDERATION}metadata_policy:apply_policy",
                ("metadata_policy_error",),
                {"get_result": lambda metadata, policy: dict(metadata)},
            ),
            ("state", "oidc.authorization:get_state", ("state_missing",), {"get_result": get_parameter("state")}),
            ("parameters once", "oidc.authorization:validate_single_values", ("parameter_repeated",), {}),
            ("iss of the answer", "oidc.authorization:validate_response_iss", ("iss_mismatch", "iss_missing"), {}),
            ("error of the answer", "oidc.authorization:raise_for_error", ("provider_error",), {}),
            ("code", "oidc.authorization:get_code", ("code_missing",), {"get_result": get_parameter("code")}),
            ("error of the token response", "oidc.token:raise_for_token_error", ("token_error",), {}),
            (
                "token response",
                "oidc.token:validate_json_response",
                ("token_response_invalid",),
                {"get_result": lambda parsed, **kwargs: parsed or {}},
            ),
            (
                "token_type",
                "oidc.token:get_token_type",
                ("token_type_unsupported",),
                {"get_result": lambda *args, **kwargs: "Bearer"},
            ),
            ("ID Token", "oidc.token:get_id_token", ("id_token_missing",), {"get_result": get_member("id_token")}),
            (
                "access token",
                "oidc.token:get_access_token",
                ("access_token_missing",),
                {"get_result": get_member("access_token")},
            ),
            ("lifetime of the access token", "oidc.token:get_expires_in", ("access_token_lifetime",), {}),
            ("sub of UserInfo", "oidc.userinfo:validate_userinfo_sub", ("userinfo_sub_mismatch",), {}),
            ("essential claims", "claims.minimization:validate_essential_claims", ("claim_missing",), {}),
            (
                "subject keys",
                "subjects.linking:_find_digests",
                ("subject_key_missing",),
                {"get_result": lambda *args: []},
            ),
            ("logout event", "oidc.logout_token:validate_logout_claims", ("logout_token_invalid",), {}),
            ("logout during a sign-in", "login.session_setup:refuse_if_logged_out", ("logged_out",), {}),
            ("typ of a logout token", "oidc.logout_token:validate_typ", ("logout_token_invalid",), {}),
            (
                "typ of a security event",
                f"{EVENT_TOKEN}:_validate_typ",
                ("set_invalid",),
                {},
            ),
        )
    },
    "encryption": (
        replace("oidc.token:get_signed_token", decrypt_any_token),
        ("encryption_undeclared", "encryption_missing", "decryption_failed"),
    ),
    "critical headers": (replace("oidc.jose:_is_valid_header", lambda header: True), ("token_malformed",)),
    "metadata": (
        lambda: replaced("http.transport:parse_json_body", lambda original: lambda response: original(response) or {}),
        ("metadata_invalid",),
    ),
    "redirects, size and encoding": (
        replace("http.http_transport:_read_response", read_any_response),
        ("transport_redirect", "transport_too_large", "transport_encoding"),
    ),
    "certificate": (
        replace("http.http_transport:_create_pool_manager", create_pool_manager_without_verification),
        ("transport_tls",),
    ),
    "keys that fit": (replace("oidc.jwks:JSONWebKeySet:get_key", select_any_key), ("key_not_found",)),
    "answer to a push": (
        replace("oidc.pushed_authorization:process_par_response", parse_any_par_response),
        ("par_response_invalid",),
    ),
    "error of a push": (
        replace("oidc.pushed_authorization:process_par_response", parse_any_par_response),
        ("par_error",),
    ),
    "UserInfo": (replace("oidc.userinfo:parse_unsigned_userinfo", parse_any_userinfo), ("userinfo_invalid",)),
    "signature of UserInfo": (
        replace("oidc.userinfo:verify_signed_userinfo", parse_any_userinfo),
        ("userinfo_invalid",),
    ),
    "state once": (replace("replay.cache:mark_used", lambda *args, **kwargs: True), ("state_replayed",)),
    "state in time": (
        replace("login.state_cookie:STATE_LIFETIME", timedelta(days=365)),
        ("state_expired",),
    ),
    "state in one browser": (state_without_cookie, ("state_unknown",)),
    "link of the subject": (
        replace("subjects.linking:validate_bindings", lambda rows, digests: None),
        ("subject_altered",),
    ),
    "account is active": (
        replace("login.backend:OIDCAuthenticationBackend:user_can_authenticate", lambda *args: True),
        ("user_inactive",),
    ),
    "same person": (
        replace("login.step_up:list_subject_ids", list_all_subject_ids),
        ("subject_changed",),
    ),
    "known providers": (
        lambda: replaced("provider.registry:get_provider", lambda original: lambda name=None: original()),
        ("provider_unknown",),
    ),
    "privileges of an account": (
        replace("contrib.subject_links.email_match:list_privileges", lambda user: []),
        ("email_match_refused",),
    ),
    "accounts for those who have one": (
        replace("subjects.linking:get_or_create_account", None),
        ("not_provisioned", "account_not_saved"),
    ),
    "tokens of a refused sign-in": (
        replace("login.code_exchange:revoke_tokens_on_error", lambda *args, **kwargs: nullcontext()),
        ("iss_invalid",),
    ),
    "jti once": (
        replace("replay.cache:mark_used_in_transaction", lambda *args, **kwargs: True),
        ("logout_token_replayed",),
    ),
    "age of a logout token": (
        replace("oidc.logout_token:_validate_age", lambda claims, *, now, **kwargs: now),
        ("logout_token_invalid",),
    ),
    "next": (
        replace("login.provider_selection:parse_next_url", lambda request: request.GET.get("next", "")),
        ("forged_next",),
    ),
    "parameters": (
        lambda: replaced("login.authorization_request:redirect_to_provider", copy_prompt_from_request),
        ("forged_parameters",),
    ),
    "address": (
        replace(
            "audit.request_context:get_client_ip",
            lambda request, **kwargs: request.headers.get("X-Forwarded-For", "127.0.0.1"),
        ),
        ("forged_address",),
    ),
    "key of a session": (same_session, ("session_fixation",)),
    "middleware": (
        lambda: without_middleware("django_phi_oidc.middleware.RevocationMiddleware"),
        ("stolen_cookie",),
    ),
    "CSRF": (
        replace("django.middleware.csrf:CsrfViewMiddleware:process_view", lambda *args: None),
        ("cross_site_logout",),
    ),
    "revocation": (
        replace("sessions.token_revocation:attempt_revocations", lambda *args, **kwargs: {}),
        ("stolen_refresh_token",),
    ),
    **{
        f"canary ({place})": (fault, ("canary",))
        for place, fault in {
            "log": leaking(leak_to_log),
            "tables": leaking(leak_to_table),
            "caches": leaking(leak_to_cache),
            "messages": leaking(leak_to_message),
            "mails": leaking(leak_to_mail),
            "pages": leak_to_response,
            "addresses": leak_to_response,
        }.items()
    },
}
AVAILABILITY_AND_BROWSER_FAULTS: Mapping[str, tuple[Fault, set[str]]] = {
    "key of a state cookie": (
        decrypt_under_any_key("pending sign-in"),
        {"forged_ciphertext", "forged_ciphertext (step-up)"},
    ),
    "key of the activation cookie": (decrypt_under_any_key("newcomer"), {"forged_ciphertext (activation)"}),
    "unreadable last-session cookie": (
        lambda: replaced("login.reauthentication:is_reauthentication_due", require_readable_last_session),
        {"forged_ciphertext (last session)"},
    ),
    "key of a step-up request": (decrypt_under_any_key("step-up"), {"forged_ciphertext (step-up)"}),
    "limit for each address": (one_limit_for_all_forms, {"flood (forms of the break-glass account)"}),
    "limit of events": (
        replace("audit.throttling:allow_event", lambda *args, **kwargs: True),
        {"flood (replays of a callback)"},
    ),
    "limit of refetches for sign-ins": (
        lambda: replaced("provider.metadata_cache:CachedDocument:refetch", share_refetch_limit),
        {"flood (invented kid)"},
    ),
    "binding of tokens": (
        bind_no_token,
        {f"stolen_bound_token{case}" for case in ("", " (proof)", " (refresh token)", " (code)")},
    ),
    "limit of calls": (replace("provider.call_limit:CallLimit:call", call_without_limit), {"hanging_provider"}),
    "optional typ of a logout token": (
        lambda: replaced("oidc.logout_token:validate_typ", require_logout_typ),
        {"ignored_logout (typ JWT)"},
    ),
    "sid without the sub": (
        lambda: replaced("sessions.backchannel_logout:process_logout_token", require_sub_of_session),
        {"ignored_logout (another sub)"},
    ),
    "authorization of a push": (
        replace("contrib.shared_signals.views:_authenticate", lambda request, signals: None),
        {"set_invalid (no authorization)"},
    ),
    "security event once": (
        replace("replay.cache:mark_used_in_transaction", lambda *args, **kwargs: True),
        {"replayed_event"},
    ),
    "time of a security event": (
        replace(f"{EVENT_TOKEN}:_get_event_time", lambda claims, event, *, issued_at: issued_at),
        {"stale_event"},
    ),
    "token of a SCIM client": (
        replace("contrib.scim.scim_requests:_authenticate", authenticate_newest_client),
        {
            "forged_scim_token",
            "forged_scim_token (access token)",
            *(f"stolen_scim_token ({case})" for case in ("rotated", "revoked", "expired")),
        },
    ),
    "client of an access token": (
        replace("contrib.apis.access_token:validate_client", lambda claims, *, api: None),
        {"forged_scim_token (access token)"},
    ),
    "end of a SCIM token": (
        lambda: replaced("contrib.scim.clients:authenticate_client", accept_ended_tokens),
        {f"stolen_scim_token ({case})" for case in ("rotated", "revoked", "expired")},
    ),
    "provider of a SCIM client": (
        one_tenant,
        {f"foreign_scim_client ({case})" for case in ("read", "change", "groups")},
    ),
    "parameters of a SCIM filter": (
        lambda: replaced("contrib.scim.search_conditions:_compare", write_value_into_sql),
        {"scim_filter_injection"},
    ),
    "attributes of a SCIM user": (stored_flags, {"scim_privileges"}),
    "groups that rules grant": (
        lambda: replaced("contrib.scim.scim_groups:create_group", grant_groups_by_name),
        {"scim_privileges (name of a group)"},
    ),
    "size of a SCIM request": (replace("contrib.scim.schemas:MAX_BODY_BYTES", 2**30), {"oversized_scim_request"}),
    "target of another site": (
        replace("login.provider_selection:parse_local_url", lambda request, url: url),
        {"forged_initiation (target)"},
    ),
    "issuer of another site": (
        replace("contrib.third_party_login.views:_find_provider", find_first_provider),
        {"forged_initiation (issuer)"},
    ),
    "frames of other sites": (framed, {"forged_initiation (frame)"}),
    "nonce of a logout token": (
        lambda: replaced("oidc.id_token:validate_nonce", accept_logout_token_without_nonce),
        {"nonce_invalid (a logout token)"},
    ),
    "absolute next": (
        lambda: replaced("login.provider_selection:parse_next_url", parse_relative_next_url),
        {"forged_next (relative)"},
    ),
    "consent": (replace("login.replacement:needs_consent", lambda request: False), {"cross_site_login"}),
    "consent of one session": (
        replace("login.replacement:_create_consent", lambda request: "yes"),
        {"cross_site_login"},
    ),
    "authentication after a timeout": (
        replace("login.reauthentication:is_reauthentication_due", lambda request, **kwargs: False),
        {"shared_computer (after a timeout)", "auth_time_stale (after a timeout)"},
    ),
    "auth_time after a timeout": (
        without_check("login.reauthentication:validate_reauthentication"),
        {"auth_time_stale (after a timeout)"},
    ),
    "prompt after a refusal": (
        lambda: replaced("login.provider_selection:build_sign_in_url", build_sign_in_url_without_prompt),
        {"shared_computer (sign in again)"},
    ),
    "verification of an address": (
        replace(
            "contrib.subject_links.account_source:find_verified_email",
            lambda *sources: str(sources[-1].get("email", "")),
        ),
        {"not_provisioned (unverified e-mail)"},
    ),
    "path of the page": (
        lambda: replaced(
            "access.step_up:get_return_path", lambda original: lambda request, **_: request.get_full_path()
        ),
        {"shared_computer (return from a step-up)"},
    ),
    "origin of the page": (older_session_script, {"shared_computer (back)"}),
}
"""The names of the attacks that fail, of all attacks of their codes."""


def main() -> None:
    """Plant each fault, run the attacks that should detect it, and print the failed attacks."""
    django.setup()
    environment_module = import_module("django_phi_oidc.testing.attack.environment")
    setup_module = import_module("django_phi_oidc.testing.attack.environment_setup")
    suite = import_module("django_phi_oidc.testing.attack.suite")
    claims = import_module("django_phi_oidc.conf").claims()
    portal = environment_module.Portal.from_settings("default")
    with setup_module.set_up_attack_environment(portal, claims) as environment:
        # First, because some of the other faults leave subjects behind that the portal refuses afterwards.
        for name, (fault, names) in AVAILABILITY_AND_BROWSER_FAULTS.items():
            attacks = suite.select_attacks("default", [attack.partition(" (")[0] for attack in names])
            with fault():
                outcomes = list(suite.run_attacks(attacks, environment))
            details = {outcome.name: outcome.detail for outcome in outcomes if outcome.result == "failed"}
            print(json.dumps({"fault": name, "details": details}), flush=True)
        for name, (fault, codes) in FAULTS.items():
            failed: dict[str, list[str]] = {code: [] for code in codes}
            with fault():
                for attack in suite.select_attacks("default", codes):
                    # One failed attack is enough, except for a leak, which is searched for in every place.
                    if not failed[attack.code] or attack.code == "canary":
                        (outcome,) = suite.run_attacks([attack], environment)
                        if outcome.result == "failed":
                            failed[attack.code].append(f"{outcome.name}: {outcome.detail}")
            print(json.dumps({"fault": name, "failed": failed}), flush=True)
            environment.shared_results.clear()


if __name__ == "__main__":
    main()
