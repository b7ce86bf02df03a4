"""As published in one switch: what it sets, what it leaves, and what contradicts it."""

import re
from pathlib import Path

import pytest

from n3r.pipeline import notebook_parameters, resolve_parameters, with_needs
from n3r.presets import PUBLISHED, check_tokenizer, off, settled
from n3r.studies import ablation
from n3r.vocabulary import TokenizerConfig

ROOT = Path(__file__).resolve().parent.parent
STEPS = ("02_tokenizer", "03_train_lstm2risk", "04_train_transformer2risk")
SETTINGS = {name: values for settings in PUBLISHED.values() for name, values in settings.items()}


def resolved(*overrides: str, size: str = "quick", region: str | None = None, steps=("05",)):
    return resolve_parameters(size, {}, list(overrides), with_needs(list(steps)), region)


@pytest.mark.parametrize("size", ["dev", "quick", "full"])
def test_each_step_that_has_a_preset_gets_published_values_alone(size):
    own, published = resolved(size=size), resolved("preset=published", size=size)
    for step in STEPS:
        read = SETTINGS.keys() & published[step].keys()
        assert read and all(published[step][name] in SETTINGS[name] for name in read)
        others = published[step].keys() - read - {"preset"}  # dimensions, epochs and batch size among them
        assert all(published[step][name] == own[step][name] for name in others)
    assert {s: v for s, v in published.items() if s not in STEPS} == {
        s: v for s, v in own.items() if s not in STEPS
    }
    assert set(SETTINGS) == {name for step in STEPS for name in SETTINGS.keys() & own[step].keys()}


def test_what_either_published_system_has_stays_and_the_legacys_is_the_default():
    lstm = resolved("preset=published")["03_train_lstm2risk"]
    assert (lstm["imputation"], lstm["scaling"], lstm["n_tab_bins"]) == ("minus_one", "none", 0)
    lstm = resolved("preset=published", "imputation=mean", "gradient_clip=0", region="NA")[
        "03_train_lstm2risk"
    ]
    assert (lstm["imputation"], lstm["gradient_clip"], lstm["weight_decay"]) == ("mean", 0.0, 0.0)


def test_a_notebook_run_by_hand_takes_the_same_values():
    for step in STEPS:
        given = {name: spec["default"] for name, spec in notebook_parameters(step).items()}
        assert settled(given) == given
        by_hand = settled(given | {"preset": "published"})
        by_hand.pop("name")
        assert by_hand == resolved("preset=published", size="dev")[step]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["imputation=median"], "^imputation is 'median', and preset=published has 'minus_one' or 'mean': "),
        (["03.imputation=mode"], "^imputation is 'mode', and preset=published has"),
        (["lower_case=true", "scaling=quantile"], "lower_case is True.*; scaling is 'quantile'"),
        (["optimizer=sgd"], "optimizer is 'sgd', and preset=published has 'adamw'"),
        (["n_tab_bins=24"], "n_tab_bins is 24, and preset=published has 0"),
        (
            ["03.preset=n3r"],
            "preset is 'published' in 02_tokenizer, 'n3r' in 03_train_lstm2risk, 'published'",
        ),
    ],
)
def test_what_contradicts_a_preset_is_one_sentence(overrides, message):
    with pytest.raises(ValueError, match=message) as refused:
        resolved("preset=published", *overrides)
    assert "\n" not in str(refused.value)


def test_there_is_no_other_preset():
    with pytest.raises(ValueError, match="^no preset 'legacy'; there are n3r and published$"):
        resolved("preset=legacy")


def test_a_setting_of_a_step_without_a_preset_contradicts_nothing():
    assert resolved("preset=published", "09.imputation=median")["09_best"]["imputation"] == "median"


def test_a_region_that_contradicts_the_preset_is_refused(monkeypatch):
    setting = [("03_train_lstm2risk.scaling", "quantile")]
    monkeypatch.setattr("n3r.pipeline.regional", lambda region: setting)
    with pytest.raises(ValueError, match="scaling is 'quantile', and preset=published"):
        resolved("preset=published", region="NA")


def test_a_published_model_reads_no_tokenizer_that_folds():
    kept = TokenizerConfig(**off("tokenizer")).model_dump()
    check_tokenizer("published", kept, "here")
    check_tokenizer("n3r", {}, "here")
    for other in ({}, kept | {"lower_case": True}, kept | {"fold_confusables": True}):
        with pytest.raises(ValueError, match="^here holds a tokenizer that folds .* run step 02_tokenizer"):
            check_tokenizer("published", other, "here")


def test_the_docs_name_the_deviations_that_no_preset_switches_off():
    text = (ROOT / "docs" / "deviations.md").read_text()
    named = re.search(r"What stays.*?\n\n(.*)", text, re.DOTALL)[1]
    assert set(re.findall(r"^\| `(\w+)` \|", named, re.MULTILINE)) == set(ablation.DEVIATIONS) - set(
        PUBLISHED
    )
