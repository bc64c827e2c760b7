"""The list of all attacks on a project, their selection, and how they are run."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

from django.core.management.base import CommandError

from ... import conf
from ..._internal.suggestions import suggest
from ...config.providers import ProviderDeclaration
from ..canary.scan import CANARY_ATTACKS
from ..mock_provider import MutableExchange, RedirectExpected, Reply
from .availability_attacks import AVAILABILITY_ATTACKS
from .bound_token_cases import BOUND_TOKEN_CASES
from .browser import SignInNotStarted
from .browser_attacks import BROWSER_ATTACKS
from .cases import TamperingCase, list_cases
from .ciphertext_attacks import CIPHERTEXT_ATTACKS
from .encrypted_token_cases import ENCRYPTED_TOKEN_CASES
from .environment import AttackEnvironment
from .federation_cases import FEDERATION_CASES, build_federation_options
from .initiated_login_attacks import INITIATED_LOGIN_ATTACKS
from .logout_attacks import LOGOUT_CASES, run_logout_case
from .provider_attacks import CALLBACK_AND_ACCOUNT_ATTACKS
from .report import AttackEnded, AttackOutcome, AttackResult, format_attack_name
from .scim_attacks import SCIM_ATTACKS
from .security_event_attacks import (
    SECURITY_EVENT_ATTACKS,
    SECURITY_EVENT_CASES,
    run_security_event_case,
)
from .shared_computer_attacks import SHARED_COMPUTER_ATTACKS
from .token_theft_attacks import TOKEN_THEFT_ATTACKS

DECLARATION_DEFAULTS = {field.name: field.default for field in fields(ProviderDeclaration)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """One attack. `code` is a rule code or the attack's own name. `run` raises AttackEnded if the
    portal fails.
    """

    code: str
    id: str
    run: Callable[[AttackEnvironment], None]

    @property
    def name(self) -> str:
        """The code and the id."""
        return format_attack_name(self.code, self.id)


def list_attacks(declaration: ProviderDeclaration, *, claim_names: Sequence[str]) -> list[Attack]:
    """Return all attacks on a project with that declaration that requests those claims."""
    if claim_names:
        claim_name = claim_names[0]
    else:
        claim_name = ""

    cases = [
        *list_cases(declaration, claim_name=claim_name),
        *BOUND_TOKEN_CASES,
        *ENCRYPTED_TOKEN_CASES,
        *FEDERATION_CASES,
        *LOGOUT_CASES,
        *SECURITY_EVENT_CASES,
    ]
    other_attacks = {
        **CALLBACK_AND_ACCOUNT_ATTACKS,
        **BROWSER_ATTACKS,
        **SHARED_COMPUTER_ATTACKS,
        **SECURITY_EVENT_ATTACKS,
        **SCIM_ATTACKS,
        **INITIATED_LOGIN_ATTACKS,
        **CIPHERTEXT_ATTACKS,
        **AVAILABILITY_ATTACKS,
        **TOKEN_THEFT_ATTACKS,
        **CANARY_ATTACKS,
    }
    attacks = []
    for case in cases:
        attacks.append(Attack(code=case.code, id=case.id, run=partial(run_case, case)))
    for (code, attack_id), run in other_attacks.items():
        attacks.append(Attack(code=code, id=attack_id, run=run))
    return attacks


def get_default_provider() -> str:
    """Return the name of the first provider. Raises: CommandError."""
    if not conf.providers():
        raise CommandError("No provider is declared.")
    return next(iter(conf.providers()))


def select_attacks(provider_name: str, codes: Sequence[str] = ()) -> list[Attack]:
    """Return the attacks of those codes, or all. Raises: CommandError for an unknown code or
    provider.
    """
    if provider_name not in conf.providers():
        text = f"There is no provider {provider_name}.{suggest(provider_name, conf.providers())}"
        raise CommandError(text, returncode=2)
    attacks = list_attacks(conf.providers()[provider_name], claim_names=list(conf.claims()))
    known = {attack.code for attack in attacks}
    if unknown := sorted(set(codes) - known):
        text = f"There is no attack for {', '.join(unknown)}.{suggest(unknown[0], known)}"
        raise CommandError(text, returncode=2)
    result = []
    for attack in attacks:
        if not codes or attack.code in codes:
            result.append(attack)
    return result


def run_attacks(
    attacks: Sequence[Attack], environment: AttackEnvironment
) -> Iterator[AttackOutcome]:
    """Run the attacks one by one and yield each outcome."""
    for attack in attacks:
        started = time.monotonic()
        ended = run_attack(attack, environment)
        result: AttackResult = "held"
        detail = ""
        if ended is not None:
            result = ended.result
            detail = ended.detail
        yield AttackOutcome(
            code=attack.code,
            id=attack.id,
            result=result,
            detail=detail,
            seconds=round(time.monotonic() - started, 3),
        )


def run_attack(attack: Attack, environment: AttackEnvironment) -> AttackEnded | None:
    """Run the attack and return how it ended; None: the portal held."""
    try:
        attack.run(environment)
    except AttackEnded as ended:
        return ended
    except SignInNotStarted as error:
        return AttackEnded("failed", f"the control failed: {error}")
    except RedirectExpected as error:
        return AttackEnded(
            "failed", f"the control failed: the provider showed a page ({error.status})"
        )
    return None


def run_case(case: TamperingCase, environment: AttackEnvironment) -> None:
    """Check that the portal accepts the valid value and refuses the invalid one."""
    needs_claims = case.endpoint.startswith("userinfo") or case.is_claim_essential
    if needs_claims and not environment.claim_values:
        environment.skip_attack("the project requests no claims")
    setting = case.allowing_setting
    is_loosened = getattr(environment.declaration, setting, None) != DECLARATION_DEFAULTS.get(
        setting
    )
    if is_loosened:
        allowing_setting = setting
    else:
        allowing_setting = ""

    # The names are data of the case. Parsing the declaration refuses an unknown one.
    options = dict(case.options)
    if case.is_federated:
        options |= build_federation_options(environment.op)
    if case.is_claim_essential:
        options["CLAIMS"] = environment.portal.create_essential_claim(
            next(iter(environment.claim_values))
        )
    with environment.override_declaration(client_options=case.client_options, **options):
        if case.stage == "logout":
            run_logout_case(case, environment, allowing_setting=allowing_setting)
            return
        if case.stage == "security_event":
            run_security_event_case(case, environment)
            return
        _install_tampering_hook(case, case.valid_value, environment)
        browser = environment.create_browser()
        environment.assert_accepted(browser, browser.sign_in(environment.op))
    with environment.override_declaration(client_options=case.client_options, **options):
        _install_tampering_hook(case, case.invalid_value, environment)
        browser = environment.create_browser()

        if case.stage == "request":
            page = browser.start_sign_in()
        else:
            page = browser.sign_in(environment.op)

        if case.holds_tokens:
            allowed_active_tokens = 0
        else:
            # A response that the portal could not read may contain tokens, which it cannot revoke.
            allowed_active_tokens = len(environment.op.tokens)

        environment.assert_refused(
            browser,
            page,
            case.code,
            expected_status=case.refusal_status,
            allowed_active_tokens=allowed_active_tokens,
            allowing_setting=allowing_setting,
        )


def _install_tampering_hook(
    case: TamperingCase, value: Any, environment: AttackEnvironment
) -> None:
    for name, state_value in case.provider_state.items():
        setattr(environment.op.state, name, state_value)
    honest_hook = environment.create_honest_hook(in_id_token=case.endpoint == "id_token")

    def hook(endpoint: str, exchange: MutableExchange) -> Reply | None:
        honest_hook(endpoint, exchange)

        reply = None
        if endpoint == case.endpoint:
            reply = case.tamper(exchange, value)

        if isinstance(reply, Reply):
            return reply
        return None

    if case.tamper_before_endpoint:
        environment.op.intercept = hook
    else:
        environment.op.mutate = hook
