"""`SealedTextField`: an encrypted text column based on django-encrypted-model-fields that refuses
by default.

The library returns the ciphertext when no key fits (and encrypts it again at the next save),
decrypts anything on assignment that looks like a token, reads its keys at import, decrypts a value
that was copied from another row, sends plaintext to the database in a lookup, and encrypts the text
of an SQL expression. This field does none of that.
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NoReturn

from cryptography.fernet import Fernet
from django.conf import settings
from django.core import exceptions
from django.core.serializers.base import SerializationError
from django.db import models
from django.db.models.expressions import Col
from django.db.models.lookups import IsNull
from django.utils.functional import cached_property

from .crypto import claim_keys, keyring
from .errors import KeyMissing, KeySourceUnavailable

MASK = "•••"
LIBRARY_KEY_SETTING = "FIELD_ENCRYPTION_KEY"
_ENCRYPTION_KEY_ID = re.compile("[0-9a-f]{8}")


def _format_key_part(part: Any) -> str:
    """Return the text of a part of a natural key. A time is in UTC, for every time zone of a
    connection.
    """
    if isinstance(part, datetime):
        return part.astimezone(UTC).isoformat()
    return str(part)


class _UnconfiguredCrypter:
    """Replaces the library's crypter in projects without a key for it, and refuses any use."""

    def __getattr__(self, name: str) -> NoReturn:
        raise exceptions.ImproperlyConfigured(
            "FIELD_ENCRYPTION_KEY is not set: "
            "django-encrypted-model-fields' own fields can't be used without it."
        )


def _import_base_field() -> "type[models.TextField[Any, Any]]":
    """Import the library's field.

    Without a key in the settings that import fails, so a temporary key is set for its duration. It
    is removed again: otherwise it would encrypt the host project's own fields, and be lost at
    restart.
    """
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
    """A value as stored in the database; it displays only a mask. `SealedTextField.decrypt`
    decrypts it.
    """

    __slots__ = ("ciphertext",)

    def __init__(self, ciphertext: str) -> None:
        self.ciphertext = ciphertext

    @property
    def key_id(self) -> str:
        """The id of the encryption key, or the names of the retention keys; empty if it names none:
        plaintext?
        """
        id_, colon, _ = self.ciphertext.partition(":")
        is_known = _ENCRYPTION_KEY_ID.fullmatch(id_) or claim_keys.are_claim_key_names(id_)
        return id_ if colon and is_known else ""

    def __repr__(self) -> str:
        return MASK

    __str__ = __repr__


class _SelectOnlySQL(str):
    """The SQL of an encrypted column: it can be selected, and neither Django nor the database can
    use it otherwise.
    """

    __slots__ = ("column_sql",)
    column_sql: str

    def __new__(cls, column_sql: str) -> "_SelectOnlySQL":
        # Where Django joins SQL instead of formatting it, the database fails on this unknown
        # function.
        sql = super().__new__(cls, f"a_sealed_column_can_only_be_selected({column_sql})")
        sql.column_sql = column_sql
        return sql

    def __str__(self) -> NoReturn:
        raise exceptions.FieldError(
            "A sealed column can only be selected: the order of ciphertexts has no meaning."
        )


class _SealedCol(Col):
    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, Any]:
        sql, params = super().as_sql(compiler, connection)
        return _SelectOnlySQL(sql), params


class _SealedIsNull(IsNull):
    """The only lookup of an encrypted column."""

    def process_lhs(self, compiler: Any, connection: Any, lhs: Any = None) -> tuple[str, Any]:
        sql, params = compiler.compile(lhs or self.lhs)
        return getattr(sql, "column_sql", sql), params


class SealedTextField(_import_base_field()):  # type: ignore[misc]  # the base is chosen at import
    """Text that is encrypted in the database and in the instance, and bound to its table, column
    and natural key.

    bind: attribute names of the natural key. It is known before the row is saved, so not an
    automatic primary key.
    bucket: name of the attribute with the name of the retention key, or with the names of two,
    joined by `+`. If it is empty, the newest encryption key is used.
    source_table: for ciphertexts that are moved here from another table, and stay bound to their
    place there: its name. The first attribute in bind then has the name of the column that they
    come from, and the others its natural key.

    Assign plain `str` and save. Reading gives `EncryptedText`, and `decrypt(instance)` returns the
    plaintext. The only lookup is `isnull`. Ordering, computing and Django's serializers are
    refused, and so are `bulk_update`, `update(field=…)` and expressions, because only a complete
    row has its natural key.
    """

    description = "Sealed text"

    def __init__(
        self,
        *args: Any,
        bind: Sequence[str],
        bucket: str = "",
        source_table: str = "",
        **kwargs: Any,
    ) -> None:
        self.bind = tuple(bind)
        self.bucket = bucket
        self.source_table = source_table
        for option in ("unique", "primary_key", "db_index", "choices", "default", "db_default"):
            if kwargs.get(option, models.NOT_PROVIDED) not in (models.NOT_PROVIDED, None, False):
                raise exceptions.ImproperlyConfigured(f"A sealed field can't have {option}.")
        kwargs["editable"] = False
        super().__init__(*args, **kwargs)

    def deconstruct(self) -> Any:
        name, path, args, kwargs = super().deconstruct()
        kwargs.pop("editable")
        options = {
            name: value for name in ("bucket", "source_table") if (value := getattr(self, name))
        }
        return name, path, args, {**kwargs, "bind": self.bind, **options}

    def decrypt(
        self,
        instance: models.Model,
        *,
        keys: Sequence[keyring.SymmetricKey] | None = None,
        retention_key_cache: claim_keys.KeyCache | None = None,
    ) -> str | None:
        """Return the plaintext of the instance's column, or None if it is empty.

        keys: the encryption keys, read once for many rows; None: read them now.
        retention_key_cache: the retention keys that the same operation has read.
        Raises one of three errors, each of which is handled by the callers as follows. The first
        two have `is_key_missing`: the key may come back, so no caller discards the ciphertext.

        ==========================================  ======================  ==================  ==============
        `KeySourceUnavailable` is a `KeyMissing`, the other two are `Undecryptable`, and all are
        `KeyRingError`.
        """  # noqa: E501
        value = getattr(instance, self.attname)
        if not isinstance(value, EncryptedText):
            if value is None:
                return None
            return str(value)
        try:
            context = self._get_instance_context(instance)
            return keyring.decrypt(
                value.ciphertext,
                context=context,
                keys=keys,
                retention_key_cache=retention_key_cache,
            )
        except KeyMissing as error:
            raise KeySourceUnavailable(str(error)) from error

    def pre_save(self, model_instance: models.Model, add: bool) -> EncryptedText | None:
        return self.encrypt(model_instance)

    def encrypt(
        self,
        model_instance: models.Model,
        *,
        retention_key_cache: claim_keys.KeyCache | None = None,
    ) -> EncryptedText | None:
        """Encrypt the assigned text, as `save()` does; return it. retention_key_cache: as for
        `decrypt`.
        """
        value = getattr(model_instance, self.attname)
        if value is None or isinstance(value, EncryptedText):
            return value
        if not isinstance(value, str):
            raise TypeError(f"{self.name} takes text, not {type(value).__name__}.")
        # The mask object of an EncryptedText; the same characters from elsewhere are a normal
        # value.
        if value is MASK:
            raise exceptions.ValidationError(f"{self.name}: the mask is not the value.")

        if self.bucket:
            names = getattr(model_instance, self.bucket)
        else:
            names = ""

        context = self._get_instance_context(model_instance)
        encrypted = EncryptedText(
            keyring.encrypt(
                value,
                context=context,
                retention_key_names=names,
                retention_key_cache=retention_key_cache,
            )
        )
        setattr(model_instance, self.attname, encrypted)
        return encrypted

    def get_prep_value(self, value: Any, *args: Any, **kwargs: Any) -> str | None:
        if value is None:
            return None
        if not isinstance(value, EncryptedText):
            raise exceptions.FieldError(
                f"{self.name} is bound to its row: assign it and save the instance."
            )
        return value.ciphertext

    get_db_prep_save = get_db_prep_value = get_prep_value

    def from_db_value(self, value: str | None, *args: Any) -> EncryptedText | None:
        if value is None:
            return None
        return EncryptedText(value)

    def to_python(self, value: Any) -> Any:
        if value == MASK:
            raise exceptions.ValidationError(f"{self.name}: the mask is not the value.")
        return value

    def value_to_string(self, obj: models.Model) -> NoReturn:
        # Serializers call this: a mask in a fixture can't be loaded, and plaintext must not be in
        # one.
        meta = obj._meta
        raise SerializationError(
            f"{meta.label}.{self.name} is sealed, and no serializer writes it. Leave out the app "
            f"or the model (dumpdata --exclude {meta.label_lower}), or name the other fields "
            "(fields=…). To keep it, back up the database and its keys; `phi_oidc subject export` "
            "writes the stored data of one person."
        )

    def contribute_to_class(
        self, cls: type[models.Model], name: str, private_only: bool = False
    ) -> None:
        options = cls._meta
        latest = options.get_latest_by or ()
        get_latest_by: Sequence[str]
        if isinstance(latest, str):
            get_latest_by = [latest]
        else:
            get_latest_by = latest

        names_by_option = {
            "ordering": [other for other in options.ordering or () if isinstance(other, str)],
            "get_latest_by": get_latest_by,
            "unique_together": [other for group in options.unique_together for other in group],
            "indexes": [other for index in options.indexes for other in index.fields],
            "constraints": [
                other for item in options.constraints for other in getattr(item, "fields", ())
            ],
        }
        for option, names in names_by_option.items():
            # It would use the ciphertext of the field.
            if name in {other.removeprefix("-") for other in names}:
                raise exceptions.ImproperlyConfigured(
                    f"A sealed field can't be in {option} of its model."
                )
        super().contribute_to_class(cls, name, private_only)

    def get_col(self, alias: str, output_field: Any = None) -> Col:
        return _SealedCol(alias, self, output_field)

    def select_format(self, compiler: Any, sql: str, params: Any) -> tuple[str, Any]:
        return getattr(sql, "column_sql", sql), params

    def get_lookup(self, lookup_name: str) -> Any:
        if lookup_name != "isnull":
            raise exceptions.FieldError(
                f"A sealed field has no lookup {lookup_name!r}: its ciphertexts differ."
            )
        return _SealedIsNull

    def get_transform(self, lookup_name: str) -> NoReturn:
        raise exceptions.FieldError("A sealed field has no transforms.")

    def get_encryption_context(self, natural_key: Sequence[Any]) -> list[str]:
        """Return what binds a value to its row: table, column, natural key. Raises: TypeError when
        a part is None.
        """
        # Normalized as the database returns them: a UUID assigned as text must give the same
        # context.
        parts = []
        for to_python, value in zip(self._natural_key_converters, natural_key, strict=True):
            parts.append(to_python(value))
        if None in parts:
            raise TypeError(
                f"{self.name} is bound to {', '.join(self.bind)}: set them before saving."
            )

        if self.source_table:
            place = [self.source_table]
        else:
            place = [self.model._meta.db_table, self.column]

        return [*place, *map(_format_key_part, parts)]

    @cached_property
    def _natural_key_converters(self) -> list[Any]:
        return [self.model._meta.get_field(name).to_python for name in self.bind]

    def _get_instance_context(self, instance: models.Model) -> list[str]:
        return self.get_encryption_context([getattr(instance, name) for name in self.bind])
