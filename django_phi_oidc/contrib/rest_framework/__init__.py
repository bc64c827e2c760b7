"""Django REST framework: authentication by the provider's access tokens, and permission classes.
Needs the extra `drf`.

No other module of this app imports this package.
"""
