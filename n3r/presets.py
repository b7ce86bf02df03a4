"""Presets: n3r's own way, or that of the published systems in one switch.

Decisions:
- A preset is a set of the deviations of studies/ablation.py, those that are settings: `PUBLISHED` has all of
  them off, and the ablation takes what off means from the same table.
- A setting has the values that a published system gives it, the legacy's first. Any of these is published;
  another one becomes the legacy's, but where a user gave it, that is a contradiction and an error.
- A preset is a way of doing things. How much is done, dimensions, epochs and batch size, is the size's.
- Faults of the published systems and their slow parts are no settings; no preset brings them back.
"""

from collections.abc import Collection, Mapping
from typing import Any

OWN, AS_PUBLISHED = "n3r", "published"
PUBLISHED: dict[str, dict[str, tuple[Any, ...]]] = {  # deviation, or what n3r does alike -> its settings
    "tokenizer": {"lower_case": (False,), "fold_confusables": (False,)},
    "imputation": {"imputation": ("minus_one", "mean")},
    "scaling": {"scaling": ("none",)},
    "bins": {"n_tab_bins": (0,), "tab_gain_power": (0.0,)},
    "risk_tables": {"count_threshold": (0,)},
    "identity": {"identity": ("off",)},
    "decay": {"decay": ("all",)},
    "clipping": {"gradient_clip": (0.0, 1.0)},
    "precision": {"precision": ("float32",)},
    "optimizer": {"optimizer": ("adamw",)},
    "schedule": {"schedule": ("one_cycle", "none"), "warmup": (0.1,)},
}
_VALUES = {name: values for settings in PUBLISHED.values() for name, values in settings.items()}


def off(deviation: str) -> dict[str, Any]:
    """The settings with which a deviation is off, as the legacy has them."""
    return {name: values[0] for name, values in PUBLISHED[deviation].items()}


def settled(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """A step's parameters as their `preset` has them; ValueError where there is none of that name."""
    found = dict(parameters)
    if found.get("preset", OWN) == OWN:
        return found
    check(found["preset"])
    other = {name for name in found.keys() & _VALUES.keys() if found[name] not in _VALUES[name]}
    return found | {name: _VALUES[name][0] for name in other}


def check(preset: str) -> None:
    """ValueError where there is no preset of that name."""
    if preset not in (OWN, AS_PUBLISHED):
        raise ValueError(f"no preset {preset!r}; there are {OWN} and {AS_PUBLISHED}")


def contradictions(
    parameters: Mapping[str, Mapping[str, Any]], given: Mapping[str, Collection[str]]
) -> list[str]:
    """What is wrong with the presets of a run's steps, each once.

    `parameters` of each step; `given` names those of them that a user gave. Steps that have a preset must
    have the same one, as a model reads what the step of the tokenizer made.
    """
    presets = {step: values["preset"] for step, values in parameters.items() if "preset" in values}
    try:
        for preset in presets.values():
            check(preset)
    except ValueError as error:
        return [str(error)]
    if len(set(presets.values())) > 1:
        told = ", ".join(f"{preset!r} in {step}" for step, preset in presets.items())
        return [f"preset is {told}: give it to all of them, with -p preset={AS_PUBLISHED}"]
    found = [
        contradiction(name, parameters[step][name])
        for step, preset in presets.items()
        for name in sorted(given.get(step, ()))
        if preset == AS_PUBLISHED
        and parameters[step][name] not in _VALUES.get(name, (parameters[step][name],))
    ]
    return list(dict.fromkeys(found))


def contradiction(name: str, value: Any) -> str:
    """A setting that no published system has, in words."""
    published = " or ".join(map(repr, _VALUES[name]))
    return f"{name} is {value!r}, and preset={AS_PUBLISHED} has {published}: leave one of the two out"


def check_tokenizer(preset: str, metadata: Mapping[str, Any], where: str) -> None:
    """ValueError naming `where` a tokenizer lies that was not made as a preset makes it."""
    own = {"lower_case": True, "fold_confusables": True, **metadata}  # as all were before there were switches
    if preset == AS_PUBLISHED and any(own[name] != value for name, value in off("tokenizer").items()):
        raise ValueError(
            f"{where} holds a tokenizer that folds spellings, and preset={AS_PUBLISHED} has one that does "
            f"not: run step 02_tokenizer with preset={AS_PUBLISHED}"
        )
