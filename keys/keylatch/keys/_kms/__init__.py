"""Device keys in files that only AWS KMS can open.

    _uri        where the file is, and which key of KMS it is under
    _service    two calls to KMS, and what it answers as errors with hints
    _wrapping   what a file's header says about its data key
    _device     a P-256 device key, unwrapped

Needs boto3, the extra `kms`.
"""

from __future__ import annotations

from keylatch.keys._kms._device import KmsDeviceKey, generate_device_key, open_device_key

__all__ = ["KmsDeviceKey", "generate_device_key", "open_device_key"]
