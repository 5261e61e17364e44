"""Keys on a token: finding exactly one, trusting its attributes, making new ones without replacing any."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias, TypeVar

import pkcs11
from pkcs11 import Attribute, KeyType, Mechanism, MechanismFlag, ObjectClass

from keylatch.errors import DeviceKeyError, KeylatchError, OutputError
from keylatch.keys._pkcs11._login import TokenSession
from keylatch.keys._pkcs11._uri import KeyUri

KEY_ID_BYTES = 16

# What an object can do follows from its attributes: python-pkcs11 puts its class together when it finds it. So type
# checkers see Any.
TokenObject: TypeAlias = Any
OpenedKey = TypeVar("OpenedKey")

_KINDS = {
    ObjectClass.PRIVATE_KEY: "private key",
    ObjectClass.PUBLIC_KEY: "public key",
    ObjectClass.SECRET_KEY: "secret key",
}


def find_private_key(session: pkcs11.Session, uri: KeyUri, key_type: KeyType, use: Attribute) -> TokenObject:
    """Finds the URI's private key and checks that it is one that cannot leave the token.

    Args:
        session: A session that is logged in.
        uri: Names the key.
        key_type: The type it must have.
        use: The permission that it must carry, CKA_SIGN or CKA_DERIVE.

    Raises:
        DeviceKeyError: None or several match; another type; not sensitive or extractable; not permitted; or it asks
            for the PIN at every use, which is not kept.
    """
    found = _find(session, ObjectClass.PRIVATE_KEY, _selector(uri))
    if not found:
        hint = "check object= and id=, or generate a key there first"
        raise DeviceKeyError(f"{uri.key_name} does not exist", hint=hint)
    key = _only(found, ObjectClass.PRIVATE_KEY, uri)
    if key.key_type is not key_type:
        found_type = getattr(key.key_type, "name", key.key_type)
        raise DeviceKeyError(f"{uri.key_name} is of type {found_type}, expected {key_type.name}", hint="name another")
    _check_confined(key, uri)
    check_permitted(key, use, uri)
    return key


def check_permitted(key: TokenObject, use: Attribute, uri: KeyUri) -> None:
    """Refuses a key that the token will not use in this way.

    Raises:
        DeviceKeyError: The attribute `use` is not set.
    """
    if not _flag(key, use):
        hint = "generate another key; the token decides at that time what a key may do"
        raise DeviceKeyError(f"{uri.key_name} has no CKA_{use.name}", hint=hint)


def find_public_key(session: pkcs11.Session, private: TokenObject, uri: KeyUri) -> TokenObject:
    """Finds the public key object beside a private key: of the same CKA_ID, or label where that is empty.

    Raises:
        DeviceKeyError: None or several match.
    """
    found = _find(session, ObjectClass.PUBLIC_KEY, _beside(private))
    if not found:
        hint = "import the public key under the private key's id, or generate another key"
        raise DeviceKeyError(f"{uri.key_name} has a private key object and no public one beside it", hint=hint)
    return _only(found, ObjectClass.PUBLIC_KEY, uri)


def find_secret_key(session: pkcs11.Session, private: TokenObject, uri: KeyUri) -> TokenObject | None:
    """Finds the secret key object beside a private key, if there is one.

    Raises:
        DeviceKeyError: Several match, or it can leave the token.
    """
    found = _find(session, ObjectClass.SECRET_KEY, _beside(private))
    if not found:
        return None
    secret = _only(found, ObjectClass.SECRET_KEY, uri)
    _check_confined(secret, uri)
    return secret


def generate_on_token(
    token: TokenSession,
    uri: KeyUri,
    make: Callable[[pkcs11.Session, bytes, str], Iterator[TokenObject]],
    open_key: Callable[[], OpenedKey],
) -> OpenedKey:
    """Makes objects on the token and opens them as a key; leaves none behind where that fails.

    PKCS#11 has no exclusive creation: two processes that generate the same key at the same moment both succeed, and
    opening it then says that two match.

    Args:
        token: Where to.
        uri: Names the new key; without an id, it gets a random one.
        make: Called with a session that can write, the id and the label; yields each object once it is made.
        open_key: Opens what was made; it makes sure that the token did as it was told.

    Raises:
        OutputError: An object of that name or id exists already, or the token cannot be written.
        DeviceKeyError: The token cannot make or use such a key.
    """
    key_id = uri.key_id or os.urandom(KEY_ID_BYTES)
    with token.writes() as session:
        _check_free(session, uri)
        made: list[TokenObject] = []
        try:
            for key in make(session, key_id, uri.label or ""):
                made.append(key)  # noqa: PERF402 - what was made before a failure counts
            return open_key()
        except (KeylatchError, pkcs11.PKCS11Error):
            _destroy(made)
            raise


def generate_pair(
    session: pkcs11.Session, key_type: KeyType, parameters: bytes, key_id: bytes, label: str, *, derive: bool
) -> tuple[TokenObject, TokenObject]:
    """Makes a key pair on the token, public and private: the latter signs, derives if told to, and never leaves.

    Raises:
        pkcs11.PKCS11Error: The token refuses.
    """
    edwards = key_type is KeyType.EC_EDWARDS
    mechanism = Mechanism.EC_EDWARDS_KEY_PAIR_GEN if edwards else Mechanism.EC_KEY_PAIR_GEN
    curve = session.create_domain_parameters(key_type, {Attribute.EC_PARAMS: parameters}, local=True)
    return curve.generate_keypair(
        id=key_id,
        label=label,
        store=True,
        mechanism=mechanism,
        capabilities=MechanismFlag.SIGN | MechanismFlag.VERIFY | (MechanismFlag.DERIVE if derive else 0),
        public_template={Attribute.PRIVATE: False},
        private_template=_CONFINED,
    )


def generate_secret(session: pkcs11.Session, key_id: bytes, label: str) -> TokenObject:
    """Makes a 256-bit HMAC key on the token, which never leaves.

    Raises:
        pkcs11.PKCS11Error: The token refuses.
    """
    return session.generate_key(
        KeyType.GENERIC_SECRET,
        256,
        id=key_id,
        label=label,
        store=True,
        capabilities=MechanismFlag.SIGN,
        template=_CONFINED,
    )


_CONFINED: dict[Attribute, Any] = {Attribute.PRIVATE: True, Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False}


def _selector(uri: KeyUri) -> dict[Attribute, Any]:
    named = {Attribute.LABEL: uri.label, Attribute.ID: uri.key_id}
    return {attribute: value for attribute, value in named.items() if value is not None}


def _beside(private: TokenObject) -> dict[Attribute, Any]:
    key_id = private[Attribute.ID]
    return {Attribute.ID: key_id} if key_id else {Attribute.LABEL: private[Attribute.LABEL]}


def _find(session: pkcs11.Session, object_class: ObjectClass, selector: Mapping[Attribute, Any]) -> list[TokenObject]:
    return list(session.get_objects({Attribute.CLASS: object_class, Attribute.TOKEN: True, **selector}))


def _only(found: list[TokenObject], object_class: ObjectClass, uri: KeyUri) -> TokenObject:
    if len(found) > 1:
        kind = _KINDS[object_class]
        hint = "name the key by object= and id= both, or remove the others with the token's own tool"
        raise DeviceKeyError(f"{len(found)} {kind} objects match {uri.key_name}, expected one", hint=hint)
    return found[0]


def _check_confined(key: TokenObject, uri: KeyUri) -> None:
    # A key that the token would hand out is no better than a file, and must not look as if it were.
    if _flag(key, Attribute.EXTRACTABLE) or not _flag(key, Attribute.SENSITIVE):
        hint = "generate another key; this one may have been copied"
        raise DeviceKeyError(f"{uri.key_name} can be read out of the token", hint=hint)
    if _flag(key, Attribute.ALWAYS_AUTHENTICATE):
        hint = "generate another key without CKA_ALWAYS_AUTHENTICATE"
        raise DeviceKeyError(f"{uri.key_name} asks for the PIN at every use, which is not kept", hint=hint)


def _flag(key: TokenObject, attribute: Attribute) -> bool:
    try:
        return bool(key[attribute])
    except pkcs11.AttributeTypeInvalid:  # an attribute younger than the token
        return False


def _check_free(session: pkcs11.Session, uri: KeyUri) -> None:
    # By label and by id: a second key under either name would make opening the first one ambiguous.
    for attribute, value in _selector(uri).items():
        for object_class, kind in _KINDS.items():
            if _find(session, object_class, {attribute: value}):
                hint = "choose another object= and id=, or remove the old key with the token's own tool"
                raise OutputError(f"{uri.key_name} exists already, as a {kind}", hint=hint)


def _destroy(made: list[TokenObject]) -> None:
    # By handle, not by name: an object that another process made under the same name is not ours.
    for key in made:
        with contextlib.suppress(pkcs11.PKCS11Error):
            key.destroy()
