"""Content security policies of browser tests, for pages that the policy of the example portal does not fit."""

from tests.support.manual_blocks import block

# `content_security_policy` of docs/how-to/admin-themes.md: what django-unfold needs in the admin.
exec(block("admin-themes", "policy"), globals())
