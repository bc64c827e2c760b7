"""System checks, a module for each part of the settings."""

from . import account_notices as account_notices
from . import admin_assurance as admin_assurance
from . import apis as apis
from . import audit_exports as audit_exports
from . import claims as claims
from . import client_certificates as client_certificates
from . import core as core
from . import databases as databases
from . import emergency as emergency
from . import federation as federation
from . import logout as logout
from . import middleware as middleware
from . import other_libraries as other_libraries
from . import patient_resources as patient_resources
from . import redirects as redirects
from . import roles as roles
from . import transmission as transmission
from . import url_patterns as url_patterns
