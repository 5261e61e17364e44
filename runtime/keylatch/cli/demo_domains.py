"""`keylatch demo-domains`: one file, a license for each domain, on digits of several domains."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from keylatch.cli._demo.folder import prepare_folder
from keylatch.cli._options import JsonOption
from keylatch.cli._output import print_facts, print_json, progress, result_console, working
from keylatch.errors import MissingExtraError

if TYPE_CHECKING:
    from keylatch.cli._demo.domain_story import DomainStory


def demo_domains(
    folder: Annotated[Path, typer.Option("--folder", help="Where all files go.")] = Path("keylatch-demo-domains"),
    data: Annotated[
        Path | None, typer.Option("--data", help="Folder of the data pack, for MNIST, USPS and MNIST-M.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Lock a digit classifier so that each license opens some domains, and show what each opens."""
    try:
        from keylatch.cli._demo import digit_domains, domain_picture, domain_story, domain_training
    except ModuleNotFoundError as error:
        raise MissingExtraError("the demo", error.name or "torch", "demo") from None

    domains = digit_domains.load_digit_domains(data)
    prepare_folder(folder)
    told = domain_story.DomainStory(folder)
    with progress() as display:
        steps = {"training on all domains": domain_training.EPOCHS, "learning masks": domain_training.MASK_EPOCHS}
        first, second = (display.add_task(text, total=total, visible=not as_json) for text, total in steps.items())
        network = told.timed("train", lambda: domain_training.train(domains, lambda: display.advance(first)))
        masks = told.timed("mask", lambda: domain_training.learn(network, domains, lambda: display.advance(second)))
    with working("locking, exporting, licensing, measuring"):
        domain_story.tell(told, network, masks, domains)
        picture = folder / "domains.png"
        domain_picture.draw(told, domains, picture)
    if as_json:
        print_json(_as_json(told, picture))
    else:
        _print(told, list(domains), picture)


def _as_json(told: DomainStory, picture: Path) -> dict[str, Any]:
    return {
        "accuracy": told.accuracy,
        "license_bytes": told.license_bytes,
        "largest_difference": told.largest_difference,
        "withheld": told.withheld,
        "seconds": told.seconds,
        "picture": str(picture),
        "folder": str(told.folder),
    }


def _print(told: DomainStory, domains: list[str], picture: Path) -> None:
    source, *targets = domains
    title = "One file, a license for each choice of domains"
    table = Table("accuracy on test images", f"{source} (source)", *targets, title=title, title_justify="left")
    for name, row in told.accuracy.items():
        table.add_row(name, *(f"{row[domain]:.1f} %" for domain in domains))
    result_console().print(table)
    withheld = ", ".join(f"{name} {100 * share:.2f} %" for name, share in told.withheld.items())
    sizes = sorted(told.license_bytes.values())
    print_facts(
        [
            ("weights withheld for", withheld),
            ("licenses", f"{sizes[0] / 1000:.0f} to {sizes[-1] / 1000:.0f} kB"),
            ("all domains licensed", f"the original's outputs within {told.largest_difference:.1e} of their range"),
            ("time", ", ".join(f"{step} {seconds:.1f} s" for step, seconds in told.seconds.items())),
            ("picture", picture),
            ("all files", told.folder),
        ]
    )
