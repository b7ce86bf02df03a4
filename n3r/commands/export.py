"""`n3r export` and `n3r verify`: bundles handed on, and checked."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option, echo

from n3r.files.manifest import verify

BundleFolder = Annotated[Path, Option(help="the model's folder, such as runs/quick/lstm2risk")]


def export(
    target: Annotated[Path, Argument(help="the folder or file to write")],
    bundle: BundleFolder,
    layout: Annotated[str, Option(help="sagemaker (a folder) or torchscript (a file)")],
    predictions: Annotated[Path | None, Option(help="label and score, for predict_results.pth")] = None,
) -> None:
    """Write a bundle as the published artefacts, or as TorchScript; ONNX is in the bundle."""
    if layout not in ("sagemaker", "torchscript"):
        raise ValueError(f"--layout takes sagemaker or torchscript, not {layout!r}")
    if predictions and layout != "sagemaker":
        raise ValueError("--predictions goes with --layout sagemaker")
    verify(bundle)  # before torch is imported, which takes seconds
    from n3r.bundle import Bundle
    from n3r.export import export_torchscript
    from n3r.legacy.layouts import write_sagemaker

    if layout == "sagemaker":
        write_sagemaker(bundle, target, predictions)
    else:
        export_torchscript(Bundle.load(bundle).model, target)
    echo(f"{layout}: {target}", err=True)


def verify_bundle(
    bundle: Annotated[Path, Argument(help="the model's folder, such as runs/quick/lstm2risk")],
) -> None:
    """Check every file of a bundle against its checksum, and say which versions wrote it."""
    writers = verify(bundle)
    echo(f"{bundle} is whole; written with " + ", ".join(f"{name} {v}" for name, v in writers.items()))
