"""`keylatch device init-state`, `show-state`, `time-request` and `set-time`: what a device remembers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from keylatch.cli._new_files import check_free
from keylatch.cli._options import CounterOption, JsonOption, PassphraseFile, passphrase_from
from keylatch.cli._output import note_console, print_facts, print_json
from keylatch.errors import KeylatchError
from keylatch.keys import (
    DeviceState,
    Trust,
    current_time,
    define_counter,
    format_time,
    open_counter,
    open_device_key,
    read_time_token,
)

DeviceKeyOption = Annotated[str, typer.Option("--key", help="The device key, e.g. file:device.key or tpm:device.tpm.")]
StateFile = Annotated[Path, typer.Option("--state", help="The file in which this device remembers.")]


def init_state(
    key: DeviceKeyOption,
    state: StateFile = Path("device.state"),
    counter: Annotated[
        str | None,
        typer.Option(
            "--counter", help="Also make a counter, e.g. tpm:nv=0x01800100: then no old copy can be put back."
        ),
    ] = None,
    counter_exists: Annotated[
        bool, typer.Option("--counter-exists", help="The counter is there already and serves no other state.")
    ] = False,
    passphrase_file: PassphraseFile = None,
    as_json: JsonOption = False,
) -> None:
    """Make the file in which this device remembers: it then refuses a clock set back, older licenses and lists."""
    check_free(state)
    if counter_exists and counter is None:
        raise typer.BadParameter("names no counter; give --counter too", param_hint="--counter-exists")
    device = open_device_key(key, passphrase=passphrase_from(passphrase_file))
    hardware = None if counter is None else (open_counter if counter_exists else define_counter)(counter)
    try:
        DeviceState.create(state, device, hardware, now=current_time())
    except KeylatchError:
        if counter is not None:
            note = f"the counter {counter} exists now: try again with --counter-exists"
            note_console().print(note, markup=False)
        raise
    facts = {"state": str(state), "device": device.public.thumbprint, "counter": counter}
    print_json(facts) if as_json else print_facts({**facts, "counter": counter or "none"}.items())


def show_state(
    key: DeviceKeyOption,
    state: StateFile = Path("device.state"),
    counter: CounterOption = None,
    passphrase_file: PassphraseFile = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a device remembers, after it has proved that this device wrote it."""
    record = _open(key, state, counter, passphrase_file).read()
    facts = {
        "state": str(state),
        "device": record.device,
        "high_water": record.high_water,
        "signed_floor": record.signed_floor,
        "list_seq": record.list_seq,
        "counter": record.counter,
        "licenses": dict(record.seqs),
    }
    if as_json:
        print_json(facts)
        return
    licenses = [f"{model_id} seq {seq}" for model_id, seq in sorted(record.seqs.items())]
    readable = {
        "high_water": format_time(record.high_water),
        "signed_floor": format_time(record.signed_floor) if record.signed_floor else "nothing signed yet",
        "list_seq": record.list_seq or "no list yet",
        "counter": "none" if record.counter is None else record.counter,
        "licenses": "\n".join(licenses) or "none yet",
    }
    print_facts({**facts, **readable}.items())


def time_request(
    key: DeviceKeyOption,
    state: StateFile = Path("device.state"),
    counter: CounterOption = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write the request to this file, not stdout.")] = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Ask the issuer for the time, after a clock that ran ahead was set right. Print the request to send."""
    if out is not None:
        check_free(out)
    request = _open(key, state, counter, passphrase_file).time_request()
    if out is None:
        print(request.serialize().decode("ascii"), end="")
        return
    request.save(out)
    print_facts([("time_request", out), ("device", request.device)])


def set_time(
    token: Annotated[Path, typer.Argument(help="The issuer's answer to `time-request`.")],
    key: DeviceKeyOption,
    trust: Annotated[list[Path], typer.Option("--trust", help="The issuer's public key or trust file; repeatable.")],
    state: StateFile = Path("device.state"),
    counter: CounterOption = None,
    passphrase_file: PassphraseFile = None,
    as_json: JsonOption = False,
) -> None:
    """Set the latest time that this device remembers to what the issuer signed. Stop its sessions first."""
    data = read_time_token(token)
    pinned = Trust.merge(map(Trust.load, trust))
    memory = _open(key, state, counter, passphrase_file)
    memory.apply_time_token(data, pinned, now=current_time())
    high_water = memory.read().high_water
    facts = {"state": str(state), "high_water": high_water}
    print_json(facts) if as_json else print_facts({**facts, "high_water": format_time(high_water)}.items())


def _open(key: str, state: Path, counter: str | None, passphrase_file: Path | None) -> DeviceState:
    device = open_device_key(key, passphrase=passphrase_from(passphrase_file))
    return DeviceState.open(state, device, None if counter is None else open_counter(counter))
