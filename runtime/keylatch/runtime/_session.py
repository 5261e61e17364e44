"""`InferenceSession`: a drop-in for onnxruntime's that opens locked models."""

from __future__ import annotations

import time
import weakref
from collections.abc import Sequence
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, NoReturn, Self

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from keylatch.errors import KeylatchError, LicenseRequiredError, SessionOptionError
from keylatch.keys import Claims, PassphraseCallback, current_time
from keylatch.runtime import _known_answer
from keylatch.runtime._admission import Admission, Unlimited
from keylatch.runtime._credentials import (
    CounterSource,
    Credentials,
    KeySource,
    LicenseSource,
    RevocationsSource,
    Sources,
    StateSource,
    TrustSource,
)
from keylatch.runtime._followed_file import Followed, follow
from keylatch.runtime._input_check import explain_inputs
from keylatch.runtime._manifest import Manifest
from keylatch.runtime._model_files import ModelFiles, read_model_files
from keylatch.runtime._opening import Array, Opened, open_license, put_in_place, remember, wipe
from keylatch.runtime._sealed_values import VALUES_KEY_NAME
from keylatch.runtime._sealed_weights import KEY_NAME
from keylatch.runtime._session_options import (
    Providers,
    private_options,
    refuse_bfloat16,
    require_provider,
    usable_providers,
)

_Plain = onnxruntime.InferenceSession

# Between two admissions one read of CLOCK_BOOTTIME (vDSO, no system call) decides.
_CLOCK = time.CLOCK_BOOTTIME
_now = time.clock_gettime
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
        trust: The issuer's public key or trust file, as a path or object; or several, all of one issuer: a list or
            cosignature by any of them holds for the licenses of all.
        passphrase: Called for the passphrase of an encrypted key, or a PIN.
        revocations: The issuer's revocation list, a path or its bytes. Some licenses ask for one.
        state: What this device remembers, a path or a `DeviceState`: with it, a clock set back, an older license and an
            older revocation list are refused. ``keylatch device init-state`` makes it; it is never made silently.
        counter: The counter that `state` was made with, e.g. ``tpm:nv=0x01800100``.
        watch: Take renewed licenses and lists from their files as these are replaced; needs paths. Looks once a
            minute, and before an expired license stops the session.
        disabled_optimizers: As onnxruntime's.

    Raises:
        LicenseRequiredError: License, key or trust is not given.
        LicenseError: The license is not valid, not now, not for this model or not for this device.
        IntegrityError: The license could not be decrypted or did not open the model.
        ArtifactError: The model's files are not those of its manifest.
        DeviceKeyError: The device key cannot be used.
        DeviceStateError, ClockError: What the device remembers cannot be believed, or forbids it.
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
        revocations: RevocationsSource | None = None,
        state: StateSource | None = None,
        counter: CounterSource | None = None,
        watch: bool = False,
        disabled_optimizers: Sequence[str] | None = None,
    ) -> None:
        # Looked at before they are read: a file that is replaced while it opens the model is taken at the first run.
        followed = follow(license=license, revocations=revocations) if watch else {}
        sources = Sources(
            license=license,
            key=key,
            trust=trust,
            passphrase=passphrase,
            revocations=revocations,
            state=state,
            counter=counter,
        )
        credentials = Credentials.load(sources)
        self._open(Path(path), credentials, sess_options, providers, provider_options, disabled_optimizers, followed)

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
        session._open(Path(path), None, sess_options, providers, provider_options, None, {})
        return session

    def _open(
        self,
        path: Path,
        credentials: Credentials | None,
        sess_options: onnxruntime.SessionOptions | None,
        providers: Providers | None,
        provider_options: Sequence[dict[Any, Any]] | None,
        disabled_optimizers: Sequence[str] | None,
        followed: Followed,
    ) -> None:
        self._admission: Admission | None = None
        self._model_id = "unknown"
        self._sess: Any = None  # whoever fails from here on can be printed, and is dead
        options, self._shown_options = private_options(sess_options)
        usable = usable_providers(providers, provider_options)
        # 7. Every file's digest; the weights' is awaited at `finish`.
        with read_model_files(path) as files:
            self._model_id, self._manifest = files.model_id, files.manifest
            opened = None
            if credentials is not None:
                opened = open_license(credentials, files.model_id, files.manifest.secrets, now=current_time())
            try:
                self._create(files, options, usable, disabled_optimizers, opened)
            except BaseException:
                self._sess = None  # what was made of unverified bytes does not live on
                raise
            finally:
                # 14. Wipe our own copies.
                wipe({} if opened is None else opened.values)
        self._sess_options = self._sess_options_initial = self._shown_options
        if credentials is not None and opened is not None:
            remember(credentials, opened.claims, moment=opened.moment)
            # A weak reference: a session that referred to itself would keep its memory when it is deleted, until Python
            # next looks for garbage.
            itself: Any = weakref.proxy(self)
            check = partial(type(self)._check_known_answer, itself)
            gate = self._manifest.secrets
            self._admission = Admission(credentials, opened, self._model_id, gate, check, followed)
        # 13. The known-answer check waits for the first run, which comes to `_readmit`.
        self._term = self._admission or Unlimited()

    def _create(
        self,
        files: ModelFiles,
        options: onnxruntime.SessionOptions,
        providers: tuple[Any, Any],
        disabled_optimizers: Sequence[str] | None,
        opened: Opened | None,
    ) -> None:
        # 12. Safe session options; create the session. No fallback to another provider, no configuration taken from
        # the model or the environment.
        names, settings = providers
        values = {} if opened is None else dict(opened.values)
        key, values_key = values.pop(KEY_NAME, None), values.pop(VALUES_KEY_NAME, None)
        aside = {}
        if files.unseal_values is not None and values_key is not None:
            aside = files.unseal_values(values_key.tobytes())
        # onnxruntime uses them where they lie
        self._external = external = files.external(None if key is None else key.tobytes())
        try:
            put_in_place(options, external, values | aside)
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
        except ort_errors.NotImplemented as error:
            refuse_bfloat16(files.manifest.model, names, error)
            raise
        finally:
            wipe(aside)
        files.finish()
        require_provider(names, self.get_providers())

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
        return None if self._admission is None else self._admission.claims

    def renew(self, license: LicenseSource | None = None, *, revocations: RevocationsSource | None = None) -> Claims:
        """Put a renewed license, a newer revocation list, or both in force, while other threads go on running.

        A license costs its opening and one inference, on the calling thread. Runs go on meanwhile under the old one;
        after its end they go on with the new one. A license that is refused changes nothing; a list that the issuer
        signed holds from then on, and ends the session if the license in force is on it.

        Args:
            license: For the same model and device, not older than the one in force; None keeps that.
            revocations: Not older than the one in force; None keeps that.

        Returns:
            What the license now in force says.

        Raises:
            OlderLicenseError: The license is older than the one in force.
            OlderRevocationListError: The list is older than the one in force.
            LicenseRevokedError: The license is on the list.
            LicenseRequiredError: The session runs locked.
            IntegrityError: The license does not open, or is for other secret values than the session was opened with.
            KeylatchError: As for opening.
        """
        if self._admission is None:
            raise LicenseRequiredError("this session runs locked", hint="open the model with a license")
        self._admission.renew(license, revocations)
        self._readmit()
        return self._admission.claims

    def _readmit(self) -> None:
        """Check again what time can change; before the first answer, that the model is really unlocked."""
        assert self._admission is not None  # noqa: S101  locked sessions never come here
        self._admission.readmit()

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
        if _now(_CLOCK) >= self._term.until:
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
        if _now(_CLOCK) >= self._term.until:
            self._readmit()
        return _Plain.run_async(self, output_names, input_feed, callback, user_data, run_options)

    def run_with_ort_values(
        self, output_names: Sequence[str] | None, input_dict_ort_values: dict[str, Any], run_options: Any = None
    ) -> Any:
        """Compute outputs as OrtValues, as `onnxruntime.InferenceSession.run_with_ort_values`."""
        if _now(_CLOCK) >= self._term.until:
            self._readmit()
        return _Plain.run_with_ort_values(self, output_names, input_dict_ort_values, run_options)

    def run_with_iobinding(self, iobinding: Any, run_options: Any = None) -> None:
        """Compute on bound inputs and outputs, as `onnxruntime.InferenceSession.run_with_iobinding`."""
        if _now(_CLOCK) >= self._term.until:
            self._readmit()
        _Plain.run_with_iobinding(self, iobinding, run_options)

    def run_with_ortvaluevector(self, *arguments: Any) -> None:
        """Compute on vectors of OrtValues, as `onnxruntime.InferenceSession.run_with_ortvaluevector`."""
        if _now(_CLOCK) >= self._term.until:
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
        state = "locked" if self.claims is None else f"licensed to {self.claims.customer}"
        return f"<keylatch InferenceSession, model {self._model_id[:8]}…, {state}>"
