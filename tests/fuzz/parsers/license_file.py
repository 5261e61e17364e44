"""The license's frame; and a whole license, changed and then opened: refused unless it is an original."""

from __future__ import annotations

from fuzz.attempts import REFUSED, attempt, must_refuse, require
from fuzz.byte_source import ByteSource
from fuzz.harnesses import DECISIONS, Harness
from fuzz.mutations import changed
from fuzz.originals import COSIGNED_TRUST, DEVICE, HYBRID_DEVICE, NOW, SECRETS, TRUST, original
from keylatch.errors import FormatError
from keylatch.keys import AnyDeviceKey, License, Trust, decrypt_license, parse_license, verify_license

# What a device with this trust and this key opens.
_PLAIN = ("license", "license.other", "license.shared", "license.cosigned", "license.cosigned.other")
_SETTINGS: tuple[tuple[Trust, AnyDeviceKey, tuple[str, ...]], ...] = (
    (TRUST, DEVICE, (*_PLAIN, "license.cosigned.foreign")),
    (TRUST, HYBRID_DEVICE, ("license.hybrid", "license.hybrid.other", "license.shared")),
    (COSIGNED_TRUST, DEVICE, ("license.cosigned", "license.cosigned.other")),
)
_FILES = {name: original(name) for name in ("license.foreign", *(name for setting in _SETTINGS for name in setting[2]))}
_LICENSES = [parse_license(data) for data in _FILES.values()]


def parse(data: bytes) -> None:
    license = attempt(parse_license, data, errors=FormatError)
    if license is not REFUSED:
        require(license.serialize() == data, "a license does not serialize to what it was parsed from")


def open_changed(data: bytes) -> None:
    source = ByteSource(data)
    trust, device, names = source.choose(_SETTINGS)
    file = changed(source, _FILES[source.choose(names)], source.choose(list(_FILES.values())))
    must_refuse(attempt(_open, file, trust, device), file, _accepted(names))


def open_mixed(data: bytes) -> None:
    """Parts of different licenses, one of them changed or none."""
    source = ByteSource(data)
    trust, device, names = source.choose(_SETTINGS)
    parts = [getattr(source.choose(_LICENSES), part) for part in ("jwt", "jwe", "blob")]
    index = source.below(4)
    if index < 3:
        parts[index] = changed(source, parts[index], getattr(source.choose(_LICENSES), ("jwt", "jwe", "blob")[index]))
    license = attempt(License, *parts)
    if license is not REFUSED:
        file = license.serialize()
        must_refuse(attempt(_open, file, trust, device), file, _accepted(names))


def _open(file: bytes, trust: Trust, device: AnyDeviceKey) -> dict[str, bytes]:
    license = parse_license(file)
    values = decrypt_license(license, verify_license(license, trust, now=NOW), device)
    found = {name: value.tobytes() for name, value in values.items()}
    require(found == SECRETS, "a license opened to other values")
    return found


# An original that is refused would make every refusal worthless.
for _trust, _device, _names in _SETTINGS:
    for _name in _names:
        _open(_FILES[_name], _trust, _device)


def _accepted(names: tuple[str, ...]) -> set[bytes]:
    return {_FILES[name] for name in names}


HARNESS = Harness(
    attacks=(parse, open_changed, open_mixed),
    seeds=(tuple(_FILES.values())[:4], DECISIONS, DECISIONS),
    words=(b"KEYLATCH", b"\x01", b"\x81", b"\0\0\0\0", b"\xff\xff\xff\xff", b"KEYLATCH\x81"),
)
