"""Licenses and keys: who issued, to which device, for which model, until when; and the secrets that go with it.

    _secret_bytes      the type secrets live in
    _encoding          strict JSON and base64url
    _files             bounded reading, atomic writing
    _passphrase        asking, and Argon2id
    _sealed            the encrypted file that private keys and vaults share
    _key_file          private keys on disk
    _issuer_key        the issuer's Ed25519 key: the protocol, the public half
    _file_issuer_key   an issuer key in a file
    _device_key        the device's P-256 key: the protocols, the public half
    _file_device_key   a device key in a file
    _hybrid_key        the post-quantum device key, in a file
    _device_secret     other secrets that only a device key gives
    _tpm _pkcs11 _kms  keys in a TPM, in an HSM, under a key of AWS KMS
    _key_uri           keys named by URI
    _counter           a counter that cannot be turned back
    _license           the license file's frame
    _claims            what a license says
    _process_guard     memory kept out of core dumps
    _clock             now, and its floor
    _value_rules       what the values of a small JSON document must be
    _trust             whom a device trusts
    _signed_token      what an issuer signs
    _cosignature       the second, post-quantum signature
    _token             claims, signed
    _recipients        the content key, wrapped for devices
    _hybrid_recipients and for post-quantum ones
    _tensors           named arrays to bytes and back
    _domains           which withheld weights a license for some domains brings
    _fingerprint       weights that differ in each license
    _issue             issuing a license
    _open              opening a license, step by step
    _statement         what an issuer states beside licenses
    _revocations       which licenses it took back
    _time_token        what time it is, for one device, once
    _stain_commitment  that it has a stain, and since when
    _enrollment        what a device sends to be licensed
    _device_state      what a device remembers: the class
    _state_record      and the rules
    _state_file        and the file with its MAC
    _state_store       and reading and writing it with a counter
    _state_lock        and one writer at a time
    _vault             the issuer's secrets at rest
    _ledger            the issuer's record of what was issued and revoked, in SQLite

Imports only numpy, cryptography, joserfc and safetensors.
"""

from __future__ import annotations

from keylatch.keys._claims import MAX_DEVICES, Claims, UnverifiedClaims
from keylatch.keys._clock import (
    BUILD_TIME,
    RunningClock,
    boot_seconds,
    clock_floor,
    current_time,
    format_duration,
    format_time,
)
from keylatch.keys._cosignature import CosignerKey, CosignerPublicKey
from keylatch.keys._counter import MonotonicCounter
from keylatch.keys._device_key import DeviceKey, DevicePublicKey, ProvingDeviceKey
from keylatch.keys._device_secret import AnyDeviceKey, AnyDevicePublicKey
from keylatch.keys._device_state import DeviceState
from keylatch.keys._domains import domain_section, domains_of, for_domains
from keylatch.keys._encoding import canonical_json, parse_json_object
from keylatch.keys._enrollment import (
    EnrollmentRequest,
    load_device,
    load_enrollment,
    make_enrollment_request,
    parse_enrollment_request,
    write_enrollment_request,
)
from keylatch.keys._file_device_key import FileDeviceKey
from keylatch.keys._file_issuer_key import FileIssuerKey
from keylatch.keys._fingerprint import Fingerprint, log10_chance, without_fingerprint
from keylatch.keys._hybrid_key import HybridDeviceKey, HybridPublicKey
from keylatch.keys._issue import issue_license
from keylatch.keys._issuer_key import IssuerKey, IssuerPublicKey
from keylatch.keys._key_uri import (
    define_counter,
    generate_device_key,
    generate_issuer_key,
    open_counter,
    open_device_key,
    open_issuer_key,
    split_key_uri,
)
from keylatch.keys._ledger import (
    KnownDevice,
    Ledger,
    LedgerEntry,
    LicensedModel,
    LicenseTerms,
    Marked,
    PublishedList,
    check_issuer,
    find_entry,
    issue_and_record,
    list_entries,
    list_marks,
    publish_revocations,
    read_recorded_license,
    renew_license,
    revoke_device,
    revoke_license,
    rotate_issuer,
    trust_of_ledger,
)
from keylatch.keys._license import MAX_LICENSE_BYTES, License, parse_license, read_license, write_license
from keylatch.keys._open import (
    check_validity,
    decrypt_license,
    read_claims_unverified,
    read_recipients_unverified,
    verify_license,
)
from keylatch.keys._passphrase import PassphraseCallback
from keylatch.keys._process_guard import guard_process, keep_out_of_core_dumps
from keylatch.keys._revocations import (
    RevocationList,
    check_revocations,
    read_revocation_list,
    sign_revocation_list,
    verify_revocation_list,
    write_revocation_list,
)
from keylatch.keys._secret_bytes import SecretBytes
from keylatch.keys._stain_commitment import (
    StainCommitment,
    read_stain_commitment,
    sign_stain_commitment,
    verify_stain_commitment,
    write_stain_commitment,
)
from keylatch.keys._time_token import (
    TimeRequest,
    parse_time_request,
    read_time_token,
    sign_time_token,
    write_time_token,
)
from keylatch.keys._trust import Trust
from keylatch.keys._vault import Vault, read_vault, write_vault

__all__ = [
    "AnyDeviceKey",
    "AnyDevicePublicKey",
    "BUILD_TIME",
    "Claims",
    "CosignerKey",
    "CosignerPublicKey",
    "DeviceKey",
    "DevicePublicKey",
    "DeviceState",
    "EnrollmentRequest",
    "FileDeviceKey",
    "FileIssuerKey",
    "Fingerprint",
    "HybridDeviceKey",
    "HybridPublicKey",
    "IssuerKey",
    "IssuerPublicKey",
    "KnownDevice",
    "Ledger",
    "LedgerEntry",
    "License",
    "LicenseTerms",
    "LicensedModel",
    "MAX_DEVICES",
    "MAX_LICENSE_BYTES",
    "Marked",
    "MonotonicCounter",
    "PassphraseCallback",
    "ProvingDeviceKey",
    "PublishedList",
    "RevocationList",
    "RunningClock",
    "SecretBytes",
    "StainCommitment",
    "TimeRequest",
    "Trust",
    "UnverifiedClaims",
    "Vault",
    "boot_seconds",
    "canonical_json",
    "check_issuer",
    "check_revocations",
    "check_validity",
    "clock_floor",
    "current_time",
    "decrypt_license",
    "define_counter",
    "domain_section",
    "domains_of",
    "find_entry",
    "for_domains",
    "format_duration",
    "format_time",
    "generate_device_key",
    "generate_issuer_key",
    "guard_process",
    "issue_and_record",
    "issue_license",
    "keep_out_of_core_dumps",
    "list_entries",
    "list_marks",
    "load_device",
    "load_enrollment",
    "log10_chance",
    "make_enrollment_request",
    "open_counter",
    "open_device_key",
    "open_issuer_key",
    "parse_enrollment_request",
    "parse_json_object",
    "parse_license",
    "parse_time_request",
    "publish_revocations",
    "read_claims_unverified",
    "read_license",
    "read_recipients_unverified",
    "read_recorded_license",
    "read_revocation_list",
    "read_stain_commitment",
    "read_time_token",
    "read_vault",
    "renew_license",
    "revoke_device",
    "revoke_license",
    "rotate_issuer",
    "sign_revocation_list",
    "sign_stain_commitment",
    "sign_time_token",
    "split_key_uri",
    "trust_of_ledger",
    "verify_license",
    "verify_revocation_list",
    "verify_stain_commitment",
    "without_fingerprint",
    "write_enrollment_request",
    "write_license",
    "write_revocation_list",
    "write_stain_commitment",
    "write_time_token",
    "write_vault",
]
