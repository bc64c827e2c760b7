"""The pages for officers: Django's autodiscovery finds them here.

They replace the plain lists of the core, if these are registered already.
"""

from django.contrib import admin
from django.db.models import Model

from ...audit.admin_base import ReadOnlyAdmin
from ...claims.models import StoredClaim
from ...sessions.models import OIDCSession, PendingRevocation
from ...subjects.models import PairwiseSubject
from ..common.people_admin import PeopleAdmin
from .claims_admin import StoredClaimAdmin
from .models import SessionEndJob
from .page_parts import load_officer_pages
from .person_views import install_person_pages
from .reference_views import install_reference_page
from .session_end_admin import SessionEndJobAdmin
from .sessions_admin import OIDCSessionAdmin, PendingRevocationAdmin
from .site import install_dashboard
from .subjects_admin import PairwiseSubjectAdmin

MODEL_ADMINS: dict[type[Model], type[PeopleAdmin | ReadOnlyAdmin]] = {
    OIDCSession: OIDCSessionAdmin,
    PairwiseSubject: PairwiseSubjectAdmin,
    PendingRevocation: PendingRevocationAdmin,
    SessionEndJob: SessionEndJobAdmin,
    StoredClaim: StoredClaimAdmin,
}


def register_officer_pages(site: admin.AdminSite) -> None:
    """Register the lists, and install the overview, the pages of people and the page on which
    references are looked up.
    """
    for model, model_admin in MODEL_ADMINS.items():
        if site.is_registered(model):
            site.unregister(model)
        site.register(model, model_admin)
    install_dashboard(site)
    install_person_pages(site)
    install_reference_page(site)


load_officer_pages()
register_officer_pages(admin.site)
