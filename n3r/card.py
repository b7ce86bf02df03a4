"""MODEL_CARD.md of a bundle: what the model is, what was measured, and what must not be concluded.

Decisions:
- Made only from the bundle's JSON files, so the same bundle gives the same card.
- The card's text is in card.md.j2; huggingface_hub fills it in and puts its metadata before it. The metadata
  holds no word of a user's, and nothing is sent anywhere.
- What was not recorded is reported as missing. None in a metric reads "not enough data", as elsewhere.
- Names come from users: they are escaped for Markdown and HTML and cut at `MAX_NAME` characters, and a long
  list shows its first `MAX_NAMES`. Paths are shown without their folders, which name people.
"""

import re
from collections.abc import Iterable, Mapping
from html import escape
from importlib.resources import files
from typing import Any

MISSING = "not recorded"
MAX_NAME = 80
MAX_NAMES = 8
SPLITS = ("train", "val", "test")
APART = (
    "model_class",
    "encoder",
    "fusion",
    "n_classes",
    "pretrained",
    "bert",
    "embeddings",
)  # what has a place of its own
BERT_SIZES = ("hidden_size", "num_attention_heads", "num_hidden_layers")
FIGURES = {  # column -> key of n3r.metrics.evaluate and format
    "average precision": ("average_precision", ".3f"),
    "recall at 1 % FPR": ("recall_at_fpr_1", ".1%"),
    "recall at 5 % FPR": ("recall_at_fpr_5", ".1%"),
    "log loss": ("log_loss", ".4f"),
    "Brier": ("brier", ".4f"),
}


def model_card(
    config: Mapping[str, Any],
    columns: Mapping[str, Any],
    metrics: Mapping[str, Any],
    calibration: Mapping[str, Any] | None = None,
    data: Mapping[str, Any] | None = None,
    n_parameters: int | None = None,
) -> str:
    """The card as Markdown, from what a bundle's JSON files hold; any key of them may be absent.

    config: "model", "train", "texts", "versions" as config.json; columns: a column map; metrics: a split's
    name -> `metrics.evaluate`, and "int8", what 8-bit weights change; calibration: `Calibration.to_dict`;
    data: "source", "format", "n_rows", "fingerprint", "left_out" (column -> why), "splits" (name -> "rows",
    "classes", "from", "to").
    """
    from huggingface_hub import ModelCard, ModelCardData  # half a second, which scoring does without

    model, data = _part(config, "model"), data or {}
    n_classes = model.get("n_classes")
    bert = {f"bert {key}": value for key, value in _part(model, "bert").items() if key in BERT_SIZES}
    source = str(data.get("source", MISSING)).split(",")
    card = ModelCard.from_template(
        ModelCardData(library_name="n3r", tags=["fraud-detection", "tabular-classification"]),
        template_str=files("n3r").joinpath("card.md.j2").read_text(encoding="utf-8"),
        config=config,
        model=model,
        sizes={key: value for key, value in model.items() if key not in APART} | bert,
        columns=columns,
        metrics=metrics,
        calibration=calibration or {},
        data=data,
        n_parameters=n_parameters,
        several=isinstance(n_classes, int) and n_classes > 2,
        source=", ".join(_without_folder(part.strip()) for part in source),
        missing=MISSING,
        figures=FIGURES,
        max_names=MAX_NAMES,
        **{function.__name__.removeprefix("_"): function for function in WORDS},
    )
    return f"{card}\n"


def _part(content: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """What stands under a key if it is an object, else nothing."""
    value = content.get(key)
    return value if isinstance(value, Mapping) else {}


def _known(splits: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    return [(name, splits[name]) for name in SPLITS if isinstance(splits.get(name), Mapping)]


def _classes(columns: Mapping[str, Any]) -> str:
    values = _part(columns, "label_values")
    if not values:
        return f"classes {MISSING}"
    by_class = {c: sorted(raw for raw in values if values[raw] == c) for c in sorted(set(values.values()))}
    parts = [f"class {_plain(c)} ({_names(raw)})" for c, raw in by_class.items()]
    return f"{', '.join(parts)} of column {_plain(columns.get('label'))}"


def _shares(classes: Mapping[str, Any]) -> str:
    counts = {name: count for name, count in sorted(classes.items()) if isinstance(count, int)}
    total = sum(counts.values()) or 1
    parts = [f"{_plain(name)}: {n:,} ({_shown(n / total, '.1%')})" for name, n in counts.items()]
    return ", ".join(parts) or MISSING


def _interval(split: Mapping[str, Any]) -> str:
    low, high = split.get("auroc_low"), split.get("auroc_high")
    value = _figure(split, "auroc", ".3f")
    return value if low is None or high is None else f"{value} [{_shown(low, '.3f')}, {_shown(high, '.3f')}]"


def _settings(values: Mapping[str, Any]) -> str:
    """Keys in order with their values; those that are unset, empty or nested are left out."""
    shown = [
        f"{_plain(key)} {_names(value) if isinstance(value, list) else _plain(value)}"
        for key, value in sorted(values.items())
        if value is not None and value != [] and not isinstance(value, Mapping)
    ]
    return ", ".join(shown) or MISSING


def _names(names: Iterable[Any]) -> str:
    names = list(names)
    shown = [_plain(name) for name in names[:MAX_NAMES]]
    more = [f"and {len(names) - MAX_NAMES} more"] if len(names) > MAX_NAMES else []
    return ", ".join(shown + more) or MISSING


def _figure(values: Mapping[str, Any], key: str, form: str) -> str:
    return _shown(values.get(key, MISSING), form)


def _shown(value: Any, form: str) -> str:
    if value is None:
        return "not enough data"
    return format(value, form).replace("%", " %") if isinstance(value, int | float) else _plain(value)


def _start(branch: Mapping[str, Any]) -> str:
    """What weights a text's branch began with, and a comma, where that needs to be said."""
    if branch.get("embeddings"):
        return f"word embeddings of {_plain(_without_folder(branch['embeddings']))} to start with, "
    if branch.get("pretrained"):
        return f"first weights {_plain(_without_folder(branch['pretrained']))}, "
    return "first weights random, " if branch.get("bert") else ""


def _without_folder(path: Any) -> str:
    """The last part of an absolute path; anything else as it is, such as a model's name on the hub."""
    path = str(path).replace("\\", "/")
    return path.rstrip("/").rsplit("/", 1)[-1] if re.match(r"[/~.]|[A-Za-z]:/", path) else path


def _plain(text: Any, limit: int = MAX_NAME) -> str:
    """Text that Markdown and HTML show as it is, on one line, without what cannot be seen."""
    text = MISSING if text is None else text
    text = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    text = (text or "(blank)") if len(text) <= limit else text[: limit - 1] + "…"
    text = re.sub(r"[\\`*_{}\[\]()#!|~$]|(?<=:)/(?=/)|(?<=www)\.", r"\\\g<0>", text, flags=re.IGNORECASE)
    return escape(text, quote=False)


WORDS = (  # what the template calls
    *(_part, _known, _classes, _shares, _interval, _settings, _names, _figure, _start, _plain),
)
