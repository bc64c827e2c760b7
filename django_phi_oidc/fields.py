"""`SealedTextField`: a column of django-encrypted-model-fields that fails closed.

What the library does and this field does not: return the ciphertext when no key fits (and seal it again at the next
save), open whatever looks like a token on assignment, read its keys at import, open a value that was copied here from
another row, send plain text to the database in a lookup, or seal the text of an SQL expression.
"""

from collections.abc import Sequence
from typing import Any, NoReturn

from cryptography.fernet import Fernet
from django.conf import settings
from django.core import exceptions
from django.db import models

from . import keyring

MASK = "•••"
KEY_SETTING = "FIELD_ENCRYPTION_KEY"


class _Unconfigured:
    """Stands in for the library's crypter where the host project has no key for it; refuses to be used."""

    def __getattr__(self, name: str) -> NoReturn:
        raise exceptions.ImproperlyConfigured(
            "FIELD_ENCRYPTION_KEY is not set: django-encrypted-model-fields' own fields can't be used without it."
        )


def _import_guarded() -> "type[models.TextField[Any, Any]]":
    """Import the library's field. Without a key of the host's its import fails, and a throw-away key left in place
    would seal the host's own fields with a key that is lost at restart."""
    if getattr(settings, KEY_SETTING, None) is not None:
        from encrypted_model_fields.fields import EncryptedTextField  # noqa: PLC0415

        return EncryptedTextField
    declared = hasattr(settings, KEY_SETTING)
    setattr(settings, KEY_SETTING, Fernet.generate_key())
    try:
        from encrypted_model_fields import fields as library  # noqa: PLC0415
    finally:
        if declared:
            setattr(settings, KEY_SETTING, None)
        else:
            delattr(settings, KEY_SETTING)
    vars(library)["CRYPTER"] = _Unconfigured()
    return library.EncryptedTextField


class Sealed:
    """A value as the database holds it. It shows nothing; `SealedTextField.open` opens it."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    @property
    def key_id(self) -> str:
        """The id of the key that sealed it."""
        return self.text.partition(":")[0]

    def __repr__(self) -> str:
        return MASK

    __str__ = __repr__


class SealedTextField(_import_guarded()):  # type: ignore[misc]  # the base is chosen at import
    """Text, sealed in the database and in the instance, bound to its table, column and natural key.

    bind: attribute names of the natural key; known before the row is saved, hence not an automatic primary key.
    Assign plain `str` and save; read `Sealed`; `open(instance)` gives the text. The only lookup is `isnull`.
    `bulk_update`, `update(field=…)` and expressions are refused: only a whole row knows its natural key.
    """

    description = "Sealed text"

    def __init__(self, *args: Any, bind: Sequence[str], **kwargs: Any) -> None:
        self.bind = tuple(bind)
        for option in ("unique", "primary_key", "db_index", "choices", "default", "db_default"):
            if kwargs.get(option, models.NOT_PROVIDED) not in (models.NOT_PROVIDED, None, False):
                raise exceptions.ImproperlyConfigured(f"A sealed field can't have {option}.")
        kwargs["editable"] = False
        super().__init__(*args, **kwargs)

    def deconstruct(self) -> Any:
        name, path, args, kwargs = super().deconstruct()
        kwargs.pop("editable")
        return name, path, args, {**kwargs, "bind": self.bind}

    def open(self, instance: models.Model) -> str | None:
        """Return the instance's plain text, or None where there is none.

        Raises: Undecryptable.
        """
        value = getattr(instance, self.attname)
        if isinstance(value, Sealed):
            return keyring.open_sealed(value.text, context=self._context(instance))
        return None if value is None else str(value)

    def pre_save(self, model_instance: models.Model, add: bool) -> Sealed | None:
        value = getattr(model_instance, self.attname)
        if value is None or isinstance(value, Sealed):
            return value
        if not isinstance(value, str):
            raise TypeError(f"{self.name} takes text, not {type(value).__name__}.")
        # The very mask that a Sealed shows; the same characters from elsewhere are a value like any other.
        if value is MASK:
            raise exceptions.ValidationError(f"{self.name}: the mask is not the value.")
        sealed = Sealed(keyring.seal(value, context=self._context(model_instance)))
        setattr(model_instance, self.attname, sealed)
        return sealed

    def get_db_prep_save(self, value: Any, connection: Any) -> str | None:
        return self._stored(value)

    def get_db_prep_value(self, value: Any, connection: Any, prepared: bool = False) -> str | None:
        return self._stored(value)

    def get_prep_value(self, value: Any) -> str | None:
        return self._stored(value)

    def from_db_value(self, value: str | None, *args: Any) -> Sealed | None:
        return None if value is None else Sealed(value)

    def to_python(self, value: Any) -> Any:
        if value == MASK:
            raise exceptions.ValidationError(f"{self.name}: the mask is not the value.")
        return value

    def value_to_string(self, obj: models.Model) -> str:
        return MASK

    def get_lookup(self, lookup_name: str) -> Any:
        if lookup_name != "isnull":
            raise exceptions.FieldError(f"A sealed field has no lookup {lookup_name!r}: its ciphertexts differ.")
        return super().get_lookup(lookup_name)

    def get_transform(self, lookup_name: str) -> NoReturn:
        raise exceptions.FieldError("A sealed field has no transforms.")

    def _context(self, instance: models.Model) -> list[str]:
        # As the database gives them back: a UUID assigned as text must not seal under another spelling.
        bound = [self.model._meta.get_field(name).to_python(getattr(instance, name)) for name in self.bind]
        if any(part is None for part in bound):
            raise TypeError(f"{self.name} is bound to {', '.join(self.bind)}: set them before saving.")
        return [self.model._meta.db_table, self.column, *map(str, bound)]

    def _stored(self, value: Any) -> str | None:
        if value is None:
            return None
        if not isinstance(value, Sealed):
            raise exceptions.FieldError(f"{self.name} is sealed with its row: assign it and save the instance.")
        return value.text
