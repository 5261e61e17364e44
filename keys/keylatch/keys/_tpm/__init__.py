"""Device keys and counters in a TPM 2.0: ``tpm:device.tpm``, ``tpm:nv=0x01800100``.

    _location         what a URI says: where the key file is, which TPM, which library
    _structures       TPM structures as the bytes that cross the bus, and the policy over them
    _key_file         the public file that holds the wrapped key
    _response_codes   what a TPM answers, as our errors
    _connection       the commands needed, and the choice between the two that send them
    _pytss            through tpm2-pytss
    _esys             through libtss2-esys itself, without a compiler
    _storage_root     the key that wraps ours, and that proves which TPM this is
    _session          authorization by policy, HMAC and encryption on the bus
    _tpm_device_key   a device key
    _generate         making one
    _tpm_counter      a counter that cannot be turned back

"Part 1, section 19" means the TCG's TPM 2.0 Library, revision 1.59.
"""

from __future__ import annotations

from keylatch.keys._tpm._generate import generate_device_key
from keylatch.keys._tpm._tpm_counter import TpmCounter, define_counter, open_counter
from keylatch.keys._tpm._tpm_device_key import TpmDeviceKey, open_device_key

__all__ = [
    "TpmCounter",
    "TpmDeviceKey",
    "define_counter",
    "generate_device_key",
    "open_counter",
    "open_device_key",
]
