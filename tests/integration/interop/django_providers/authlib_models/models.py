"""The three tables of an Authlib provider, as its documentation describes them."""

import time
from typing import Any

from authlib.oauth2.rfc6749 import ClientMixin, TokenMixin
from authlib.oidc.core import AuthorizationCodeMixin
from django.conf import settings
from django.db import models

LIFETIME_SECONDS = 600


class OAuthClient(models.Model, ClientMixin):
    """The portal."""

    client_id = models.CharField(max_length=48, unique=True)
    client_secret = models.CharField(max_length=120)
    redirect_uri = models.URLField()
    post_logout_redirect_uri = models.URLField()

    def __str__(self) -> str:
        return self.client_id

    @property
    def client_metadata(self) -> dict[str, Any]:
        return {"post_logout_redirect_uris": [self.post_logout_redirect_uri]}

    def get_client_id(self) -> str:
        return self.client_id

    def get_default_redirect_uri(self) -> str:
        return self.redirect_uri

    def get_allowed_scope(self, scope: str) -> str:
        return " ".join(name for name in scope.split() if name in ("openid", "profile"))

    def check_redirect_uri(self, redirect_uri: str) -> bool:
        return redirect_uri == self.redirect_uri

    def check_client_secret(self, client_secret: str) -> bool:
        return client_secret == self.client_secret

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return method == "client_secret_post"

    def check_response_type(self, response_type: str) -> bool:
        return response_type == "code"

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type in ("authorization_code", "refresh_token")


class OAuthCode(models.Model, AuthorizationCodeMixin):
    """An authorization code."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE)
    client_id = models.CharField(max_length=48)
    code = models.CharField(max_length=120, unique=True)
    redirect_uri = models.URLField()
    scope = models.TextField()
    nonce = models.TextField()
    code_challenge = models.TextField()
    code_challenge_method = models.CharField(max_length=10)

    def __str__(self) -> str:
        return f"code for {self.client_id}"

    def get_redirect_uri(self) -> str:
        return self.redirect_uri

    def get_scope(self) -> str:
        return self.scope

    def get_nonce(self) -> str:
        return self.nonce

    def get_auth_time(self) -> int:
        return int(self.user.last_login.timestamp())


class OAuthToken(models.Model, TokenMixin):
    """An access token with its refresh token."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE)
    client_id = models.CharField(max_length=48)
    token_type = models.CharField(max_length=40)
    access_token = models.CharField(max_length=255, unique=True)
    refresh_token = models.CharField(max_length=255, unique=True)
    scope = models.TextField()
    revoked = models.BooleanField(default=False)
    issued_at = models.IntegerField(default=time.time)
    expires_in = models.IntegerField(default=LIFETIME_SECONDS)

    def __str__(self) -> str:
        return f"tokens for {self.client_id}"

    def check_client(self, client: OAuthClient) -> bool:
        return self.client_id == client.client_id

    def get_scope(self) -> str:
        return self.scope

    def get_expires_in(self) -> int:
        return self.expires_in

    def is_expired(self) -> bool:
        return self.issued_at + self.expires_in < time.time()

    def is_revoked(self) -> bool:
        return self.revoked

    def get_user(self) -> Any:
        return self.user

    def get_client(self) -> OAuthClient:
        return OAuthClient.objects.get(client_id=self.client_id)
