"""Session and provider options: a private copy of the caller's, without the doors through which secrets would leave.

Secret gate tensors are put into the options that a session is made from. The caller's own object never gets them: it
is copied, property by property and entry by entry, and may be used for other sessions.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import onnxruntime

from keylatch.errors import SessionOptionError

Providers: TypeAlias = Sequence[str | tuple[str, dict[Any, Any]]]

PROPERTIES = (
    "enable_cpu_mem_arena", "enable_mem_pattern", "enable_mem_reuse", "execution_mode", "execution_order",
    "graph_optimization_level", "inter_op_num_threads", "intra_op_num_threads", "log_severity_level",
    "log_verbosity_level", "logid", "use_deterministic_compute", "use_per_session_threads",
)  # fmt: skip

# Configuration entries that only tune execution (onnxruntime_session_options_config_keys.h, 1.31). onnxruntime cannot
# list the entries of an options object, so others do not carry over.
CARRIED_ENTRIES = (
    "ep.cuda.fpa_intb_gemm", "memory.enable_memory_arena_shrinkage", "mlas.disable_kleidiai",
    "mlas.kleidiai.conv_igemm_max_work", "mlas.nchwc_depthwise_sliding",
    "mlas.nchwc_pointwise_conv_max_input_channel_batch", "mlas.use_lut_gemm",
    "mlas.enable_gemm_fastmath_arm64_bfloat16", "optimization.constant_folding_max_output_size_in_bytes",
    "optimization.disable_specified_optimizers", "optimization.enable_cast_chain_elimination",
    "optimization.enable_gelu_approximation", "session.disable_aot_function_inlining",
    "session.disable_cpu_ep_fallback", "session.disable_double_qdq_remover", "session.disable_prepacking",
    "session.disable_qdq_constant_folding", "session.disable_quant_qdq", "session.dynamic_block_base",
    "session.enable_dq_matmulnbits_fusion", "session.enable_quant_qdq_cleanup", "session.force_spinning_stop",
    "session.function_expansion_byte_limit", "session.function_expansion_node_limit",
    "session.graph_optimizations_loop_level", "session.inter_op.allow_spinning", "session.inter_op.spin_backoff_max",
    "session.inter_op.spin_duration_us", "session.intra_op.allow_spinning", "session.intra_op.spin_backoff_max",
    "session.intra_op.spin_duration_us", "session.intra_op_thread_affinities", "session.prepack.enable_parallel",
    "session.qdq_matmulnbits_accuracy_level", "session.qdq_matmulnbits_block_size",
    "session.record_ep_graph_assignment_info", "session.set_denormal_as_zero",
    "session.strict_shape_type_inference", "session.use_device_allocator_for_initializers",
    "session.use_env_allocators",
)  # fmt: skip

# Entries that write the graph or its weights to disk, or read other files in their place.
REFUSED_ENTRIES = (
    "ep.context_enable", "ep.context_file_path", "ep.context_model_external_initializers_file_name",
    "session.collect_node_memory_stats_to_file", "session.model_external_initializers_file_folder_path",
    "session.moe_expert_counter_state_file", "session.node_partition_config_file",
    "session.optimized_model_external_initializers_file_name",
    "session.save_external_prepacked_constant_initializers", "session.save_model_format",
)  # fmt: skip

# Provider options that write engines, caches, contexts, dumps or profiles, or read them back: TensorRT, OpenVINO,
# QNN, MIGraphX, CANN and CoreML all spell theirs with one of these words. OpenVINO's load_config sets any property,
# its cache directory too.
_REFUSED_WORDS = ("cache", "dump", "save", "context", "profil", "export", "load_compiled", "load_config")
_OFF = ("", "0", "false", "none", "off")
# Providers that take such options from the environment as well.
_ENVIRONMENT = {"TensorrtExecutionProvider": "ORT_TENSORRT_", "MIGraphXExecutionProvider": "ORT_MIGRAPHX_"}


def private_options(
    options: onnxruntime.SessionOptions | None,
) -> tuple[onnxruntime.SessionOptions, onnxruntime.SessionOptions]:
    """Copy session options twice: one to open the session with, one to show.

    Args:
        options: The caller's, or None for the defaults.

    Raises:
        SessionOptionError: If an option would write the model or its secrets to disk, or cannot be copied.
    """
    if os.environ.get("ORT_LOAD_CONFIG_FROM_MODEL", "0") not in ("", "0"):  # onnxruntime would fail, obscurely
        raise _refused("ORT_LOAD_CONFIG_FROM_MODEL of the environment", "a model does not configure its own session")
    copies = onnxruntime.SessionOptions(), onnxruntime.SessionOptions()
    if options is None:
        return copies
    _refuse_outlets(options)
    properties = {name: getattr(options, name) for name in PROPERTIES}
    entries = {key: entry for key in CARRIED_ENTRIES if (entry := _entry(options, key)) is not None}
    for copy in copies:
        for name, value in properties.items():
            if value != getattr(copy, name):
                setattr(copy, name, value)
        for key, entry in entries.items():
            copy.add_session_config_entry(key, entry)
    return copies


def _refuse_outlets(options: onnxruntime.SessionOptions) -> None:
    if options.optimized_model_filepath:
        raise _refused("optimized_model_filepath", "the optimized model would hold the secrets in clear")
    if options.enable_profiling:
        raise _refused("enable_profiling", "profiles are written where others may read them")
    for key in REFUSED_ENTRIES:
        if (_entry(options, key) or "").lower() not in _OFF:
            raise _refused(key, "it writes or reads the model outside its verified files")
    if options.has_providers():
        raise SessionOptionError(
            "the session options name providers themselves", hint="give them to InferenceSession as providers=[...]"
        )


def _entry(options: onnxruntime.SessionOptions, key: str) -> str | None:
    try:
        value: str = options.get_session_config_entry(key)
    except RuntimeError:  # not set
        return None
    return value


def _refused(name: str, reason: str) -> SessionOptionError:
    return SessionOptionError(f"option {name} is refused: {reason}", hint=f"open the session without {name}")


def usable_providers(
    providers: Providers | None, provider_options: Sequence[dict[Any, Any]] | None
) -> tuple[list[str] | None, list[dict[Any, Any]] | None]:
    """Check the providers and their options.

    Args:
        providers: As onnxruntime takes them; None for its default.
        provider_options: As onnxruntime takes them.

    Returns:
        Names and options of those that are available, in order.

    Raises:
        SessionOptionError: If a provider option would write caches or dumps, if no provider is available, or if one
            is not and the caller listed no other.
    """
    if not providers:  # to onnxruntime an empty list, too, is its default: all that are available
        for name in onnxruntime.get_available_providers():
            _refuse_provider_outlets(name, _from_environment(name))
        return None, None
    pairs = list(_paired(providers, provider_options))
    for name, options in pairs:
        _refuse_provider_outlets(name, options)
        _refuse_provider_outlets(name, _from_environment(name))
    available = set(onnxruntime.get_available_providers())
    missing = [name for name, _ in pairs if name not in available]
    usable = [(name, options) for name, options in pairs if name in available]
    if not usable:
        raise SessionOptionError(
            f"{', '.join(missing)} is not available, this onnxruntime has {', '.join(sorted(available))}",
            hint="pip install 'keylatch[gpu]' for CUDA, or list CPUExecutionProvider",
        )
    if missing:
        warnings.warn(
            f"{', '.join(missing)} is not available; using {', '.join(name for name, _ in usable)}",
            RuntimeWarning,
            stacklevel=4,
        )
    return [name for name, _ in usable], [options for _, options in usable]


def require_provider(requested: Sequence[str] | None, running: Sequence[str]) -> None:
    """Refuse a session that runs on another provider than the caller listed.

    onnxruntime drops a provider whose libraries do not load and goes on with the CPU.

    Raises:
        SessionOptionError: If none of the requested providers runs.
    """
    if requested and requested[0] not in running and not set(requested[1:]) & set(running):
        raise SessionOptionError(
            f"{requested[0]} did not start, the session would run on {', '.join(running)}",
            hint="install the provider's libraries (for CUDA: pip install 'keylatch[gpu]', then "
            "onnxruntime.preload_dlls()), or list CPUExecutionProvider to allow it",
        )


def refuse_bfloat16(model: Mapping[str, Any], requested: Sequence[str] | None, error: Exception) -> None:
    """Say what to do about a bfloat16 model for which onnxruntime finds no operators; it has none for CPUs.

    Args:
        model: What the manifest says of it.
        requested: Names of the providers; None for onnxruntime's default.
        error: onnxruntime's.

    Raises:
        SessionOptionError: If the model computes in bfloat16.
    """
    if model.get("precision") == "bfloat16":
        names = requested or onnxruntime.get_available_providers()
        raise SessionOptionError(
            f"the model computes in bfloat16, for which onnxruntime has no operators with {', '.join(names)}",
            hint="list CUDAExecutionProvider on a machine where CUDA runs, or export the model in float16 or float32",
        ) from error


def _paired(
    providers: Providers, provider_options: Sequence[dict[Any, Any]] | None
) -> Iterator[tuple[str, dict[Any, Any]]]:
    if provider_options is not None and len(provider_options) != len(providers):
        raise SessionOptionError(
            f"got options for {len(provider_options)} providers, expected {len(providers)}",
            hint="give one options dict for each provider",
        )
    for index, provider in enumerate(providers):
        if isinstance(provider, str):
            given = provider_options[index] if provider_options is not None else {}
            yield provider, dict(given or {})
        else:
            yield provider[0], dict(provider[1])


def _from_environment(provider: str) -> dict[str, str]:
    prefix = _ENVIRONMENT.get(provider)
    return {key: value for key, value in os.environ.items() if prefix is not None and key.startswith(prefix)}


def _refuse_provider_outlets(provider: str, options: Mapping[Any, Any]) -> None:
    for key, value in options.items():
        if any(word in str(key).lower() for word in _REFUSED_WORDS) and str(value).lower() not in _OFF:
            raise _refused(f"{key} of {provider}", "caches, dumps and contexts hold the model's weights in clear")
