"""MODEL_CARD.md of a bundle: what the model is, what was measured of it, what must not be concluded.

Decisions:
- Made from the plain data of the bundle's JSON files alone, so that the same bundle gives the same card.
- What was not recorded is said to be missing. None in a metric reads "not enough data", as elsewhere.
- Names come from users: they are escaped for Markdown and HTML, cut at `MAX_NAME` characters, and of long
  lists the first `MAX_NAMES` are shown. Folders are left out of paths, since they name people.
"""

import re
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

MISSING = "not recorded"
MAX_NAME = 80
MAX_NAMES = 8
SPLITS = ("train", "val", "test")
APART = ("model_class", "encoder", "fusion", "n_classes", "pretrained", "bert")  # what has a place of its own
BERT_SIZES = ("hidden_size", "num_attention_heads", "num_hidden_layers")
METRICS = {  # column -> key of n3r.metrics.evaluate and format
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
    data: "source", "format", "n_rows", "fingerprint", "splits" (name -> "rows", "classes", "from", "to").
    """
    model, calibration, data = _dict(config, "model"), calibration or {}, data or {}
    sections = {
        "What it is": _what(config, columns, n_parameters),
        "Data": _data(data),
        "Metrics": _metrics(metrics),
        "Calibration": _calibration(calibration),
        "How to score": _how(model, columns),
        "Intended use": [
            "To rank rows like those under Data by risk, so that people or further checks look at the "
            "riskiest first; and to compare models."
        ],
        "What must not be concluded": _warnings(columns),
        "Limits": _limits(columns),
        "Versions and licence": _versions(config),
    }
    blocks = [f"# Model card: {_plain(model.get('model_class', MISSING))}"]
    for title, lines in sections.items():
        blocks += [f"## {title}", "\n".join(lines).strip()]
    return "\n\n".join(blocks) + "\n"


def _what(config: Mapping, columns: Mapping, n_parameters: int | None) -> list[str]:
    model = _dict(config, "model")
    parts = [f"{key} {_plain(model[key])}" for key in ("encoder", "fusion") if model.get(key)]
    first = model.get("pretrained")
    if model.get("bert"):
        parts.append(f"first weights {_plain(_name_only(first)) if first else 'random'}")
    size = f"{n_parameters:,} parameters" if n_parameters is not None else f"parameters {MISSING}"
    lines = [f"- Class {_plain(model.get('model_class', MISSING))}: {', '.join([*parts, size])}."]
    kinds = {
        "text": "text, in this order",
        "secondary_text": "second text",
        "numeric": "numeric",
        "categorical": "categorical",
    }
    for key, title in kinds.items():
        names = columns.get(key) or []
        if names or key == "text":
            lines.append(f"- Reads {title} ({len(names)}): {_names(names)}.")
    lines.append(f"- Tells apart: {_classes(columns)}.")
    sizes = {key: value for key, value in model.items() if key not in APART}
    sizes |= {f"bert {key}": value for key, value in _dict(model, "bert").items() if key in BERT_SIZES}
    settings = {"Sizes": sizes, "Training": _dict(config, "train"), "Text": _dict(config, "texts")}
    return lines + [f"- {title}: {_settings(values)}." for title, values in settings.items()]


def _data(data: Mapping) -> list[str]:
    source = ", ".join(_name_only(part.strip()) for part in str(data.get("source", MISSING)).split(","))
    lines = [
        f"- Source: {_plain(source)}; format {_plain(data.get('format', MISSING))}; "
        f"rows {_figure(data.get('n_rows', MISSING), ',')}.",
        f"- Fingerprint (sha256): {_plain(data.get('fingerprint', MISSING))}.",
    ]
    splits = _dict(data, "splits")
    if not splits:
        return [*lines, f"- Splits: {MISSING}."]
    rows = [
        (
            name,
            _figure(splits[name].get("rows", MISSING), ","),
            _shares(_dict(splits[name], "classes")),
            _plain(splits[name].get("from") or MISSING),
            _plain(splits[name].get("to") or MISSING),
        )
        for name in SPLITS
        if isinstance(splits.get(name), Mapping)
    ]
    return [*lines, "", *_table(("split", "rows", "rows of each class", "from", "to"), rows)]


def _metrics(metrics: Mapping) -> list[str]:
    known = {name: metrics[name] for name in SPLITS if isinstance(metrics.get(name), Mapping)}
    lines = [f"- {name}: {MISSING}." for name in ("val", "test") if name not in known]
    if small := _dict(metrics, "int8"):
        changes = [
            _figure(small.get(key, MISSING), "+.4f")
            for key in ("difference", "difference_low", "difference_high")
        ]
        lines.append(f"- 8-bit weights change the AUROC by {changes[0]} [{changes[1]}, {changes[2]}].")
    rows = []
    for name, split in known.items():
        counts = [_figure(split.get(key, MISSING), form) for key, form in (("n", ","), ("base_rate", ".1%"))]
        figures = [_figure(split.get(key, MISSING), form) for key, form in METRICS.values()]
        rows.append((name, *counts, _interval(split), *figures))
    if rows:
        head = ("split", "rows", "base rate", "AUROC [95 %]", *METRICS)
        lines += ["", *_table(head, rows), ""]
        lines.append("Of the scores before calibration. Brackets: 95 % interval; other figures have none.")
    return lines


def _calibration(calibration: Mapping) -> list[str]:
    if not calibration:
        return ["None recorded: scores are the model's own probabilities, which may be too high or too low."]
    method, n_rows = calibration.get("method", MISSING), calibration.get("n_rows")
    reason = f" ({_plain(calibration['reason'], 200)})" if calibration.get("reason") else ""
    n_labelled = _figure(calibration.get("n_labelled", MISSING), ",")
    lines = [f"- Method: {_plain(method)}{reason}; labelled validation rows: {n_labelled}."]
    losses = [f"{_plain(k)} {_figure(v, '.4f')}" for k, v in sorted(_dict(calibration, "log_loss").items())]
    why = ". The lowest chose the method" if losses else ""
    lines.append(f"- Log loss, out of fold: {', '.join(losses) or MISSING}{why}.")
    if calibration.get("percentile_thresholds") and n_rows:
        lines.append(
            f"- Percentiles rest on {_figure(n_rows, ',')} rows: a share of traffic below {1 / n_rows:.2g} "
            "(one row of them) is not measured. They hold for traffic like those rows."
        )
    else:
        lines.append("- Percentiles: none.")
    return lines


def _how(model: Mapping, columns: Mapping) -> list[str]:
    several = isinstance(model.get("n_classes"), int) and model["n_classes"] > 2
    given = "one probability a class" if several else "the probability of class 1, higher is riskier"
    return [
        "```",
        "n3r score --bundle THIS_FOLDER ORDERS -o SCORES",
        "```",
        "",
        'In Python: `from n3r.score import Scorer`, then `Scorer("THIS_FOLDER").score(orders)`. A score is '
        f"{given}. Rows carry the id {_plain(columns.get('id', MISSING))} and the columns above.",
    ]


def _warnings(columns: Mapping) -> list[str]:
    segment, oracle = columns.get("segment"), columns.get("oracle")
    segments = f" (column {_plain(segment)})" if segment else ""
    lines = [
        "- A score is no proof. Of many rows with score 0.8 some are honest: accuse or refuse nobody by a "
        "score alone.",
        "- Names and texts carry origin, language, religion and sex. Use no score to infer, or to decide on, "
        "ethnicity, nationality or any such trait. Error rates by such groups are not measured here.",
        f"- Nothing is known beyond the countries, segments{segments} and times of the data. Fraud changes: "
        "after a drift these figures are out of date.",
        "- Intervals are sampling error only. Drift, wrong or late labels, another training seed, and orders "
        "refused before they had a label are not in them.",
        "- Validation rows chose the epoch and fitted the calibration: their figures flatter. Quote those of "
        "test, and choose no further model by them.",
        "- What raises a score is no cause of fraud.",
    ]
    if oracle:
        lines.append(
            f"- The column map names a known probability ({_plain(oracle)}), as synthetic data has: figures "
            "on such data say nothing of real orders."
        )
    return lines


def _limits(columns: Mapping) -> list[str]:
    lines = [
        "- What the bundle holds of people: the vocabulary has the pieces of names that come min\\_frequency "
        "times or more in training (tokenizer\\_metadata.json), features.json the categories of "
        "count\\_threshold rows or more and quantiles of numbers. Guard it as the data it was made from.",
        "- The end of a long text is not read (max\\_tokens, max\\_chunks and block\\_size above).",
        "- A missing column is an error; a missing value is filled as it was in training.",
    ]
    if columns.get("categorical"):
        lines.append(
            "- Risk tables give a category its share of each class in training; a rare or unseen one gets "
            "the overall share. An old share stays until the model is trained again."
        )
    return lines


def _versions(config: Mapping) -> list[str]:
    versions = [f"{_plain(k)} {_plain(v)}" for k, v in sorted(_dict(config, "versions").items())]
    return [
        f"- Written with: {', '.join(versions) or MISSING}.",
        "- Licence of the model: not stated. Whoever passes it on states one, and the terms of the data.",
    ]


def _classes(columns: Mapping) -> str:
    values = _dict(columns, "label_values")
    if not values:
        return f"classes {MISSING}"
    by_class = {c: sorted(raw for raw in values if values[raw] == c) for c in sorted(set(values.values()))}
    parts = [f"class {_plain(c)} ({_names(raw)})" for c, raw in by_class.items()]
    return f"{', '.join(parts)} of column {_plain(columns.get('label', MISSING))}"


def _shares(classes: Mapping) -> str:
    counts = {name: count for name, count in sorted(classes.items()) if isinstance(count, int)}
    total = sum(counts.values())
    parts = [
        f"{_plain(name)}: {count:,} ({_figure(count / (total or 1), '.1%')})"
        for name, count in counts.items()
    ]
    return ", ".join(parts) or MISSING


def _interval(split: Mapping) -> str:
    low, high = split.get("auroc_low"), split.get("auroc_high")
    value = _figure(split.get("auroc", MISSING), ".3f")
    known = low is not None and high is not None
    return f"{value} [{_figure(low, '.3f')}, {_figure(high, '.3f')}]" if known else value


def _settings(values: Mapping) -> str:
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


def _figure(value: Any, form: str) -> str:
    if value is None:
        return "not enough data"
    return format(value, form).replace("%", " %") if isinstance(value, int | float) else _plain(value)


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    head = list(head)
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


def _name_only(path: Any) -> str:
    """The last part of an absolute path; anything else as it is, such as a model's name on the hub."""
    path = str(path).replace("\\", "/")
    return path.rstrip("/").rsplit("/", 1)[-1] if re.match(r"[/~.]|[A-Za-z]:/", path) else path


def _plain(text: Any, limit: int = MAX_NAME) -> str:
    """Text that Markdown and HTML show as it is, on one line, without what cannot be seen."""
    text = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    text = (text or "(blank)") if len(text) <= limit else text[: limit - 1] + "…"
    text = re.sub(r"[\\`*_{}\[\]()#!|~$]|(?<=:)/(?=/)|(?<=www)\.", r"\\\g<0>", text, flags=re.IGNORECASE)
    return escape(text, quote=False)


def _dict(content: Mapping, key: str) -> Mapping:
    value = content.get(key)
    return value if isinstance(value, Mapping) else {}
