"""Faults planted in the portal, one after the other, and what the kit says of each: JSON on standard output.

Run by test_planted_faults.py in a process of its own, with the example's settings, on one stage.
"""

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib import import_module
from typing import Any

import django

PACKAGE = "django_phi_oidc."
Plant = Callable[[], AbstractContextManager[None]]


@contextmanager
def replaced(where: str, make: Callable[[Any], Any]) -> Iterator[None]:
    """Put make(what is there) in the place of a function, wherever it was imported to; of a class's, in the class."""
    module, *path = where.split(":")
    owner: Any = import_module(module if module.startswith("django.") else PACKAGE + module)
    for name in path[:-1]:
        owner = getattr(owner, name)
    there, made = getattr(owner, path[-1]), None
    made = make(there)
    places = [(owner, path[-1])]
    if len(path) == 1:
        loaded = [each for name, each in sys.modules.items() if name.startswith(PACKAGE) and ".attack" not in name]
        places += [(each, name) for each in loaded for name, value in list(vars(each).items()) if value is there]
    for place, name in places:
        setattr(place, name, made)
    try:
        yield
    finally:
        for place, name in places:
            setattr(place, name, there)


def without(where: str, instead: Callable[..., Any] = lambda *args, **kwargs: None) -> Plant:
    """A check that refuses nothing. instead: what is returned where it would have refused."""

    def make(there: Any) -> Any:
        from django_phi_oidc.errors import PhiOidcError  # noqa: PLC0415 -- Django is not set up before

        def lenient(*args: Any, **kwargs: Any) -> Any:
            try:
                return there(*args, **kwargs)
            except PhiOidcError:
                return instead(*args, **kwargs)

        return lenient

    return lambda: replaced(where, make)


def by(where: str, instead: Any) -> Plant:
    """Another function in that place."""
    return lambda: replaced(where, lambda there: instead)


def member(name: str) -> Callable[..., Any]:
    return lambda members, **kwargs: str(members.get(name, "x"))


def text(name: str) -> Callable[..., Any]:
    return lambda parameters: next(iter(parameters.get(name, ())), "x")


def lenient_read(answer: Any) -> Any:
    """Read an answer from the network whatever it is."""
    from django_phi_oidc.oidc.transport import TransportResponse  # noqa: PLC0415

    headers = {name.lower(): value for name, value in answer.headers.itermerged()}
    return TransportResponse(status=answer.status, headers=headers, body=answer.read())


def lenient_par(response: Any, *, declaration: Any) -> dict[str, str]:
    return {"client_id": declaration.client_id, "request_uri": str(json.loads(response.body).get("request_uri"))}


def lenient_userinfo(response: Any, **kwargs: Any) -> dict[str, Any]:
    """Read claims, signed or not, by whomever."""
    from django_phi_oidc.testing.mock_provider.signing import parse_unverified  # noqa: PLC0415

    try:
        return dict(parse_unverified(response.body.decode())[1])
    except ValueError:
        read = json.loads(response.body or b"{}")
        return read if isinstance(read, dict) else {}


def any_key(self: Any, *, kid: Any, alg: str) -> Any:
    return next(iter(key for key in self.keys if key.fits(alg)), self.keys[0])


def any_authority(declaration: Any) -> Any:
    import urllib3  # noqa: PLC0415

    from django_phi_oidc.provider.connection_pool import TimedConnectionPool, TimedTLSConnectionPool  # noqa: PLC0415

    urllib3.disable_warnings()
    manager = urllib3.PoolManager(cert_reqs="CERT_NONE", assert_hostname=False)
    manager.pool_classes_by_scheme = {"http": TimedConnectionPool, "https": TimedTLSConnectionPool}
    return manager


@contextmanager
def pending_of_everybody() -> Iterator[None]:
    """Sign-ins on their way are kept by the server, for whichever browser comes back."""
    kept: dict[str, str] = {}

    def sealing(there: Any) -> Any:
        def seal(text: str, *, context: Any, **kwargs: Any) -> str:
            sealed: str = there(text, context=context, **kwargs)
            if context[0] == "pending sign-in":
                kept[context[1]] = sealed
            return sealed

        return seal

    with (
        replaced("keyring:seal", sealing),
        replaced("login.pending:_open", lambda there: lambda name, text: there(name, text or kept.get(name, ""))),
    ):
        yield


@contextmanager
def settings(**changed: Any) -> Iterator[None]:
    from django.test import override_settings  # noqa: PLC0415

    with override_settings(**changed):
        yield


@contextmanager
def without_middleware(path: str) -> Iterator[None]:
    from django.conf import settings as declared  # noqa: PLC0415

    with settings(MIDDLEWARE=[each for each in declared.MIDDLEWARE if each != path]):
        yield


@contextmanager
def same_session() -> Iterator[None]:
    """A sign-in goes on in the session that the browser brought."""

    @contextmanager
    def old(request: Any) -> Iterator[Any]:
        yield type(request.session)()

    with (
        replaced("login.admitting:_new_django_session", lambda there: old),
        replaced("login.admitting:_create", lambda there: lambda session: session.save()),
    ):
        yield


def request_shapes(there: Any) -> Any:
    """Let a request say what is asked of the provider."""

    def redirect(request: Any, *args: Any, **kwargs: Any) -> Any:
        response = there(request, *args, **kwargs)
        response["Location"] += f"&prompt={request.GET.get('prompt', '')}"
        return response

    return redirect


LEAKED: list[Any] = []


class Leaks:
    """Middleware that shows what was told, where it should not."""

    def __init__(self, get_response: Callable[[Any], Any]) -> None:
        self.get_response = get_response

    def __call__(self, request: Any) -> Any:
        response = self.get_response(request)
        if LEAKED:
            response["X-Person"] = json.dumps(LEAKED)
            if response.status_code == 302 and "/authenticate" not in request.path:
                response["Location"] += f"?person={json.dumps(LEAKED)}"
        return response


def leaking(leak: Callable[[str], Any]) -> Plant:
    """Let a sign-in leave the person's claims somewhere."""

    def make(there: Any) -> Any:
        def exchange(*args: Any, **kwargs: Any) -> Any:
            exchanged = there(*args, **kwargs)
            leak(json.dumps(dict(exchanged.claims)))
            return exchanged

        return exchange

    return lambda: replaced("login.completing:exchange", make)


def log(told: str) -> None:
    # In plain text the portal's own filter would mask it.
    encoded = import_module("base64").b64encode(told.encode()).decode()
    import_module("logging").getLogger("portal").debug("signed in: %s", encoded)


def row(told: str) -> None:
    group = import_module("django.contrib.auth.models").Group
    group.objects.create(name=json.loads(told)["birthdate"])


def cached(told: str) -> None:
    import_module("django.core.cache").cache.set("person", told)


def message(told: str) -> None:
    import_module("celery").current_app.send_task("portal.greet", kwargs={"person": told})


def mailed(told: str) -> None:
    import_module("django.core.mail").send_mail("Somebody signed in", told, None, ["staff@example.org"])


@contextmanager
def showing() -> Iterator[None]:
    from django.conf import settings as declared  # noqa: PLC0415

    ours = f"{__name__}.{Leaks.__name__}"
    sys.modules.setdefault(ours.rpartition(".")[0], sys.modules[__name__])
    with leaking(lambda told: LEAKED.append(json.loads(told)))(), settings(MIDDLEWARE=[ours, *declared.MIDDLEWARE]):
        yield
    LEAKED.clear()


ID_TOKEN = "oidc.id_token:check_"
FAULTS: Mapping[str, tuple[Plant, tuple[str, ...]]] = {
    **{
        name: (without(where, **more), codes)
        for name, where, codes, more in (
            ("alg", f"{ID_TOKEN}alg_not_allowed", ("alg_not_allowed",), {}),
            ("signature", f"{ID_TOKEN}signature_invalid", ("signature_invalid",), {}),
            ("iss", f"{ID_TOKEN}iss_invalid", ("iss_invalid",), {}),
            ("aud", f"{ID_TOKEN}aud_invalid", ("aud_invalid",), {}),
            ("azp", f"{ID_TOKEN}azp_invalid", ("azp_invalid",), {}),
            ("exp", f"{ID_TOKEN}exp_invalid", ("exp_invalid",), {}),
            ("iat", f"{ID_TOKEN}iat_invalid", ("iat_invalid",), {}),
            ("nbf", f"{ID_TOKEN}nbf_invalid", ("nbf_invalid",), {}),
            ("lifetime of the ID Token", f"{ID_TOKEN}id_token_lifetime", ("id_token_lifetime",), {}),
            ("nonce", f"{ID_TOKEN}nonce_invalid", ("nonce_invalid", "token_replayed"), {}),
            ("sub", f"{ID_TOKEN}sub_invalid", ("sub_invalid",), {}),
            ("pairwise sub", f"{ID_TOKEN}sub_not_pairwise", ("sub_not_pairwise",), {}),
            ("acr", f"{ID_TOKEN}acr_insufficient", ("acr_insufficient",), {}),
            ("auth_time", f"{ID_TOKEN}auth_time_stale", ("auth_time_missing", "auth_time_stale"), {}),
            ("at_hash", f"{ID_TOKEN}at_hash_invalid", ("at_hash_invalid",), {}),
            ("critical headers", "oidc.jose:_check_header", ("token_malformed",), {}),
            ("https", "oidc.metadata:check_https", ("transport_not_https",), {}),
            ("issuer", "oidc.metadata:check_issuer", ("issuer_mismatch",), {}),
            ("metadata", "oidc.metadata:_read_document", ("metadata_invalid",), {"instead": lambda response: {}}),
            ("pairwise offered", "oidc.metadata:check_pairwise_supported", ("pairwise_unsupported",), {}),
            ("algorithms offered", "oidc.metadata:check_alg_supported", ("alg_unsupported",), {}),
            ("revocation offered", "oidc.metadata:check_revocation_supported", ("revocation_unsupported",), {}),
            ("pushes offered", "oidc.metadata:check_par_supported", ("par_unsupported",), {}),
            ("state", "oidc.authorization:read_state", ("state_missing",), {"instead": text("state")}),
            ("parameters once", "oidc.authorization:check_parameters_once", ("parameter_repeated",), {}),
            ("iss of the answer", "oidc.authorization:check_iss", ("iss_mismatch", "iss_missing"), {}),
            ("error of the answer", "oidc.authorization:check_error", ("provider_error",), {}),
            ("code", "oidc.authorization:read_code", ("code_missing",), {"instead": text("code")}),
            ("error of the token response", "oidc.token:check_token_error", ("token_error",), {}),
            (
                "token response",
                "oidc.token:read_members",
                ("token_response_invalid",),
                {"instead": lambda parsed, **kwargs: parsed or {}},
            ),
            ("token_type", "oidc.token:check_token_type", ("token_type_unsupported",), {}),
            ("ID Token", "oidc.token:read_id_token", ("id_token_missing",), {"instead": member("id_token")}),
            (
                "access token",
                "oidc.token:read_access_token",
                ("access_token_missing",),
                {"instead": member("access_token")},
            ),
            ("lifetime of the access token", "oidc.token:read_expires_in", ("access_token_lifetime",), {}),
            ("sub of UserInfo", "oidc.userinfo:check_userinfo_sub", ("userinfo_sub_mismatch",), {}),
            ("essential claims", "claims.catalog:require_essential", ("claim_missing",), {}),
            ("subject keys", "subjects.linking:_find", ("subject_key_missing",), {"instead": lambda *args: []}),
            ("logout event", "oidc.logout_token:check_logout", ("logout_token_invalid",), {}),
            ("typ of a logout token", "oidc.logout_token:check_typ", ("logout_token_invalid",), {}),
        )
    },
    "redirects, size and encoding": (
        by("provider.http:_read", lenient_read),
        ("transport_redirect", "transport_too_large", "transport_encoding"),
    ),
    "certificate": (by("provider.http:_build_manager", any_authority), ("transport_tls",)),
    "keys that fit": (by("oidc.jwks:JSONWebKeySet:select", any_key), ("key_not_found",)),
    "answer to a push": (by("oidc.pushed_authorization:judge_par_response", lenient_par), ("par_response_invalid",)),
    "error of a push": (by("oidc.pushed_authorization:judge_par_response", lenient_par), ("par_error",)),
    "UserInfo": (by("oidc.userinfo:read_userinfo", lenient_userinfo), ("userinfo_invalid",)),
    "signature of UserInfo": (by("oidc.userinfo:read_signed_userinfo", lenient_userinfo), ("userinfo_invalid",)),
    "state once": (by("replay.spending:spend", lambda *args, **kwargs: True), ("state_replayed",)),
    "state in time": (by("login.pending:Pending:is_over", lambda self, now: False), ("state_expired",)),
    "state in one browser": (pending_of_everybody, ("state_unknown",)),
    "account is active": (
        by("login.backend:OIDCAuthenticationBackend:user_can_authenticate", lambda *it: True),
        ("user_inactive",),
    ),
    "same person": (
        lambda: replaced(
            "login.stepping_up:find_subjects",
            lambda there: (
                lambda **kwargs: import_module("django_phi_oidc.subjects.models").PairwiseSubject.objects.values_list(
                    "pk", flat=True
                )
            ),
        ),
        ("subject_changed",),
    ),
    "known providers": (
        lambda: replaced("provider.registry:get_provider", lambda there: lambda name=None: there()),
        ("provider_unknown",),
    ),
    "accounts for those who have one": (
        by("login.backend:OIDCAuthenticationBackend:_link", None),
        ("not_provisioned",),
    ),
    "tokens of a refused sign-in": (
        by("login.completing:nothing_left_alive", lambda *args, **kwargs: nullcontext()),
        ("iss_invalid",),
    ),
    "jti once": (
        by("replay.spending:spend_with_transaction", lambda *args, **kwargs: True),
        ("logout_token_replayed",),
    ),
    "age of a logout token": (
        by("oidc.logout_token:_check_age", lambda claims, *, now, **kwargs: now),
        ("logout_token_invalid",),
    ),
    "next": (by("login.choosing:read_next", lambda request: request.GET.get("next", "")), ("forged_next",)),
    "parameters": (lambda: replaced("login.redirecting:redirect", request_shapes), ("forged_parameters",)),
    "address": (
        by("audit.request:client_ip", lambda request, **kwargs: request.headers.get("X-Forwarded-For", "127.0.0.1")),
        ("forged_address",),
    ),
    "key of a session": (same_session, ("session_fixation",)),
    "middleware": (
        lambda: without_middleware("django_phi_oidc.middleware.RevocationMiddleware"),
        ("stolen_cookie",),
    ),
    "CSRF": (
        by("django.middleware.csrf:CsrfViewMiddleware:process_view", lambda *args: None),
        ("cross_site_logout",),
    ),
    "revocation": (
        by("sessions.revoking:attempt_all", lambda *args, **kwargs: []),
        ("stolen_refresh_token",),
    ),
    **{
        f"canary ({place})": (plant, ("canary",))
        for place, plant in {
            "log": leaking(log),
            "tables": leaking(row),
            "caches": leaking(cached),
            "messages": leaking(message),
            "mails": leaking(mailed),
            "pages": showing,
            "addresses": showing,
        }.items()
    },
}


def main() -> None:
    """Attack the portal with each fault in turn, by the attacks that should find it, and print what they found."""
    django.setup()
    running = import_module("django_phi_oidc.testing.attack.suite")
    cli = import_module("django_phi_oidc.management.subcommands.attack")
    staging = import_module("django_phi_oidc.testing.attack.environment_setup")
    scene_module, conf = (
        import_module("django_phi_oidc.testing.attack.environment"),
        import_module("django_phi_oidc.conf"),
    )
    with staging.set_up_attack_environment(scene_module.Portal.of("default"), conf.claims()) as scene:
        for name, (plant, codes) in FAULTS.items():
            told: dict[str, list[str]] = {code: [] for code in codes}
            with plant():
                for attack in cli.select_attacks("default", codes):
                    # One that finds it is enough; a leak is looked for in every place.
                    if not told[attack.code] or attack.code == "canary":
                        (outcome,) = running.run_attacks([attack], scene)
                        if outcome.result == "failed":
                            told[attack.code].append(f"{outcome.name}: {outcome.told}")
            print(json.dumps({"fault": name, "failed": told}), flush=True)
            scene.notes.clear()


if __name__ == "__main__":
    main()
