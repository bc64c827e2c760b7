"""The host's own page of its users, with a template of its own."""

from django.contrib import admin

from .models import Member

admin.site.register(Member, fields=("email",))
