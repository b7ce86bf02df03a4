"""`n3r lm`: train a language model, measure it, let it invent texts."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from typer import Option, echo

from n3r import pipeline
from n3r.files.lock import held
from n3r.terminal import resumable

lm = typer.Typer(
    no_args_is_help=True, help="A language model of names or prose: the hand-written transformer."
)


@lm.command(name="train")
def lm_train(
    config: Annotated[Path, Option(help="what to read, the model's dimensions, how to train (JSON)")],
    output: Annotated[
        Path | None, Option("-o", "--output", help="default: runs/lm/NAME of the config")
    ] = None,
    replace: Annotated[bool, Option(help="in the place of another training in the folder")] = False,
    p: Annotated[list[str] | None, Option("-p", help="KEY=VALUE over the config")] = None,
) -> None:
    """Train a language model; the same command goes on with one that was interrupted."""
    from n3r.custom_transformer.language_model import LanguageModelConfig, train_language_model

    settings = LanguageModelConfig.from_file(config, p or [])
    folder = output or pipeline.ROOT / "runs" / "lm" / config.stem
    documents = settings.documents()
    sizes = ", ".join(f"{len(texts):,} {split}" for split, texts in documents.items())
    echo(f"documents: {sizes}", err=True)
    with resumable(), held(folder):
        model = train_language_model(settings, folder, documents, replace, report=_say_evaluation)
    info = model.wrapper.get_model_info()
    echo(f"{info['n_parameters']:,} parameters, {info['n_steps']} steps to the best evaluation")
    _say_figures("test", model.evaluate(documents["test"]))
    echo(f"checkpoint: {os.path.relpath(folder)}", err=True)


@lm.command(name="eval")
def lm_eval(
    checkpoint: Annotated[Path, Option(help="the folder of a training, or of one checkpoint in it")],
    data: Annotated[
        str | None, Option(help="file, folder, hub data set; default: its test documents")
    ] = None,
    column: Annotated[str | None, Option(help="of a table; default: as in training")] = None,
    generate: Annotated[str | None, Option(help="go on from this text, in place of figures")] = None,
    n: Annotated[int, Option(help="how many texts to generate", min=1)] = 5,
    temperature: Annotated[float, Option(help="0: always the likeliest token")] = 1.0,
    top_k: Annotated[int | None, Option(help="draw from so many likeliest tokens")] = None,
    seed: Annotated[int, Option(help="of what is drawn")] = 0,
) -> None:
    """Perplexity and bits a character of a language model, or texts that it invents."""
    from n3r.custom_transformer.corpus import find_documents
    from n3r.custom_transformer.language_model import LanguageModel

    model = LanguageModel.load(checkpoint)
    if generate is not None:
        for text in model.generate(generate, n, temperature, top_k, seed=seed):
            echo(text)
        return
    if data is None:
        name, documents = "test", model.config.documents()["test"]
    else:
        limit = model.config.subset_size if model.config.use_subset else None
        found = find_documents(data, column or model.config.column, model.config.unit, limit)
        name, documents = data, found.get("test") or sum(found.values(), [])
    _say_figures(name, model.evaluate(documents))


def _say_evaluation(row: dict[str, float]) -> None:
    """Print losses during the training of a language model, above its progress bar."""
    from tqdm import tqdm

    text = f"step {row['step']:>6,}  epoch {row['epoch']:6.2f}  training loss {row['train_loss']:.3f}"
    if "val_loss" in row:
        text += (
            f"  validation loss {row['val_loss']:.3f}, perplexity {row['val_perplexity']:.2f}, "
            f"{row['val_bits_per_character']:.3f} bits a character"
        )
    tqdm.write(text, file=sys.stderr)


def _say_figures(name: str, found: dict[str, float]) -> None:
    echo(
        f"{name}: perplexity {found['perplexity']:.3f} a token, {found['bits_per_character']:.4f} bits a "
        f"character ({found['n_tokens']:,} tokens, {found['n_characters']:,} characters)"
    )
