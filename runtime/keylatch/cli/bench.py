"""`keylatch bench`: what locked inference costs, beside plain onnxruntime."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from keylatch.cli._options import (
    CounterOption,
    JsonOption,
    KeyOption,
    LicenseOption,
    PassphraseFile,
    ProviderOption,
    RevocationsOption,
    StateOption,
    TrustOption,
)
from keylatch.cli._output import print_facts, print_json, progress
from keylatch.errors import InputError


def bench(
    model: Annotated[Path, typer.Argument(help="The locked model's directory.")],
    license: LicenseOption = None,
    key: KeyOption = None,
    trust: TrustOption = None,
    plain: Annotated[
        Path | None,
        typer.Option("--plain", help="The original network as ONNX; default: onnxruntime itself on the opened model."),
    ] = None,
    passphrase_file: PassphraseFile = None,
    revocations: RevocationsOption = None,
    state: StateOption = None,
    counter: CounterOption = None,
    provider: ProviderOption = None,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Images per run.")] = 1,
    runs: Annotated[int, typer.Option("--runs", min=10, help="Timed runs of each.")] = 200,
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="Threads for each session.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Time plain onnxruntime and the keyed session in turn, in one process."""
    import numpy as np

    from keylatch.cli._session import open_session

    keyed = open_session(
        model,
        license=license,
        key=key,
        trust=trust,
        passphrase_file=passphrase_file,
        revocations=revocations,
        state=state,
        counter=counter,
        providers=provider,
        threads=threads,
    )
    baseline = None if plain is None else _open_plain(plain, provider, threads)
    node = keyed.get_inputs()[0]
    image = np.random.default_rng(0).integers(0, 256, (batch, *node.shape[1:])).astype(np.uint8)
    feed = image if node.type == "tensor(uint8)" else (image / np.float32(255)).astype(np.float32)
    result = measure(
        _runner(baseline, feed) if baseline else _bare(keyed, feed), _runner(keyed, feed), runs, quiet=as_json
    )
    facts = {
        "model_id": keyed.model_id,
        "plain": "original network" if plain else "onnxruntime itself on the opened model",
        "providers": keyed.get_providers(),
        "batch": batch,
        **result,
    }
    if as_json:
        print_json(facts)
    else:
        low, high = result["ratio_ci95"]
        print_facts(
            [
                (
                    "plain",
                    f"{facts['plain']}, p50 {result['plain_p50_ms']:.3f} ms, p99 {result['plain_p99_ms']:.3f} ms",
                ),
                ("keyed", f"p50 {result['keyed_p50_ms']:.3f} ms, p99 {result['keyed_p99_ms']:.3f} ms"),
                ("ratio", f"{result['ratio_p50']:.4f} (95 % interval {low:.4f} to {high:.4f})"),
                ("runs", f"{runs} of each, in turn, batch {batch}, {', '.join(keyed.get_providers())}"),
            ]
        )


def measure(baseline: Callable[[], object], keyed: Callable[[], object], runs: int, *, quiet: bool) -> dict[str, Any]:
    """Time two callables in turn; the figures of `keylatch bench --json`."""
    from keylatch.runtime import compare

    with progress() as display:
        task = display.add_task("measuring", total=runs, visible=not quiet)
        comparison = compare(baseline, keyed, pairs=runs, progress=lambda: display.advance(task))
    (plain_p50, keyed_p50), (plain_p99, keyed_p99) = comparison.percentiles(50), comparison.percentiles(99)
    return {
        "plain_p50_ms": plain_p50,
        "keyed_p50_ms": keyed_p50,
        "plain_p99_ms": plain_p99,
        "keyed_p99_ms": keyed_p99,
        "ratio_p50": comparison.ratio,
        "ratio_ci95": list(comparison.ratio_interval()),
        "runs": runs,
    }


def _runner(session: Any, feed: Any) -> Callable[[], object]:
    name = session.get_inputs()[0].name
    return lambda: session.run(None, {name: feed})


def _bare(session: Any, feed: Any) -> Callable[[], object]:
    """The same session without Keylatch's part of `run`: an open gate folds away, so this is the network's own time."""
    import onnxruntime

    name = session.get_inputs()[0].name
    session.run(None, {name: feed})  # the known-answer check
    return lambda: onnxruntime.InferenceSession.run(session, None, {name: feed})


def _open_plain(path: Path, providers: list[str] | None, threads: int | None) -> Any:
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as ort

    from keylatch.cli._session import session_options

    hint = "give the original network's .onnx file"
    # onnxruntime's errors have no base of their own.
    refused = (ort.Fail, ort.InvalidArgument, ort.InvalidGraph, ort.InvalidProtobuf, ort.NoModel, ort.NotImplemented)
    if not path.is_file():
        raise InputError(f"{path} does not exist", hint=hint)
    try:
        return onnxruntime.InferenceSession(str(path), session_options(threads), providers=providers)
    except refused as error:
        raise InputError(f"onnxruntime cannot run {path}: {type(error).__name__}", hint=hint) from None
