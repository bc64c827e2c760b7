"""Actions of change lists: they ask before they act, skip rows that they cannot change, and state
the result.

An action is offered only if it can change a row of the page.
"""

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.safestring import SafeString
from django.utils.translation import ngettext

from .admin_base import ReadOnlyAdmin

MAX_SELECTED_ROWS = 500
"""The confirmation page has a form field for each row, and Django refuses forms with more than
1,000.
"""
MAX_NAMED_ROWS = 20
"""Rows that the confirmation page names."""
Rows = Sequence[Any]
RunAction = Callable[[Any, HttpRequest, Rows], HttpResponse | None]
ListAction = Callable[[Any, HttpRequest, QuerySet[Any]], HttpResponse | None]


def confirmed_action(
    *,
    description: Any,
    permissions: Sequence[str],
    can_apply: Callable[[Any], bool],
    ask: Callable[[int], str],
    consequence: Any,
    describe_skipped: Callable[[int], str],
    refuse: Callable[[Rows], str] = lambda rows: "",
    max_rows: int = MAX_SELECTED_ROWS,
) -> Callable[[RunAction], ListAction]:
    """Make a list action of a method that takes the rows which it can change.

    can_apply: whether the action can change a row. ask: returns the question for that number of
    rows. consequence: what it does, in a sentence. describe_skipped: returns why that number of
    rows was left out. refuse: returns why the rows cannot be changed together; empty: they can.
    """

    def decorate(run: RunAction) -> ListAction:
        @admin.action(description=description, permissions=permissions)
        @wraps(run)
        def run_confirmed(
            model_admin: Any, request: HttpRequest, queryset: QuerySet[Any]
        ) -> HttpResponse | None:
            selected = list(queryset.order_by("pk")[: max_rows + 1])
            if len(selected) > max_rows:
                message = ngettext(
                    "Nothing was done: select only %(most)d row.",
                    "Nothing was done: select at most %(most)d rows.",
                    max_rows,
                )
                model_admin.message_user(request, message % {"most": max_rows}, messages.ERROR)
                return None
            rows = []
            for row in selected:
                if can_apply(row):
                    rows.append(row)
            if refusal := refuse(rows):
                model_admin.message_user(request, refusal, messages.ERROR)
                return None
            is_confirmed = request.POST.get("post") == "yes"
            # Since the page was shown, a row may have left the filter of the list.
            chosen = max(len(request.POST.getlist(ACTION_CHECKBOX_NAME)), len(selected))
            if chosen > len(rows):
                skipped = describe_skipped(chosen - len(rows))
            else:
                skipped = ""

            if rows and not is_confirmed:
                texts = {"question": ask(len(rows)), "consequence": consequence, "skipped": skipped}
                return _render_confirmation(model_admin, request, run.__name__, rows, texts)

            response = None
            if rows:
                response = run(model_admin, request, rows)

            if skipped:
                model_admin.message_user(request, skipped, messages.WARNING)
            return response

        run_confirmed.can_apply = can_apply  # type: ignore[attr-defined]  # for RowActionsAdmin
        return run_confirmed

    return decorate


def _render_confirmation(
    model_admin: Any, request: HttpRequest, action: str, rows: Rows, texts: dict[str, Any]
) -> HttpResponse:
    context = {
        **model_admin.admin_site.each_context(request),
        **texts,
        "opts": model_admin.opts,
        "title": texts["question"],
        "action": action,
        "rows": rows,
        "named": model_admin.describe_rows(request, rows[:MAX_NAMED_ROWS]),
        "unnamed": max(len(rows) - MAX_NAMED_ROWS, 0),
        "action_checkbox_name": ACTION_CHECKBOX_NAME,
        "list_url": request.get_full_path(),
    }
    return TemplateResponse(request, "admin/django_phi_oidc/confirm_action.html", context)


class RowActionsAdmin(ReadOnlyAdmin):
    """Offers an action only if it can change a row of the page, and a check box only for rows that
    one can change.
    """

    def describe_rows(self, request: HttpRequest, rows: Rows) -> list[str]:
        """Return the rows as the confirmation page names them."""
        return [str(row) for row in rows]

    def get_actions(self, request: HttpRequest, action_location: Any = None) -> dict[str, Any]:
        """Return the permitted actions, without those that change no row of the page.

        action_location: the page that shows them, since Django 6.1.
        """
        if action_location:
            # The stubs are those of an earlier version.
            actions = super().get_actions(request, action_location=action_location)  # type: ignore[call-arg]
        else:
            actions = super().get_actions(request)

        hidden = getattr(request, "phi_oidc_hidden_actions", ())
        result = {}
        for name, action in actions.items():
            if name not in hidden:
                result[name] = action
        return result

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        """Return the list. A requested action is kept: its rows may have changed since the page was
        shown.
        """
        changelist = super().get_changelist_instance(request)
        # Since Django 6.1 an action is an object, before a tuple.
        actions = {}
        for name, action in self.get_actions(request).items():
            actions[name] = getattr(action, "func", None) or action[0]
        rows = list(changelist.result_list)
        for row in rows:
            row.has_action = any(action.can_apply(row) for action in actions.values())
        if "action" not in request.POST:
            hidden = set()
            for name, action in actions.items():
                if not any(map(action.can_apply, rows)):
                    hidden.add(name)
            request.phi_oidc_hidden_actions = hidden  # type: ignore[attr-defined]  # for get_actions
            if hidden == actions.keys():
                changelist.list_display = [
                    name for name in changelist.list_display if name != "action_checkbox"
                ]
        return changelist

    def action_checkbox(self, obj: Any) -> SafeString:
        """Return the check box of a row; nothing for a row that no action can change."""
        if obj.has_action:
            return super().action_checkbox(obj)
        return SafeString("<span></span>")
