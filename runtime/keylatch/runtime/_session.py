"""`InferenceSession`: a drop-in for onnxruntime's that opens locked models."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NoReturn, Self

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from keylatch.errors import KeylatchError, SessionOptionError
from keylatch.keys import Claims, PassphraseCallback, check_validity, current_time
from keylatch.runtime import _known_answer
from keylatch.runtime._input_check import explain_inputs
from keylatch.runtime._manifest import Manifest
from keylatch.runtime._model_files import read_model_files
from keylatch.runtime._opening import (
    Array,
    Credentials,
    KeySource,
    LicenseSource,
    TrustSource,
    decrypt_gate,
    load_credentials,
    put_in_place,
    verify_for_model,
    wipe,
)
from keylatch.runtime._session_options import Providers, private_options, require_provider, usable_providers

_Plain = onnxruntime.InferenceSession

# The wall clock is looked at this often while running, in seconds; between, one read of CLOCK_BOOTTIME (vDSO, no
# system call) decides. CLOCK_BOOTTIME goes on while the machine sleeps and cannot be set.
RECHECK_SECONDS = 60.0
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
_now = time.clock_gettime
_NEVER = float("inf")
_REFUSED_INPUT = (ort_errors.InvalidArgument, ort_errors.Fail, ValueError, RuntimeError, TypeError)


class InferenceSession(onnxruntime.InferenceSession):  # type: ignore[misc]  # onnxruntime is untyped
    """Opens a locked model with a license; otherwise `onnxruntime.InferenceSession`, method for method.

    The license is checked while opening, and again while running: after its end every run raises
    `LicenseExpiredError`. The first run pays one extra inference, the known-answer check, before any output leaves.

    Args:
        path: The locked model's directory.
        sess_options: As onnxruntime's; copied, never changed. Options that would write the opened model to disk are
            refused. What onnxruntime cannot list does not carry over: free-dimension overrides, custom operator
            libraries, and configuration entries other than its documented ones.
        providers: As onnxruntime's. A provider that does not start is an error unless another listed one runs.
        provider_options: As onnxruntime's.
        license: The license: a path, its bytes, or a parsed `License`.
        key: The device key: a URI such as ``file:device.key``, or a `DeviceKey`.
        trust: The issuer's public key, as a path or `IssuerPublicKey`; or several.
        passphrase: Called for the passphrase of an encrypted key.
        disabled_optimizers: As onnxruntime's.

    Raises:
        LicenseRequiredError: License, key or trust is not given.
        LicenseError: The license is not valid, not now, not for this model or not for this device.
        IntegrityError: The license could not be decrypted or did not open the model.
        ArtifactError: The model's files are not those of its manifest.
        DeviceKeyError: The device key cannot be used.
        SessionOptionError: An option is refused or a provider is not available.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        sess_options: onnxruntime.SessionOptions | None = None,
        providers: Providers | None = None,
        provider_options: Sequence[dict[Any, Any]] | None = None,
        *,
        license: LicenseSource | None = None,
        key: KeySource | None = None,
        trust: TrustSource | Sequence[TrustSource] | None = None,
        passphrase: PassphraseCallback | None = None,
        disabled_optimizers: Sequence[str] | None = None,
    ) -> None:
        credentials = load_credentials(license, key, trust, passphrase)
        self._open(Path(path), credentials, sess_options, providers, provider_options, disabled_optimizers)

    @classmethod
    def locked(
        cls,
        path: str | PathLike[str],
        sess_options: onnxruntime.SessionOptions | None = None,
        providers: Providers | None = None,
        provider_options: Sequence[dict[Any, Any]] | None = None,
    ) -> Self:
        """Run a model locked, on purpose: what anybody without a license gets. For benchmarks and demonstrations.

        Raises:
            ArtifactError: The model's files are not those of its manifest.
            SessionOptionError: As for opening.
        """
        session = cls.__new__(cls)
        session._open(Path(path), None, sess_options, providers, provider_options, None)
        return session

    def _open(
        self,
        path: Path,
        credentials: Credentials | None,
        sess_options: onnxruntime.SessionOptions | None,
        providers: Providers | None,
        provider_options: Sequence[dict[Any, Any]] | None,
        disabled_optimizers: Sequence[str] | None,
    ) -> None:
        options, self._shown_options = private_options(sess_options)
        names, settings = usable_providers(providers, provider_options)
        self._claims: Claims | None = None
        self._known_answer: dict[str, Array] | None = None
        secret_values: dict[str, Array] = {}
        # 7. Every file's digest; the weights' is awaited at `finish`.
        with read_model_files(path) as files:
            self._model_id, self._manifest = files.model_id, files.manifest
            if credentials is not None:
                self._claims = verify_for_model(credentials, files.model_id)
                secret_values, self._known_answer = decrypt_gate(credentials, self._claims, files.manifest.gate)
            try:
                # 12. Safe session options; create the session. No fallback to another provider, no configuration
                # taken from the model or the environment.
                external = files.external()
                put_in_place(options, external, secret_values)
                _Plain.__init__(
                    self,
                    files.graph,
                    options,
                    names,
                    settings,
                    enable_fallback=0,
                    read_config_from_model=0,
                    disabled_optimizers=disabled_optimizers,
                )
                files.finish()
                require_provider(names, self.get_providers())
            except BaseException:
                self._sess: Any = None  # what was made of unverified bytes does not live on
                raise
            finally:
                # 14. Wipe our own copies.
                wipe(secret_values)
            self._external = external  # onnxruntime uses them where they lie
        self._sess_options = self._sess_options_initial = self._shown_options
        self._admission = threading.Lock()
        # 13. The known-answer check waits for the first run: a deadline in the past sends that to `_readmit`.
        self._admitted_until = _NEVER if credentials is None else 0.0

    @property
    def model_id(self) -> str:
        """SHA-256 of the model's manifest, hex."""
        return self._model_id

    @property
    def manifest(self) -> Manifest:
        """The model's manifest."""
        return self._manifest

    @property
    def claims(self) -> Claims | None:
        """What the license says; None for a session that runs locked."""
        return self._claims

    def _readmit(self) -> None:
        """Check the license's time again; before the first answer, check that the model is really unlocked."""
        with self._admission:
            claims = self._claims
            assert claims is not None  # noqa: S101  locked sessions never come here
            now = current_time()
            check_validity(claims, now=now)
            if self._known_answer is not None:
                self._check_known_answer(self._known_answer)
                self._known_answer = None
            # `now` is a whole second, up to one behind the clock: in the last one every run comes here.
            self._admitted_until = _now(_CLOCK) + min(RECHECK_SECONDS, claims.expires_at - 1 - now)

    def _check_known_answer(self, expected: dict[str, Array]) -> None:
        node = self.get_inputs()[0]
        dtype = {"tensor(uint8)": "uint8", "tensor(float16)": "float16"}.get(node.type, "float32")
        image = _known_answer.known_answer_input(expected, tuple(node.shape[1:]), dtype)
        run_options = onnxruntime.RunOptions()
        run_options.add_run_config_entry("gpu_graph_id", "-1")  # never capture this run in a CUDA graph
        output = self._sess.run([self.get_outputs()[0].name], {node.name: image}, run_options)[0]
        _known_answer.verify_known_answer(expected, np.asarray(output))

    def run(self, output_names: Sequence[str] | None, input_feed: dict[str, Any], run_options: Any = None) -> Any:
        """Compute outputs, as `onnxruntime.InferenceSession.run`.

        Raises:
            LicenseExpiredError: The license's end has passed.
            InputError: An input's name, dtype or shape is not what the model takes.
        """
        if _now(_CLOCK) >= self._admitted_until:
            self._readmit()
        try:
            return _Plain.run(self, output_names, input_feed, run_options)
        except _REFUSED_INPUT as error:
            explained = explain_inputs(input_feed, self.get_inputs())
            if explained is None or isinstance(error, KeylatchError):
                raise
            raise explained from error

    def run_async(
        self,
        output_names: Sequence[str] | None,
        input_feed: dict[str, Any],
        callback: Any,
        user_data: Any,
        run_options: Any = None,
    ) -> Any:
        """Compute outputs on another thread, as `onnxruntime.InferenceSession.run_async`."""
        if _now(_CLOCK) >= self._admitted_until:
            self._readmit()
        return _Plain.run_async(self, output_names, input_feed, callback, user_data, run_options)

    def run_with_ort_values(
        self, output_names: Sequence[str] | None, input_dict_ort_values: dict[str, Any], run_options: Any = None
    ) -> Any:
        """Compute outputs as OrtValues, as `onnxruntime.InferenceSession.run_with_ort_values`."""
        if _now(_CLOCK) >= self._admitted_until:
            self._readmit()
        return _Plain.run_with_ort_values(self, output_names, input_dict_ort_values, run_options)

    def run_with_iobinding(self, iobinding: Any, run_options: Any = None) -> None:
        """Compute on bound inputs and outputs, as `onnxruntime.InferenceSession.run_with_iobinding`."""
        if _now(_CLOCK) >= self._admitted_until:
            self._readmit()
        _Plain.run_with_iobinding(self, iobinding, run_options)

    def run_with_ortvaluevector(self, *arguments: Any) -> None:
        """Compute on vectors of OrtValues, as `onnxruntime.InferenceSession.run_with_ortvaluevector`."""
        if _now(_CLOCK) >= self._admitted_until:
            self._readmit()
        _Plain.run_with_ortvaluevector(self, *arguments)

    def get_session_options(self) -> onnxruntime.SessionOptions:
        """The options that were asked for, without the model's external data and secret values."""
        return self._shown_options

    def set_providers(self, providers: Any = None, provider_options: Any = None) -> NoReturn:
        """Refused: it would create the session anew, without the checks.

        Raises:
            SessionOptionError: Always.
        """
        del providers, provider_options
        raise SessionOptionError("the providers of an open session cannot be changed", hint="open a new session")

    def __reduce__(self) -> NoReturn:
        raise TypeError("an open session is not pickled or copied; open the model again where it is needed")

    __copy__ = __reduce__

    def __deepcopy__(self, memo: object) -> NoReturn:
        self.__reduce__()

    def __repr__(self) -> str:
        state = "locked" if self._claims is None else f"licensed to {self._claims.customer}"
        return f"<keylatch InferenceSession, model {self._model_id[:8]}…, {state}>"
