"""`SealedTextField`: a column of django-encrypted-model-fields that fails closed.

What the library does and this field does not: return the ciphertext when no key fits (and seal it again at the next
save), open whatever looks like a token on assignment, read its keys at import, open a value that was copied here from
another row, send plain text to the database in a lookup, or seal the text of an SQL expression.
"""

import re
from collections.abc import Sequence
from typing import Any, NoReturn

from cryptography.fernet import Fernet
from django.conf import settings
from django.core import exceptions
from django.core.serializers.base import SerializationError
from django.db import models
from django.db.models.expressions import Col
from django.db.models.lookups import IsNull
from django.utils.functional import cached_property

from .crypto import keyring, retention_keys

MASK = "•••"
LIBRARY_KEY_SETTING = "FIELD_ENCRYPTION_KEY"
_ENCRYPTION_KEY_ID = re.compile("[0-9a-f]{8}")


class _UnconfiguredCrypter:
    """Stands in for the library's crypter where the host project has no key for it; refuses to be used."""

    def __getattr__(self, name: str) -> NoReturn:
        raise exceptions.ImproperlyConfigured(
            "FIELD_ENCRYPTION_KEY is not set: django-encrypted-model-fields' own fields can't be used without it."
        )


def _import_base_field() -> "type[models.TextField[Any, Any]]":
    """Import the library's field. Without a key of the host's its import fails, and a throw-away key left in place
    would seal the host's own fields with a key that is lost at restart."""
    if getattr(settings, LIBRARY_KEY_SETTING, None) is not None:
        from encrypted_model_fields.fields import EncryptedTextField  # noqa: PLC0415

        return EncryptedTextField
    declared = hasattr(settings, LIBRARY_KEY_SETTING)
    setattr(settings, LIBRARY_KEY_SETTING, Fernet.generate_key())
    try:
        from encrypted_model_fields import fields as library  # noqa: PLC0415
    finally:
        if declared:
            setattr(settings, LIBRARY_KEY_SETTING, None)
        else:
            delattr(settings, LIBRARY_KEY_SETTING)
    vars(library)["CRYPTER"] = _UnconfiguredCrypter()
    return library.EncryptedTextField


class EncryptedText:
    """A value as the database holds it. It shows nothing; `SealedTextField.open` opens it."""

    __slots__ = ("ciphertext",)

    def __init__(self, ciphertext: str) -> None:
        self.ciphertext = ciphertext

    @property
    def key_id(self) -> str:
        """The id of the key that sealed it; empty where the text names none, and may be anything."""
        id_, colon, _ = self.ciphertext.partition(":")
        return id_ if colon and (_ENCRYPTION_KEY_ID.fullmatch(id_) or retention_keys.is_retention_key_name(id_)) else ""

    def __repr__(self) -> str:
        return MASK

    __str__ = __repr__


class _SelectOnlySQL(str):
    """The SQL of a sealed column, which can be selected: neither Django nor the database does anything else with it."""

    __slots__ = ("column_sql",)
    column_sql: str

    def __new__(cls, column_sql: str) -> "_SelectOnlySQL":
        # Where Django joins pieces instead of formatting them, the database is asked for a function that is not there.
        made = super().__new__(cls, f"a_sealed_column_can_only_be_selected({column_sql})")
        made.column_sql = column_sql
        return made

    def __str__(self) -> NoReturn:
        raise exceptions.FieldError("A sealed column can only be selected: the order of its ciphertexts means nothing.")


class _SealedCol(Col):
    """A sealed column in a statement."""

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, Any]:
        sql, params = super().as_sql(compiler, connection)
        return _SelectOnlySQL(sql), params


class _SealedIsNull(IsNull):
    """The one question that a sealed column answers."""

    def process_lhs(self, compiler: Any, connection: Any, lhs: Any = None) -> tuple[str, Any]:
        sql, params = compiler.compile(lhs or self.lhs)
        return getattr(sql, "column_sql", sql), params


def _validate_model_options(options: Any, field_name: str) -> None:
    """Raises: ImproperlyConfigured when options of the model would act on ciphertext of the field of that name."""
    latest = options.get_latest_by or ()
    acting = {
        "ordering": [each for each in options.ordering or () if isinstance(each, str)],
        "get_latest_by": [latest] if isinstance(latest, str) else latest,
        "unique_together": [each for group in options.unique_together for each in group],
        "indexes": [each for index in options.indexes for each in index.fields],
        "constraints": [each for constraint in options.constraints for each in getattr(constraint, "fields", ())],
    }
    for option, names in acting.items():
        if field_name in {each.removeprefix("-") for each in names}:
            raise exceptions.ImproperlyConfigured(f"A sealed field can't be in {option} of its model.")


class SealedTextField(_import_base_field()):  # type: ignore[misc]  # the base is chosen at import
    """Text, sealed in the database and in the instance, bound to its table, column and natural key.

    bind: attribute names of the natural key; known before the row is saved, hence not an automatic primary key.
    bucket: name of the attribute that says under which retention key; empty there: under the newest encryption key.
    Assign plain `str` and save; read `Sealed`; `open(instance)` gives the text. The only lookup is `isnull`; nothing is
    ordered by it or computed with it; no serializer of Django's writes it.
    `bulk_update`, `update(field=…)` and expressions are refused: only a whole row knows its natural key.
    """

    description = "Sealed text"

    def __init__(self, *args: Any, bind: Sequence[str], bucket: str = "", **kwargs: Any) -> None:
        self.bind = tuple(bind)
        self.bucket = bucket
        for option in ("unique", "primary_key", "db_index", "choices", "default", "db_default"):
            if kwargs.get(option, models.NOT_PROVIDED) not in (models.NOT_PROVIDED, None, False):
                raise exceptions.ImproperlyConfigured(f"A sealed field can't have {option}.")
        kwargs["editable"] = False
        super().__init__(*args, **kwargs)

    def deconstruct(self) -> Any:
        name, path, args, kwargs = super().deconstruct()
        kwargs.pop("editable")
        bucket = {"bucket": self.bucket} if self.bucket else {}
        return name, path, args, {**kwargs, "bind": self.bind, **bucket}

    def decrypt(self, instance: models.Model) -> str | None:
        """Return the instance's plain text, or None where there is none.

        Raises: Undecryptable.
        """
        value = getattr(instance, self.attname)
        if isinstance(value, EncryptedText):
            return keyring.decrypt(value.ciphertext, context=self._get_instance_context(instance))
        return None if value is None else str(value)

    def pre_save(self, model_instance: models.Model, add: bool) -> EncryptedText | None:
        value = getattr(model_instance, self.attname)
        if value is None or isinstance(value, EncryptedText):
            return value
        if not isinstance(value, str):
            raise TypeError(f"{self.name} takes text, not {type(value).__name__}.")
        # The very mask that a Sealed shows; the same characters from elsewhere are a value like any other.
        if value is MASK:
            raise exceptions.ValidationError(f"{self.name}: the mask is not the value.")
        bucket = getattr(model_instance, self.bucket) if self.bucket else ""
        sealed = EncryptedText(
            keyring.encrypt(value, context=self._get_instance_context(model_instance), retention_key_name=bucket)
        )
        setattr(model_instance, self.attname, sealed)
        return sealed

    def get_db_prep_save(self, value: Any, connection: Any) -> str | None:
        return self._get_ciphertext(value)

    def get_db_prep_value(self, value: Any, connection: Any, prepared: bool = False) -> str | None:
        return self._get_ciphertext(value)

    def get_prep_value(self, value: Any) -> str | None:
        return self._get_ciphertext(value)

    def from_db_value(self, value: str | None, *args: Any) -> EncryptedText | None:
        return None if value is None else EncryptedText(value)

    def to_python(self, value: Any) -> Any:
        if value == MASK:
            raise exceptions.ValidationError(f"{self.name}: the mask is not the value.")
        return value

    def value_to_string(self, obj: models.Model) -> NoReturn:
        # What serializers call: a mask in a fixture can't be loaded, and plain text must not be in one.
        meta = obj._meta
        raise SerializationError(
            f"{meta.label}.{self.name} is sealed, and no serializer writes it. Leave out the app or the model "
            f"(dumpdata --exclude {meta.label_lower}), or name the other fields (fields=…). To keep it, back up the "
            "database and its keys; `phi_oidc subject export` writes what is held of one person."
        )

    def contribute_to_class(self, cls: type[models.Model], name: str, private_only: bool = False) -> None:
        _validate_model_options(cls._meta, name)
        super().contribute_to_class(cls, name, private_only)

    def get_col(self, alias: str, output_field: Any = None) -> Col:
        return _SealedCol(alias, self, output_field)

    def select_format(self, compiler: Any, sql: str, params: Any) -> tuple[str, Any]:
        return getattr(sql, "column_sql", sql), params

    def get_lookup(self, lookup_name: str) -> Any:
        if lookup_name != "isnull":
            raise exceptions.FieldError(f"A sealed field has no lookup {lookup_name!r}: its ciphertexts differ.")
        return _SealedIsNull

    def get_transform(self, lookup_name: str) -> NoReturn:
        raise exceptions.FieldError("A sealed field has no transforms.")

    def get_encryption_context(self, natural_key: Sequence[Any]) -> list[str]:
        """Return what a text is bound to in the row whose natural key, in the order of bind, is bound.

        Raises: TypeError when a part of it is None.
        """
        # As the database gives them back: a UUID assigned as text must not seal under another spelling.
        parts = [to_python(value) for to_python, value in zip(self._natural_key_converters, natural_key, strict=True)]
        if None in parts:
            raise TypeError(f"{self.name} is bound to {', '.join(self.bind)}: set them before saving.")
        return [self.model._meta.db_table, self.column, *map(str, parts)]

    @cached_property
    def _natural_key_converters(self) -> list[Any]:
        return [self.model._meta.get_field(name).to_python for name in self.bind]

    def _get_instance_context(self, instance: models.Model) -> list[str]:
        return self.get_encryption_context([getattr(instance, name) for name in self.bind])

    def _get_ciphertext(self, value: Any) -> str | None:
        if value is None:
            return None
        if not isinstance(value, EncryptedText):
            raise exceptions.FieldError(f"{self.name} is sealed with its row: assign it and save the instance.")
        return value.ciphertext
