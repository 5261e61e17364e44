"""`keylatch demo`: the whole main job on real digits, in under a minute."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from keylatch.cli._demo.folder import prepare_folder
from keylatch.cli._options import JsonOption
from keylatch.cli._output import note_console, print_facts, print_json, progress, result_console, working
from keylatch.errors import MissingExtraError

if TYPE_CHECKING:
    from keylatch.cli._demo.story import Story

BY_HAND = """\
cd {folder}
keylatch issuer init --out hand-issuer.key
keylatch device init --key file:hand-device.key
keylatch lock digits_net:DigitsNet --weights digits.pt --input 3x48x48 --issuer hand-issuer.key \\
    --out hand.locked.pt2 --secret hand.secret
keylatch export hand.locked.pt2 --secret hand.secret --issuer hand-issuer.key --out hand.latch
keylatch inspect hand.latch
keylatch license issue hand.latch --secret hand.secret --issuer hand-issuer.key --to hand-device.pub \\
    --customer me --days 30 --out hand.license
keylatch run hand.latch images.npy --license hand.license --key file:hand-device.key --trust hand-issuer.pub
keylatch run hand.latch images.npy --locked
keylatch bench hand.latch --license hand.license --key file:hand-device.key --trust hand-issuer.pub \\
    --plain plain/model.onnx
keylatch audit hand.latch --images audit_images.npy --labels audit_labels.npy --test-images audit_test_images.npy \\
    --test-labels audit_test_labels.npy --secret hand.secret --issuer hand-issuer.key --original plain/model.onnx \\
    --minutes 5"""


def demo(
    folder: Annotated[Path, typer.Option("--folder", help="Where all files go.")] = Path("keylatch-demo"),
    as_json: JsonOption = False,
) -> None:
    """Train, lock, export, license and run a digit classifier, and show what is refused."""
    try:
        import torch

        from keylatch.cli._demo import digits_net, story, training
    except ModuleNotFoundError as error:
        raise MissingExtraError("the demo", error.name or "torch", "demo") from None

    digits = training.load_digits()
    prepare_folder(folder)
    told = story.Story(folder)
    with progress() as display:
        task = display.add_task("training on handwritten digits", total=training.EPOCHS, visible=not as_json)
        network = told.timed("train", lambda: training.train(digits, lambda: display.advance(task)))
    torch.save(network.state_dict(), folder / "digits.pt")
    shutil.copyfile(str(digits_net.__file__), folder / "digits_net.py")
    with working("locking, exporting, licensing, measuring"):
        story.tell(told, network, digits)
        picture = _draw(told, digits)
    if as_json:
        print_json(_as_json(told, picture))
    else:
        _print(told, picture)


def _draw(told: Story, digits: Any) -> Path:
    import numpy as np

    from keylatch.cli._demo.picture import draw
    from keylatch.runtime import InferenceSession

    images = (digits.test_images[:10].float() / 255).numpy()
    credentials: dict[str, Any] = {"license": told.folder / "acme.license", "trust": told.folder / "issuer.pub"}
    sessions = {
        "unlocked": InferenceSession(
            told.folder / "digits.latch", key=f"file:{told.folder / 'device.key'}", **credentials
        ),
        "locked": InferenceSession.locked(told.folder / "digits.latch"),
    }
    predictions = {name: np.asarray(s.run(None, {"image": images})[0]).argmax(1) for name, s in sessions.items()}
    path = told.folder / "demo.png"
    draw(told, images, predictions, path)
    return path


def _as_json(told: Story, picture: Path) -> dict[str, Any]:
    return {
        "accuracy": told.accuracy,
        "refused": {name: message is not None for name, message in told.refused.items()},
        "messages": told.refused,
        "latency": told.latency,
        "seconds": told.seconds,
        "facts": told.facts,
        "picture": str(picture),
        "folder": str(told.folder),
    }


def _print(told: Story, picture: Path) -> None:
    console = result_console()
    accuracy = Table(
        "handwritten digits, test images",
        "accuracy",
        title="One file, with and without its license",
        title_justify="left",
    )
    for name, value in told.accuracy.items():
        accuracy.add_row(name.replace("_", " "), f"{value:.1f} %")
    console.print(accuracy)
    refused = Table("attempt", "answer")
    for name, message in told.refused.items():
        refused.add_row(name.replace("_", " "), message or "NOT REFUSED")
    console.print(refused)
    low, high = told.latency["ratio_ci95"]
    print_facts(
        [
            ("plain onnxruntime", f"{told.latency['plain_p50_ms']:.3f} ms an image (p50)"),
            (
                "licensed session",
                f"{told.latency['keyed_p50_ms']:.3f} ms, ratio {told.latency['ratio_p50']:.3f} "
                f"(95 %: {low:.3f} to {high:.3f})",
            ),
            ("an image opens it with chance", f"2^{told.facts['log2_false_positive']}"),
            ("time", ", ".join(f"{step} {seconds:.2f} s" for step, seconds in told.seconds.items())),
            ("picture", picture),
            ("all files", told.folder),
        ]
    )
    console.print("\nEach step by hand:\n", style="bold")
    if shutil.which("keylatch") is None:
        print(f'export PATH="{Path(sys.executable).parent}:$PATH"')
    print(BY_HAND.format(folder=told.folder))
    note_console().print("")
