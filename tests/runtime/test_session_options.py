"""Session and provider options: what carries over, what is refused, and that the caller's object stays clean."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from runtime_world import LockedModel, listing, same

from keylatch.errors import SessionOptionError
from keylatch.keys import SecretBytes
from keylatch.runtime import GRAPH_NAME, InferenceSession, _session
from keylatch.runtime._session_options import CARRIED_ENTRIES, PROPERTIES, REFUSED_ENTRIES, private_options

CPU = "CPUExecutionProvider"
NO_CUDA = pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="CUDA is present here"
)

VALUES: dict[str, Any] = {
    "enable_cpu_mem_arena": False,
    "enable_mem_pattern": False,
    "enable_mem_reuse": False,
    "execution_mode": onnxruntime.ExecutionMode.ORT_PARALLEL,
    "execution_order": onnxruntime.ExecutionOrder.PRIORITY_BASED,
    "graph_optimization_level": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "inter_op_num_threads": 2,
    "intra_op_num_threads": 1,
    "log_severity_level": 3,
    "log_verbosity_level": 1,
    "logid": "acme",
    "use_deterministic_compute": True,
    "use_per_session_threads": False,
}

# Every other public member of SessionOptions, and why it is not copied.
HANDLED = {
    "optimized_model_filepath": "refused",
    "enable_profiling": "refused",
    "profile_file_prefix": "without profiling it does nothing",
    "has_providers": "asked, and refused",
    "add_provider": "shows in has_providers",
    "add_provider_for_devices": "shows in has_providers",
    "set_provider_selection_policy": "shows in has_providers",
    "set_provider_selection_policy_delegate": "shows in has_providers",
    "add_session_config_entry": "entries are copied by name",
    "get_session_config_entry": "entries are copied by name",
    "add_external_initializers": "never carried: cannot be read back, and would replace the model's own",
    "add_external_initializers_from_files_in_memory": "never carried, likewise",
    "add_initializer": "never carried, likewise",
    "register_custom_ops_library": "never carried: cannot be read back",
    "add_free_dimension_override_by_denotation": "never carried: cannot be read back",
    "add_free_dimension_override_by_name": "never carried: cannot be read back",
    "set_ep_context_data_read_func": "never carried: contexts are refused",
    "clear_ep_context_data_read_func": "never carried: contexts are refused",
    "set_load_cancellation_flag": "never carried: cannot be read back",
}


def test_every_member_of_session_options_is_carried_or_handled() -> None:
    """A new onnxruntime brings new ones: decide for each before it is let through."""
    members = {name for name in dir(onnxruntime.SessionOptions) if not name.startswith("_")}
    assert members == {*PROPERTIES, *HANDLED}
    assert not set(PROPERTIES) & set(HANDLED)


def test_every_property_carries_its_value() -> None:
    assert set(VALUES) == set(PROPERTIES)
    options = onnxruntime.SessionOptions()
    for name, value in VALUES.items():
        assert getattr(options, name) != value
        setattr(options, name, value)
    for copy in private_options(options):
        assert copy is not options
        assert {name: getattr(copy, name) for name in PROPERTIES} == VALUES


def test_untouched_options_carry_nothing() -> None:
    plain = onnxruntime.SessionOptions()
    for given in (None, onnxruntime.SessionOptions()):
        for copy in private_options(given):
            assert all(getattr(copy, name) == getattr(plain, name) for name in PROPERTIES)
            assert all(_entry(copy, key) is None for key in CARRIED_ENTRIES)


@pytest.mark.parametrize("key", CARRIED_ENTRIES)
def test_every_tuning_entry_carries_its_value(key: str) -> None:
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry(key, "17")
    for copy in private_options(options):
        assert [other for other in CARRIED_ENTRIES if _entry(copy, other) is not None] == [key]
        assert _entry(copy, key) == "17"


def test_no_entry_is_both_carried_and_refused() -> None:
    assert not set(CARRIED_ENTRIES) & set(REFUSED_ENTRIES)
    assert len(set(CARRIED_ENTRIES)) == len(CARRIED_ENTRIES)


def _entry(options: onnxruntime.SessionOptions, key: str) -> str | None:
    try:
        value: str = options.get_session_config_entry(key)
    except RuntimeError:
        return None
    return value


def test_the_session_is_made_with_the_caller_s_values(made: LockedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    given = []
    plain = onnxruntime.InferenceSession.__init__

    def spy(self: Any, graph: bytes, options: onnxruntime.SessionOptions, *rest: Any, **more: Any) -> None:
        given.append(options)
        plain(self, graph, options, *rest, **more)

    monkeypatch.setattr(onnxruntime.InferenceSession, "__init__", spy)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.logid = "acme"
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    session = made.open(sess_options=options)
    assert given[0] is not options
    assert (given[0].intra_op_num_threads, given[0].logid) == (1, "acme")
    assert _entry(given[0], "session.set_denormal_as_zero") == "1"
    assert same(session.run(None, made.feed())[0], made.keyed)


def test_the_caller_s_options_serve_other_sessions_and_hold_no_secret(made: LockedModel) -> None:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    first = made.open(sess_options=options)
    second = made.open(sess_options=options)
    locked = InferenceSession.locked(made.path, options)
    stock = onnxruntime.InferenceSession(made.path / GRAPH_NAME, options)
    for session, expected in ((first, made.keyed), (second, made.keyed), (locked, made.locked), (stock, made.locked)):
        assert same(session.run(None, made.feed())[0], expected)
    assert _entry(options, "session.use_external_initializer_file_buffers_directly") is None


def test_initializers_in_the_caller_s_options_do_not_reach_the_model(made: LockedModel) -> None:
    options = onnxruntime.SessionOptions()
    wrong = {name: np.zeros_like(value) for name, value in made.defaults.items()}
    options.add_external_initializers(
        list(wrong), [onnxruntime.OrtValue.ortvalue_from_numpy(v) for v in wrong.values()]
    )
    assert same(made.open(sess_options=options).run(None, made.feed())[0], made.keyed)


# --- refused


def _refused(model: LockedModel, match: str, **changes: Any) -> SessionOptionError:
    with pytest.raises(SessionOptionError, match=match) as opened:
        model.open(**changes)
    with pytest.raises(SessionOptionError, match=match):
        InferenceSession.locked(model.path, **changes)
    assert opened.value.hint
    return opened.value


def test_writing_the_optimized_model_is_refused(made: LockedModel, tmp_path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "open.onnx")
    _refused(made, "optimized_model_filepath", sess_options=options)
    assert listing(tmp_path).keys() == {str(tmp_path)}


def test_profiling_is_refused(made: LockedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    options = onnxruntime.SessionOptions()
    options.enable_profiling = True
    _refused(made, "enable_profiling", sess_options=options)
    assert listing(tmp_path).keys() == {str(tmp_path)}


@pytest.mark.parametrize("value", ["1", "true", "/tmp/x", "no"])
@pytest.mark.parametrize("key", REFUSED_ENTRIES)
def test_entries_that_write_or_read_models_are_refused(key: str, value: str) -> None:
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry(key, value)
    with pytest.raises(SessionOptionError, match=key.replace(".", r"\.")) as caught:
        private_options(options)
    assert caught.value.hint


@pytest.mark.parametrize("key", REFUSED_ENTRIES)
def test_such_an_entry_that_is_off_does_no_harm(key: str) -> None:
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry(key, "0")
    for copy in private_options(options):
        assert _entry(copy, key) is None


@pytest.mark.parametrize("key", ["ep.context_enable", "session.save_model_format"])
def test_a_refused_entry_makes_no_session(made: LockedModel, key: str) -> None:
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry(key, "1")
    _refused(made, key, sess_options=options)


@pytest.mark.parametrize("how", ["policy", "provider"])
def test_options_that_choose_providers_themselves_are_refused(made: LockedModel, how: str) -> None:
    options = onnxruntime.SessionOptions()
    if how == "policy":
        options.set_provider_selection_policy(onnxruntime.OrtExecutionProviderDevicePolicy.PREFER_CPU)
    else:
        options.add_provider_for_devices(onnxruntime.get_ep_devices()[:1], {})
    _refused(made, "name providers themselves", sess_options=options)


OUTLETS = [
    ("TensorrtExecutionProvider", "trt_engine_cache_enable"),
    ("TensorrtExecutionProvider", "trt_engine_cache_path"),
    ("TensorrtExecutionProvider", "trt_timing_cache_enable"),
    ("TensorrtExecutionProvider", "trt_dump_subgraphs"),
    ("TensorrtExecutionProvider", "trt_dump_ep_context_model"),
    ("TensorrtExecutionProvider", "trt_ep_context_file_path"),
    ("NvTensorRTRTXExecutionProvider", "nv_runtime_cache_path"),
    ("NvTensorRTRTXExecutionProvider", "nv_dump_subgraphs"),
    ("OpenVINOExecutionProvider", "cache_dir"),
    ("OpenVINOExecutionProvider", "export_ep_ctx_blob"),
    ("OpenVINOExecutionProvider", "load_config"),
    ("QNNExecutionProvider", "dump_json_qnn_graph"),
    ("QNNExecutionProvider", "profiling_file_path"),
    ("QNNExecutionProvider", "qnn_saver_path"),
    ("QNNExecutionProvider", "qnn_context_cache_enable"),
    ("MIGraphXExecutionProvider", "migraphx_save_compiled_model"),
    ("MIGraphXExecutionProvider", "migraphx_load_compiled_model"),
    ("MIGraphXExecutionProvider", "migraphx_model_cache_dir"),
    ("CoreMLExecutionProvider", "ModelCacheDirectory"),
    ("CoreMLExecutionProvider", "ProfileComputePlan"),
    ("CANNExecutionProvider", "dump_om_model"),
    ("VitisAIExecutionProvider", "cacheDir"),
]


@pytest.mark.parametrize(("provider", "key"), OUTLETS)
def test_provider_options_that_write_engines_are_refused(made: LockedModel, provider: str, key: str) -> None:
    match = f"option {key} of {provider} is refused"
    _refused(made, match, providers=[(provider, {key: "1"}), CPU])
    _refused(made, match, providers=[provider, CPU], provider_options=[{key: "engine.bin"}, {}])
    _refused(made, match, providers=[(provider, {key: True}), CPU])


def test_provider_options_that_are_off_or_only_tune_are_taken(made: LockedModel) -> None:
    tuned = {"device_id": "0", "arena_extend_strategy": "kSameAsRequested"}
    for off in (False, "False", 0, "0", "", None):
        with pytest.warns(RuntimeWarning, match="OpenVINOExecutionProvider is not available"):
            made.open(providers=[("OpenVINOExecutionProvider", {"cache_dir": off}), CPU])
    with pytest.warns(RuntimeWarning, match="Qnn"):
        made.open(providers=["QnnFakeExecutionProvider", CPU], provider_options=[tuned, {}])


@pytest.mark.parametrize(
    ("provider", "variable"),
    [
        ("TensorrtExecutionProvider", "ORT_TENSORRT_ENGINE_CACHE_ENABLE"),
        ("TensorrtExecutionProvider", "ORT_TENSORRT_DUMP_SUBGRAPHS"),
        ("TensorrtExecutionProvider", "ORT_TENSORRT_CACHE_PATH"),
        ("MIGraphXExecutionProvider", "ORT_MIGRAPHX_SAVE_COMPILED_MODEL"),
        ("MIGraphXExecutionProvider", "ORT_MIGRAPHX_LOAD_COMPILED_MODEL"),
    ],
)
def test_the_environment_does_not_open_these_doors(
    made: LockedModel, monkeypatch: pytest.MonkeyPatch, provider: str, variable: str
) -> None:
    monkeypatch.setenv(variable, "1")
    _refused(made, f"option {variable} of {provider} is refused", providers=[provider, CPU])
    assert made.open(providers=[CPU]).get_providers() == [CPU]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CPU])
    assert made.open().get_providers()[-1] == CPU
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [provider, CPU])
    for nothing in (None, []):
        _refused(made, f"option {variable} of {provider} is refused", providers=nothing)


# --- providers


@pytest.mark.parametrize("providers", [["NoSuchExecutionProvider"], ["cpu"], [("Nothing", {})]])
def test_an_unknown_provider_alone_is_refused(made: LockedModel, providers: list[Any]) -> None:
    error = _refused(made, "is not available, this onnxruntime has .*CPUExecutionProvider", providers=providers)
    assert "CPUExecutionProvider" in str(error.hint)


@NO_CUDA
def test_cuda_alone_is_refused_where_there_is_none(made: LockedModel) -> None:
    error = _refused(made, "CUDAExecutionProvider is not available", providers=["CUDAExecutionProvider"])
    assert "keylatch[gpu]" in str(error.hint)


@NO_CUDA
def test_cuda_beside_cpu_warns_the_caller_and_runs(made: LockedModel) -> None:
    providers = [("CUDAExecutionProvider", {"device_id": 0}), CPU]
    with pytest.warns(RuntimeWarning, match=f"CUDAExecutionProvider is not available; using {CPU}") as caught:
        opened = InferenceSession(made.path, None, providers, **made.credentials())
        locked = InferenceSession.locked(made.path, None, providers)
    assert [Path(warning.filename).name for warning in caught] == [Path(__file__).name] * 2
    assert opened.get_providers() == locked.get_providers() == [CPU]
    assert same(opened.run(None, made.feed())[0], made.keyed)


def test_a_provider_that_does_not_start_is_an_error(made: LockedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """onnxruntime drops a provider whose libraries do not load; acted here by claiming that CUDA is there."""
    monkeypatch.setattr(_session, "usable_providers", lambda *_: (["CUDAExecutionProvider"], [{}]))
    monkeypatch.setattr(onnxruntime.InferenceSession, "get_providers", lambda self: [CPU])
    plain = onnxruntime.InferenceSession.__init__
    made_sessions = []

    def on_the_cpu(self: Any, graph: bytes, options: Any, names: Any, settings: Any, **more: Any) -> None:
        made_sessions.append(self)
        plain(self, graph, options, [CPU], [{}], **more)

    monkeypatch.setattr(onnxruntime.InferenceSession, "__init__", on_the_cpu)
    with pytest.raises(SessionOptionError, match="CUDAExecutionProvider did not start") as caught:
        made.open()
    assert caught.value.hint
    assert made_sessions[0]._sess is None


def test_an_empty_list_of_providers_is_the_default_as_in_onnxruntime(made: LockedModel) -> None:
    stock = onnxruntime.InferenceSession(made.path / GRAPH_NAME, providers=[])
    assert made.open(providers=[]).get_providers() == stock.get_providers()


def test_providers_with_options_reach_onnxruntime(made: LockedModel) -> None:
    session = made.open(providers=[(CPU, {})], provider_options=None)
    assert session.get_provider_options() == {CPU: {}}


# --- the model and the environment configure nothing


def _with_config(model: LockedModel) -> LockedModel:
    parsed = onnx.load_from_string((model.path / GRAPH_NAME).read_bytes())
    settings = {"session_options": {"enable_profiling": 1}}
    parsed.metadata_props.add(key="ort_config", value=json.dumps(settings))
    return model.rewrite(model_onnx=parsed.SerializeToString())


def test_configuration_inside_the_model_has_no_effect(
    model: LockedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forged = _with_config(model)
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    license = forged.license()
    assert same(forged.open(license=license).run(None, forged.feed())[0], forged.keyed)
    monkeypatch.setenv("ORT_LOAD_CONFIG_FROM_MODEL", "0")
    assert same(forged.open(license=license).run(None, forged.feed())[0], forged.keyed)
    monkeypatch.setenv("ORT_LOAD_CONFIG_FROM_MODEL", "1")
    with pytest.raises(SessionOptionError, match="ORT_LOAD_CONFIG_FROM_MODEL") as caught:
        forged.open(license=license)
    assert caught.value.hint
    with pytest.raises(SessionOptionError, match="ORT_LOAD_CONFIG_FROM_MODEL"):
        InferenceSession.locked(forged.path)
    assert listing(work).keys() == {str(work)}


def test_stock_onnxruntime_does_profile_when_the_model_asks(
    model: LockedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control of the test above: what an environment variable does to a stock session."""
    forged = _with_config(model)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ORT_LOAD_CONFIG_FROM_MODEL", "1")
    stock = onnxruntime.InferenceSession(forged.path / GRAPH_NAME)
    assert Path(stock.end_profiling()).is_file()


# --- what a session shows of its options


def test_the_shown_options_are_those_that_were_asked_for(made: LockedModel) -> None:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.logid = "acme"
    shown = made.open(sess_options=options).get_session_options()
    assert isinstance(shown, onnxruntime.SessionOptions)
    assert (shown.intra_op_num_threads, shown.logid) == (1, "acme")
    assert _entry(shown, "session.use_external_initializer_file_buffers_directly") is None


def test_the_options_that_hold_the_secrets_are_no_attribute(made: LockedModel) -> None:
    session = made.open()
    options = [value for value in vars(session).values() if isinstance(value, onnxruntime.SessionOptions)]
    assert options
    assert all(value is session.get_session_options() for value in options)


def test_the_shown_options_cannot_be_used_to_write_the_opened_model(made: LockedModel, tmp_path: Path) -> None:
    session = made.open()
    shown = session.get_session_options()
    shown.optimized_model_filepath = str(tmp_path / "dump.onnx")
    session.run(None, made.feed())
    assert not (tmp_path / "dump.onnx").exists()
    with pytest.raises(SessionOptionError, match="optimized_model_filepath"):
        made.open(sess_options=shown)
    stock = onnxruntime.InferenceSession(made.path / GRAPH_NAME, shown)
    assert same(stock.run(None, made.feed())[0], made.locked)
    dump = (tmp_path / "dump.onnx").read_bytes()
    assert made.defaults["gate.patch"].tobytes() in dump or len(dump) > 10_000
    assert made.section["gate.patch"].tobytes() not in dump


def test_disabled_optimizers_are_passed_on(made: LockedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    given = []
    plain = onnxruntime.InferenceSession.__init__

    def spy(self: Any, *arguments: Any, **more: Any) -> None:
        given.append(more["disabled_optimizers"])
        plain(self, *arguments, **more)

    monkeypatch.setattr(onnxruntime.InferenceSession, "__init__", spy)
    session = made.open(disabled_optimizers=["ConstantFolding"])
    assert given == [["ConstantFolding"]]
    assert same(session.run(None, made.feed())[0], made.keyed)


@pytest.mark.parametrize("level", ["ORT_DISABLE_ALL", "ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL"])
def test_secret_values_hold_at_every_optimization_level(made: LockedModel, level: str) -> None:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    assert same(made.open(sess_options=options).run(None, made.feed())[0], made.keyed)


def test_secret_bytes_is_no_option() -> None:
    """Options are plain strings: nothing of them ever takes a secret."""
    with pytest.raises(TypeError):
        onnxruntime.SessionOptions().add_session_config_entry("x", SecretBytes(b"x"))
