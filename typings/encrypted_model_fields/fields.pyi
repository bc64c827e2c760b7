from typing import TypeVar

from cryptography.fernet import MultiFernet
from django.db import models

CRYPTER: MultiFernet

def get_crypter() -> MultiFernet: ...

_ST = TypeVar("_ST", contravariant=True)
_GT = TypeVar("_GT", covariant=True)

class EncryptedTextField(models.TextField[_ST, _GT]): ...
