"""What `keylatch audit` works on, loaded and checked before anything runs."""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from pathlib import Path

from keylatch.audit import (
    Attack,
    PlainNetwork,
    Scene,
    Target,
    load_plain,
    load_target,
    owner_from_vault,
    require_locked,
)
from keylatch.cli._audit_images import read_audit_images
from keylatch.cli._audit_request import AuditRequest
from keylatch.cli._options import passphrase_from
from keylatch.errors import InputError, OutputError
from keylatch.keys import Vault, open_issuer_key, read_vault

DEFAULT_SHARES = (0.01, 0.05, 0.1)
CELLS_FOLDER = "cells"


def load_scene(request: AuditRequest, vault: Vault | None) -> Scene:
    """Load everything but the vault.

    Raises:
        KeylatchError: Something does not exist, does not fit, or is not what it should be.
    """
    target = load_target(request.artifact)
    classes = require_locked(target)
    owner = None if vault is None else owner_from_vault(vault, target)
    return Scene(
        target,
        read_audit_images(request, target, classes),
        owner,
        base=None if request.base is None else load_plain(request.base, target.spec),
        original=None if request.original is None else _load_original(request.original, target, classes),
    )


def load_vault(request: AuditRequest) -> Vault | None:
    """Read the owner's vault, if it is named; may ask for a passphrase.

    Raises:
        FormatError: It is no vault.
        DeviceKeyError: It does not open.
    """
    if request.secret is None:
        return None
    ask = passphrase_from(request.passphrase_file)
    if request.issuer is None:
        return read_vault(request.secret, passphrase=ask)
    return read_vault(request.secret, issuer=open_issuer_key(request.issuer, passphrase=ask))


def labeled_counts(asked: Sequence[int], training_images: int | None, pool: int) -> tuple[int, ...]:
    """Numbers of labeled images to attack with, ascending.

    Args:
        asked: What the user named; if nothing, shares of the training set, as far as the pool reaches.
        training_images: Size of the training set; the pool's, if not known.
        pool: Labeled images that attackers may draw from.

    Raises:
        InputError: More than there are.
    """
    if asked and max(asked) > pool:
        raise InputError(
            f"{max(asked)} labeled images were asked for, attackers have {pool} to draw from",
            hint="give more images, or fewer with --labeled",
        )
    shares = (round(share * (training_images or pool)) for share in DEFAULT_SHARES)
    return tuple(sorted(set(asked or (min(pool, max(1, count)) for count in shares))))


def choose_attacks(attacks: Sequence[Attack], names: Sequence[str]) -> tuple[Attack, ...]:
    """The attacks with these names; all, if none is named.

    Raises:
        InputError: There is no such attack.
    """
    known = [attack.name for attack in attacks]
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
            hint = f"did you mean {' or '.join(close)}?" if close else "keylatch audit --list shows all"
            raise InputError(f"there is no attack {name!r:.60}", hint=hint)
    return tuple(attack for attack in attacks if not names or attack.name in names)


def prepare_folder(folder: Path) -> None:
    """Make the folder of results; one that an earlier audit made is used again.

    Raises:
        OutputError: Something else stands there, or it cannot be made.
    """
    if folder.is_dir() and any(folder.iterdir()) and not (folder / CELLS_FOLDER).is_dir():
        raise OutputError(f"{folder} exists and was not made by an audit", hint="choose another --out")
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file, expected a folder", hint="choose another --out")
    try:
        (folder / CELLS_FOLDER).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be made: {error.strerror}", hint="choose another --out") from None
    if not os.access(folder / CELLS_FOLDER, os.W_OK | os.X_OK):
        raise OutputError(f"{folder} does not allow writing", hint="choose another --out, or allow writing there")


def _load_original(path: Path, target: Target, classes: int) -> PlainNetwork:
    original = load_plain(path, target.spec)
    if original.classes != classes:
        raise InputError(
            f"{path} has {original.classes} classes, the locked model {classes}",
            hint="give the network that was locked; --base takes the public one it came from",
        )
    return original
