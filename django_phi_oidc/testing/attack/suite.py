"""Every attack on a project, one after the other: first its positive control, then what must be refused."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

from ...config.providers import ProviderDeclaration
from ..canary.scan import CANARY_ATTACKS
from ..mock_provider import MutableExchange, RedirectExpected, Reply
from .browser import SignInNotStarted
from .browser_attacks import BROWSER_ATTACKS
from .cases import TamperingCase, list_cases
from .environment import AttackEnvironment
from .logout_attacks import LOGOUT_CASES, run_logout_case
from .provider_attacks import CALLBACK_AND_ACCOUNT_ATTACKS
from .report import AttackEnded, AttackOutcome, format_attack_name

DECLARATION_DEFAULTS = {field.name: field.default for field in fields(ProviderDeclaration)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """One attack: its rule's code or its own name, and what it does. A run that ends without Ended was held."""

    code: str
    id: str
    run: Callable[[AttackEnvironment], None]

    @property
    def name(self) -> str:
        """The code, and which attack of it."""
        return format_attack_name(self.code, self.id)


def list_attacks(declaration: ProviderDeclaration, *, claim_names: Sequence[str]) -> list[Attack]:
    """Return all attacks on a project that declared that provider and asks for those claims."""
    cases = [*list_cases(declaration, claim_name=claim_names[0] if claim_names else ""), *LOGOUT_CASES]
    bent = [Attack(code=case.code, id=case.id, run=partial(run_case, case)) for case in cases]
    others = [
        Attack(code=code, id=id_, run=run)
        for (code, id_), run in {**CALLBACK_AND_ACCOUNT_ATTACKS, **BROWSER_ATTACKS, **CANARY_ATTACKS}.items()
    ]
    return [*bent, *others]


def run_attacks(attacks: Sequence[Attack], environment: AttackEnvironment) -> Iterator[AttackOutcome]:
    """Yield what comes of each attack as soon as it is known."""
    for attack in attacks:
        begun = time.monotonic()
        ended = run_attack(attack, environment)
        yield AttackOutcome(
            code=attack.code,
            id=attack.id,
            result=ended.result if ended else "held",
            detail=ended.detail if ended else "",
            seconds=round(time.monotonic() - begun, 3),
        )


def run_attack(attack: Attack, environment: AttackEnvironment) -> AttackEnded | None:
    """Return how the attack ended where it was not held."""
    try:
        attack.run(environment)
    except AttackEnded as ended:
        return ended
    except SignInNotStarted as error:
        return AttackEnded("failed", f"the control failed: {error}")
    except RedirectExpected as error:
        return AttackEnded("failed", f"the control failed: the provider showed a page ({error.status})")
    return None


def run_case(case: TamperingCase, environment: AttackEnvironment) -> None:
    """See what the provider says accepted as it is right, and refused as it is wrong."""
    if (case.endpoint.startswith("userinfo") or case.is_claim_essential) and not environment.claim_values:
        environment.skip_attack("the project asks for no claim")
    loosened = getattr(environment.declaration, case.allowing_setting, None) != DECLARATION_DEFAULTS.get(
        case.allowing_setting
    )
    by_choice = case.allowing_setting if case.allowing_setting and loosened else ""
    options = dict(case.options)
    if case.is_claim_essential:
        options["CLAIMS"] = environment.portal.create_essential_claim(next(iter(environment.claim_values)))
    with environment.override_declaration(client=case.client_options, **options):
        for name, value in case.provider_state.items():
            setattr(environment.op.state, name, value)
        if case.stage == "logout":
            run_logout_case(case, environment, allowing_setting=by_choice)
            return
        _install_tampering_hook(case, case.valid_value, environment)
        browser = environment.create_browser()
        environment.assert_accepted(browser, browser.sign_in(environment.op))
    with environment.override_declaration(client=case.client_options, **options):
        for name, value in case.provider_state.items():
            setattr(environment.op.state, name, value)
        _install_tampering_hook(case, case.invalid_value, environment)
        browser = environment.create_browser()
        page = browser.start_sign_in() if case.stage == "request" else browser.sign_in(environment.op)
        # An answer that the portal could not read may have held tokens that it never saw.
        alive = 0 if case.holds_tokens else len(environment.op.tokens)
        environment.assert_refused(
            browser,
            page,
            case.code,
            expected_status=case.refusal_status,
            allowed_active_tokens=alive,
            allowing_setting=by_choice,
        )


def _install_tampering_hook(case: TamperingCase, value: Any, environment: AttackEnvironment) -> None:
    honest = environment.create_honest_hook(in_id_token=case.endpoint == "id_token")

    def hook(endpoint: str, exchange: MutableExchange) -> Reply | None:
        honest(endpoint, exchange)
        bent = case.tamper(exchange, value) if endpoint == case.endpoint else None
        return bent if isinstance(bent, Reply) else None

    if case.tamper_before_endpoint:
        environment.op.intercept = hook
    else:
        environment.op.mutate = hook
