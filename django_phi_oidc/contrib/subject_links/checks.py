"""System checks of links by a verified e-mail address."""

from typing import Any

from django.contrib.auth import get_user_model
from django.core.checks import Tags

from ... import conf
from ..._internal import clock
from ..._internal.check_messages import Messages, error, in_settings, register_check, warning
from .declaration import EmailLinkingDeclaration
from .email_match import CREATION_FIELD, has_required_fields


@register_check(Tags.security)
def check_email_linking(**kwargs: Any) -> Messages:
    """E091: accounts have no e-mail address or time of creation, so link_verified_email links
    none.
    """
    user_model = get_user_model()
    hint = "Link the persons by `phi_oidc subject link --csv`."
    is_usable = has_required_fields(user_model)
    for provider in conf.providers().values():
        if provider.find_option(EmailLinkingDeclaration) is not None and not is_usable:
            fields = f"{getattr(user_model, 'EMAIL_FIELD', 'email')} and {CREATION_FIELD}"
            text = (
                f"Provider {provider.name!r}: link_verified_email "
                f"requires the fields {fields} of the user model."
            )
            yield error(91, text, hint)


@register_check(Tags.security)
def check_period_of_email_linking(**kwargs: Any) -> Messages:
    """W091: e-mail addresses link persons; W092: the option has no effect any more."""
    for provider in conf.providers().values():
        linking = provider.find_option(EmailLinkingDeclaration)
        if linking is None:
            continue
        subject = f"Provider {provider.name!r}:"
        path = f'PHI_OIDC["PROVIDERS"]["{provider.name}"]'
        hint = in_settings(f'del {path}["link_verified_email"]')
        if linking.is_over(clock.now()):
            yield warning(92, f"{subject} link_verified_email is over: delete this option.", hint)
        else:
            text = f"{subject} e-mail addresses link persons to existing accounts."
            yield warning(91, text, hint)
