"""Code written for onnxruntime runs unchanged: the same methods, arguments and results."""

from __future__ import annotations

import gc
import inspect
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from runtime_world import LockedModel, same

from keylatch.errors import SessionOptionError
from keylatch.runtime import GRAPH_NAME, InferenceSession

Vector = onnxruntime.capi.onnxruntime_pybind11_state.OrtValueVector


def stock_session(model: LockedModel, **options: Any) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(model.path / GRAPH_NAME, **options)


def test_it_is_an_onnxruntime_session(made: LockedModel) -> None:
    assert isinstance(made.open(), onnxruntime.InferenceSession)
    assert issubclass(InferenceSession, onnxruntime.InferenceSession)


def test_the_constructor_takes_onnxruntime_s_arguments_in_the_same_order() -> None:
    ours = list(inspect.signature(InferenceSession).parameters.values())
    theirs = list(inspect.signature(onnxruntime.InferenceSession).parameters.values())[1:-1]  # the path; **kwargs
    assert [parameter.name for parameter in ours[1 : len(theirs) + 1]] == [parameter.name for parameter in theirs]
    assert all(parameter.kind is parameter.KEYWORD_ONLY for parameter in ours[len(theirs) + 1 :])
    assert theirs


@pytest.mark.parametrize("name", [name for name in dir(onnxruntime.InferenceSession) if name.startswith("run")])
def test_run_methods_take_the_same_arguments(name: str) -> None:
    theirs = inspect.signature(getattr(onnxruntime.InferenceSession, name)).parameters
    ours = inspect.signature(getattr(InferenceSession, name)).parameters
    if name == "run_with_ortvaluevector":
        assert list(ours) == ["self", "arguments"]
    else:
        assert list(ours) == list(theirs)
        assert [p.default for p in ours.values()] == [p.default for p in theirs.values()]


def nodes(values: Any) -> list[tuple[Any, ...]]:
    return [(node.name, node.type, tuple(node.shape)) for node in values]


def memory(values: Any) -> list[tuple[Any, ...]]:
    return [(info.name, info.device_id) for info in values]


def metadata(session: Any) -> dict[str, Any]:
    found = session.get_modelmeta()
    return {name: getattr(found, name) for name in dir(found) if not name.startswith("_")}


def bound(session: Any, model: LockedModel) -> Any:
    binding = session.io_binding()
    binding.bind_cpu_input("image", model.images)
    binding.bind_output("output")
    return binding


def run_async(session: Any, model: LockedModel) -> Any:
    done, results = threading.Event(), []

    def callback(outputs: Any, user_data: str, error: str) -> None:
        results.append((outputs, user_data, error))
        done.set()

    session.run_async(["output"], model.feed(), callback, "mine")
    assert done.wait(30)
    outputs, user_data, error = results[0]
    assert (user_data, error) == ("mine", "")
    return outputs[0]


def run_bound(session: Any, model: LockedModel) -> Any:
    binding = bound(session, model)
    session.run_with_iobinding(binding, onnxruntime.RunOptions())
    return binding.copy_outputs_to_cpu()[0]


def run_vector(session: Any, model: LockedModel) -> Any:
    feeds, fetches = Vector(), Vector()
    feeds.push_back(onnxruntime.OrtValue.ortvalue_from_numpy(model.images)._get_c_value())
    device = onnxruntime.OrtDevice.make("cpu", 0)._get_c_device()
    session.run_with_ortvaluevector(onnxruntime.RunOptions(), ["image"], feeds, ["output"], fetches, [device])
    return fetches[0].numpy()


def run_values(session: Any, model: LockedModel) -> Any:
    value = onnxruntime.OrtValue.ortvalue_from_numpy(model.images)
    return session.run_with_ort_values(["output"], {"image": value})[0].numpy()


RUNS: dict[str, Callable[[Any, LockedModel], Any]] = {
    "run": lambda session, model: session.run(["output"], model.feed(), onnxruntime.RunOptions())[0],
    "run_async": run_async,
    "run_with_ort_values": run_values,
    "run_with_iobinding": run_bound,
    "run_with_ortvaluevector": run_vector,
}
SAME: dict[str, Callable[[Any, LockedModel], Any]] = {
    "get_inputs": lambda session, _: nodes(session.get_inputs()),
    "get_outputs": lambda session, _: nodes(session.get_outputs()),
    "get_overridable_initializers": lambda session, _: nodes(session.get_overridable_initializers()),
    "get_modelmeta": lambda session, _: metadata(session),
    "get_providers": lambda session, _: session.get_providers(),
    "get_provider_options": lambda session, _: session.get_provider_options(),
    "get_input_memory_infos": lambda session, _: memory(session.get_input_memory_infos()),
    "get_output_memory_infos": lambda session, _: memory(session.get_output_memory_infos()),
    "get_input_epdevices": lambda session, _: [device.ep_name for device in session.get_input_epdevices()],
    "get_session_options": lambda session, _: session.get_session_options().graph_optimization_level,
    "get_profiling_start_time_ns": lambda session, _: callable(session.get_profiling_start_time_ns()),
    # Opened, a model has fewer nodes than locked: its gates are folded.
    "get_provider_graph_assignment_info": lambda session, _: {
        info.ep_name for info in session.get_provider_graph_assignment_info()
    },
    "get_tuning_results": lambda session, _: session.get_tuning_results(),
    "set_tuning_results": lambda session, _: session.set_tuning_results([]),
    "end_profiling": lambda session, _: session.end_profiling(),
    "io_binding": lambda session, model: type(bound(session, model)),
    "create_ortvalue_from_shape_and_type": lambda session, _: session.create_ortvalue_from_shape_and_type(
        [2, 3], np.float32, "cpu"
    ).shape(),
    "release_captured_graph": lambda session, _: session.release_captured_graph(),
    "disable_fallback": lambda session, _: session.disable_fallback(),
    "enable_fallback": lambda session, _: session.enable_fallback(),
}
OTHERWISE = {"set_providers", "set_ep_dynamic_options"}


def test_every_public_method_of_onnxruntime_is_covered_here() -> None:
    methods = {name for name in dir(onnxruntime.InferenceSession) if not name.startswith("_")}
    assert methods == {*RUNS, *SAME, *OTHERWISE}
    assert methods <= set(dir(InferenceSession))


@pytest.mark.parametrize("name", RUNS)
def test_each_way_to_run_gives_the_outputs(made: LockedModel, name: str) -> None:
    run = RUNS[name]
    session = made.open()
    for _ in range(2):
        assert same(run(session, made), made.keyed)
    assert np.array_equal(run(InferenceSession.locked(made.path), made), run(stock_session(made), made))


@pytest.mark.parametrize("name", SAME)
def test_each_other_method_gives_what_onnxruntime_gives(made: LockedModel, name: str) -> None:
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    ours = InferenceSession(made.path, options, **made.credentials())
    assert SAME[name](ours, made) == SAME[name](stock_session(made, sess_options=options), made)


def test_dynamic_options_go_to_onnxruntime(made: LockedModel) -> None:
    for session in (made.open(), stock_session(made)):
        with pytest.raises(RuntimeError, match="No options were provided"):
            session.set_ep_dynamic_options({})


def test_changing_providers_is_refused_and_changes_nothing(made: LockedModel) -> None:
    session = made.open()
    for arguments in ((), (["CPUExecutionProvider"],), (["CPUExecutionProvider"], [{}])):
        with pytest.raises(SessionOptionError) as caught:
            session.set_providers(*arguments)
        assert caught.value.hint
    assert same(session.run(None, made.feed())[0], made.keyed)


def test_a_failing_provider_does_not_make_the_session_anew(made: LockedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """onnxruntime's fallback would go around the license: it is off, and what it calls is refused."""
    session = made.open()
    session.run(None, made.feed())
    failed = onnxruntime.capi.onnxruntime_pybind11_state.EPFail

    class Failing:
        def __getattr__(self, name: str) -> Any:
            def fail(*_: Any) -> None:
                raise failed("broken")

            return (lambda: False) if name == "is_webgpu_graph_capture_enabled" else fail

    monkeypatch.setattr(session, "_sess", Failing())
    with pytest.raises(failed):
        session.run(None, made.feed())
    session.enable_fallback()
    with pytest.raises(SessionOptionError):
        session.run(None, made.feed())


@pytest.mark.parametrize("names", [None, [], ["output"]])
def test_output_names_are_chosen_as_in_onnxruntime(made: LockedModel, names: list[str] | None) -> None:
    assert same(made.open().run(names, made.feed())[0], made.keyed)


def test_a_binding_made_before_the_first_run_stays_valid(made: LockedModel) -> None:
    session = made.open()
    binding = bound(session, made)
    session.run_with_iobinding(binding)
    first = binding.copy_outputs_to_cpu()[0]
    session.run_with_iobinding(binding)
    assert same(first, made.keyed)
    assert np.array_equal(binding.copy_outputs_to_cpu()[0], first)


def test_a_binding_onnxruntime_makes_itself_is_checked_too(made: LockedModel) -> None:
    session = made.open()
    binding = onnxruntime.IOBinding(session)
    binding.bind_cpu_input("image", made.images)
    binding.bind_output("output")
    session.run_with_iobinding(binding)
    assert same(binding.copy_outputs_to_cpu()[0], made.keyed)


def test_run_options_are_honored(made: LockedModel) -> None:
    options = onnxruntime.RunOptions()
    options.terminate = True
    session = made.open()
    with pytest.raises(Exception, match="terminate"):
        session.run(None, made.feed(), options)
    assert same(session.run(None, made.feed())[0], made.keyed)


@pytest.mark.parametrize("name", RUNS)
def test_threads_that_run_first_all_at_once_get_right_outputs(made: LockedModel, name: str) -> None:
    session, start, outputs = made.open(), threading.Barrier(4), [None] * 4
    errors: list[Exception] = []

    def work(index: int) -> None:
        try:
            start.wait(30)
            outputs[index] = RUNS[name](session, made)
        except Exception as error:  # noqa: BLE001 - reported below
            errors.append(error)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert all(output is not None and same(output, made.keyed) for output in outputs)


def test_a_path_may_be_a_string(made: LockedModel) -> None:
    assert same(InferenceSession(str(made.path), **made.credentials()).run(None, made.feed())[0], made.keyed)
    assert isinstance(made.path, Path)


@pytest.mark.parametrize("how", ["opened", "opened and run", "locked"])
def test_a_deleted_session_gives_its_memory_back_at_once(made: LockedModel, how: str) -> None:
    """As onnxruntime's does; a server that opens its next model would hold two for as long as Python likes."""
    gc.collect()
    gc.disable()
    try:
        session = InferenceSession.locked(made.path) if how == "locked" else made.open()
        if how != "opened":
            session.run(None, made.feed())
        alive = weakref.ref(session)
        del session
        assert alive() is None
    finally:
        gc.enable()
