"""Django REST framework: access tokens of the OP at the portal's own APIs, and the guards of their views.

Needs the extra `drf`. Nothing else of this app imports it: without the framework all the rest works.
"""
