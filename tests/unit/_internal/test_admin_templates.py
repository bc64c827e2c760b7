"""Every admin of the package has the search form, the history page and the object tools of the package."""

from pathlib import Path

import pytest
from django.contrib import admin
from django.template.loader import select_template

from django_phi_oidc._internal.app_configs import list_installed_features

PACKAGE = Path(__file__).resolve().parents[3] / "django_phi_oidc"
LABELS = sorted(
    {
        model._meta.app_label
        for config in list_installed_features()
        for model in config.get_models()
        if admin.site.is_registered(model)
    }
)


def test_several_apps_have_an_admin() -> None:
    assert {"django_phi_oidc", "phi_oidc_audit", "phi_oidc_scim"} <= set(LABELS)


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("name", ["search_form.html", "object_history.html", "change_form_object_tools.html"])
def test_template_is_of_the_package(label: str, name: str) -> None:
    # As Django selects it for a model of that label.
    template = select_template([f"admin/{label}/{name}", f"admin/{name}"])
    assert Path(template.origin.name).is_relative_to(PACKAGE)
