"""The ModelAdmin classes, where Django's autodiscovery looks for them."""

# ruff: noqa: PLC0414 -- explicit re-exports
from django.contrib import admin

from ._internal.admin_theme import install_script_texts, install_theme_styles
from .audit.admin.audit_log import AuditCheckpointAdmin as AuditCheckpointAdmin
from .audit.admin.audit_log import AuditEventAdmin as AuditEventAdmin
from .contrib.audit_exports.trail_jobs import TrailJobAdmin as TrailJobAdmin
from .contrib.individual_rights.admin import AccountingCopyAdmin as AccountingCopyAdmin
from .contrib.monitoring.admin import AlertMuteAdmin as AlertMuteAdmin
from .contrib.monitoring.admin import SecurityAlertAdmin as SecurityAlertAdmin
from .contrib.officer_admin.claims_admin import StoredClaimAdmin as StoredClaimAdmin
from .contrib.officer_admin.page_parts import load_officer_pages
from .contrib.officer_admin.person_views import install_person_pages
from .contrib.officer_admin.reference_views import install_reference_page
from .contrib.officer_admin.session_end_admin import SessionEndJobAdmin as SessionEndJobAdmin
from .contrib.officer_admin.sessions_admin import OIDCSessionAdmin as OIDCSessionAdmin
from .contrib.officer_admin.sessions_admin import PendingRevocationAdmin as PendingRevocationAdmin
from .contrib.officer_admin.site import install_dashboard
from .contrib.officer_admin.subjects_admin import PairwiseSubjectAdmin as PairwiseSubjectAdmin
from .contrib.siem.admin import SinkCursorAdmin as SinkCursorAdmin
from .extensions import person_directories
from .login.admin_site import use_oidc_login
from .subjects.person_directory import ACCOUNT_DIRECTORY

# Here and not in ready(): only the admin looks people up, and the module imports it.
person_directories.register(ACCOUNT_DIRECTORY)
load_officer_pages()
install_dashboard(admin.site)
use_oidc_login(admin.site)
install_person_pages(admin.site)
install_reference_page(admin.site)
install_script_texts(admin.site)
install_theme_styles(admin.site)
