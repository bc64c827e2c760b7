"""The admin of the custom user model, with a custom template."""

from django.contrib import admin

from .models import Member

admin.site.register(Member, fields=("email",))
