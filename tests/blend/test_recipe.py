"""The blend: judged by rows it has not seen, one graph in one bundle, and what may go wrong."""

import json
import shutil
import time

import numpy as np
import polars as pl
import pytest

from n3r.blend import recipe as blends
from n3r.blend.members import MEMBERS
from n3r.blend.recipe import BlendConfig, fit_blend
from n3r.blend.weights import blended
from n3r.bundle import Bundle, Recipe
from n3r.features import TabularFeatures
from n3r.files.manifest import verify, write_manifest
from n3r.metrics import class_auc
from n3r.rows import parts
from n3r.schema import LABEL
from n3r.score import Scorer
from n3r.vocabulary import train_wordpiece

NETWORK = {"embedding_size": 8, "hidden_size": 8, "n_lstm_layers": 1, "epochs": 1, "precision": "float32"}
FEW = ["boosting", "bert"]
QUICK = BlendConfig(
    members=["boosting", "extra trees", "character n-grams", "boosting on n-grams", "lstm2risk"],
    networks={"lstm2risk": NETWORK},
)


def recipe_of(small, **changes):
    columns = small.prepared.column_map.model_copy(update=changes)
    return Recipe(small.bundle.tokenizer, TabularFeatures(), columns)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("blend")


@pytest.fixture(scope="module")
def fitted(small, folder):
    return fit_blend(small.prepared.splits, recipe_of(small), QUICK, folder / "training")


@pytest.fixture(scope="module")
def saved(fitted, folder):
    # All members in it, whatever their weights here: the graph is to hold each kind.
    everyone = {name: 1 / len(QUICK.members) for name in QUICK.members}
    fitted.save(folder / "best", {"val": {"n": 3}})
    assert set(fitted.weights) <= set(everyone)
    return folder / "best"


def test_members_are_judged_by_rows_they_have_not_seen_and_their_blend_is_no_worse(fitted, small):
    assert fitted.held["objectId"].to_list()[-5:] == small.prepared.splits["val"]["objectId"].to_list()[-5:]
    label = fitted.held[LABEL].to_numpy()
    alone = [class_auc(label, p).value for p in fitted.p.values()]
    assert class_auc(label, fitted.held_probs).value >= max(alone) - 0.001 > 0.7
    assert sum(fitted.weights.values()) == pytest.approx(1)
    assert [member.name for member in fitted.tried] == QUICK.members
    assert all(member.seconds > 0 and member.left_out is None for member in fitted.tried)


def test_the_bundle_scores_as_its_members_do_on_any_row(fitted, saved, small):
    rows = small.prepared.splits["test"].head(40)
    text, numbers = fitted.recipe.column_map.all_text, fitted.recipe.column_map.numeric
    odd = [
        rows[:1].with_columns(pl.lit(None, pl.String).alias(name) for name in text),
        rows[1:2].with_columns(pl.lit("").alias(name) for name in text),
        rows[2:3].with_columns(pl.lit("Añá 🎈\x00 a" * 10_000).alias(text[0])),
        rows[3:4].with_columns(pl.lit(None, pl.Float32).alias(name) for name in numbers),
        rows[4:5].with_columns(pl.lit("unseen").alias(n) for n in fitted.recipe.column_map.categorical),
    ]
    frame = pl.concat([*odd, rows[5:]], how="vertical_relaxed")
    alone = {name: found.p for name, found in fitted.measure(frame).items()}
    expected = blended(alone, fitted.weights)[:, 1]
    scorer = Scorer(saved, threads=1)
    together = scorer.score(frame)["score"].to_numpy()
    np.testing.assert_allclose(together, expected, atol=1e-5)
    each = [scorer.score_one(row) for row in frame.head(8).iter_rows(named=True)]
    np.testing.assert_allclose(each, together[:8], atol=1e-5)
    assert np.isfinite(together).all()


def test_a_graph_gives_what_its_library_gave(fitted, small, folder, monkeypatch):
    made = {}

    def remembered(name):
        def fit(rows, context):
            made[name] = MEMBERS[name](rows, context)
            return made[name]

        return fit

    monkeypatch.setattr(blends, "MEMBERS", {name: remembered(name) for name in QUICK.members})
    monkeypatch.setattr(blends, "choose_weights", lambda label, p: dict.fromkeys(p, 1 / len(p)))
    shutil.rmtree(folder / "training" / "boosting" / "all", ignore_errors=True)
    everyone = fit_blend(small.prepared.splits, recipe_of(small), QUICK, folder / "training")
    rows, recipe = small.prepared.splits["test"], everyone.recipe
    encoded, alone = recipe.encoder(["text"], joined=True).frame(rows), everyone.measure(rows)
    assert set(alone) == set(QUICK.members) and "boosting" in made
    for name, member in made.items():
        np.testing.assert_allclose(alone[name].p, member.predict(encoded), atol=1e-5)


def test_networks_of_a_blend_may_have_8_bit_weights(small, fitted, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(blends, "choose_weights", lambda label, p: dict.fromkeys(p, 1 / len(p)))
    everyone = fit_blend(small.prepared.splits, recipe_of(small), QUICK, folder / "training")
    rows = small.prepared.splits["test"]
    everyone.save(tmp_path / "best", {}, int8_rows=rows)
    scores = [Scorer(tmp_path / "best", int8=int8).score(rows)["score"] for int8 in (False, True)]
    assert 0 < (scores[0] - scores[1]).abs().max() < 0.02
    assert json.loads((tmp_path / "best" / "metrics.json").read_text())["int8"]["rows"] == len(rows)


def test_the_bundle_is_verified_explained_and_calibrated_like_any_other(saved, small):
    assert verify(saved)
    scorer = Scorer(saved)
    order = small.prepared.splits["test"].row(0, named=True)
    explained = scorer.explain_one(order)
    assert set(explained["input"]) == set(scorer.inputs.names) - {scorer.inputs.id}
    assert scorer.outputs == ["score", "p_calibrated", "percentile"]
    assert "blend" in (saved / "MODEL_CARD.md").read_text()
    with pytest.raises(ValueError, match="a blend, which is a graph and no torch module"):
        Bundle.load(saved)


def test_reasons_are_features_of_the_strings_in_words_and_show_none_of_them(fitted, saved, small):
    scorer = Scorer(saved)
    order = small.prepared.splits["test"].row(3, named=True)
    given, family = "Qoxivoreth", "Zumbalakiwa"
    order |= {"emailAddress": "wk7dlt0093@qyxu.example", "customerName": f"{given} {family}"}
    why = scorer.reasons(order, n=1000)
    assert why["contribution"].abs().is_sorted(descending=True) and 0 < len(why) < 1000
    assert "customerName does not occur in emailAddress" in why["reason"].to_list()
    score = scorer.score_one(order)
    assert (score - why["score_without"]).to_list() == pytest.approx(why["contribution"].to_list(), abs=1e-5)
    said = " ".join(why["reason"]).lower()
    for private in (given, family, "wk7dlt0093", "qyxu"):
        assert private.lower() not in said
    assert scorer.reasons(order).equals(why.head(3))
    # By hand: the first reason's value becomes the usual one, the rest stays.
    features = scorer.features
    encoded = scorer._encoder.rows([order])
    names = [name for name in features.identity.names if name in features.names]
    said = {
        features.identity.words(name, encoded.tabular[0, features.names.index(name)]): name for name in names
    }
    name = said[why["reason"][0]]
    encoded.tabular[0, features.names.index(name)] = features.imputation_[name]
    assert scorer._graph.probabilities(encoded)[0, 1] == pytest.approx(why["score_without"][0], abs=1e-5)


def test_more_rows_than_a_sample_has_are_fitted_by_the_sample(small, tmp_path, monkeypatch):
    """Fewer give the same in parts as whole; what is measured of test rows is of all of them."""
    given, config = small.prepared.splits, BlendConfig(members=["boosting"], identity="on")

    def in_parts(rows):
        return parts.RowsInParts(lambda names: rows.select(names).iter_slices(70), rows.columns, len(rows))

    splits = {split: in_parts(rows) for split, rows in given.items()}
    whole, of_parts = (
        fit_blend(rows, recipe_of(small), config, tmp_path / name)
        for name, rows in (("whole", given), ("parts", splits))
    )
    assert of_parts.held.equals(whole.held) and np.array_equal(*(b.held_probs for b in (whole, of_parts)))
    expected = whole.measure(given["test"])["boosting"].p
    monkeypatch.setattr(parts, "SAMPLE", 10)
    monkeypatch.setattr(parts, "SLICE", 64)
    assert np.array_equal(of_parts.measure(splits["test"])["boosting"].p, expected)
    monkeypatch.setattr(parts, "SAMPLE", n := len(given["train"]) // 2)
    few = fit_blend(splits, recipe_of(small), config, tmp_path / "few")
    rows, places = parts.sample(pl.concat([given["train"], given["val"]]))
    n_train = int((places < len(given["train"])).sum())
    alone = {"train": rows[:n_train], "val": rows[n_train:]}
    again = fit_blend(alone, recipe_of(small), config, tmp_path / "alone")
    assert len(rows) == n and few.held.equals(again.held) and np.array_equal(few.held_probs, again.held_probs)
    assert few.recipe.data["splits"]["train"]["rows"] == len(given["train"])
    assert few.recipe.data["n_fitted"] == n and "n_fitted" not in of_parts.recipe.data
    few.save(tmp_path / "bundle", {})
    assert f"Fitted on a sample of {n}" in (tmp_path / "bundle" / "MODEL_CARD.md").read_text()


def test_what_is_done_is_not_done_again_and_ends_the_same(fitted, small, folder, monkeypatch):
    def must_not_run(rows, context):
        raise AssertionError("fitted again")

    monkeypatch.setattr(blends, "MEMBERS", dict.fromkeys(MEMBERS, must_not_run))
    again = fit_blend(small.prepared.splits, recipe_of(small), QUICK, folder / "training")
    assert again.weights == fitted.weights
    assert {m.name: m.auroc for m in again.tried} == {m.name: m.auroc for m in fitted.tried}


def test_an_interrupted_blend_goes_on(fitted, small, tmp_path, monkeypatch):
    names = QUICK.members[1:3]
    config = QUICK.model_copy(update={"members": names})
    made = []

    def counted(name, stops):
        def fit(rows, context):
            if name in stops:
                raise KeyboardInterrupt
            made.append(name)
            return MEMBERS[name](rows, context)

        return fit

    monkeypatch.setattr(blends, "MEMBERS", {name: counted(name, names[1:]) for name in names})
    with pytest.raises(KeyboardInterrupt):
        fit_blend(small.prepared.splits, recipe_of(small), config, tmp_path)
    assert made == names[:1]
    monkeypatch.setattr(blends, "MEMBERS", {name: counted(name, []) for name in names})
    found = fit_blend(small.prepared.splits, recipe_of(small), config, tmp_path)
    assert made[1:].count(names[0]) <= 1, "held-out scores are there; only the graph was to be made"
    for name in names:
        np.testing.assert_array_equal(found.p[name], fitted.p[name])


def test_a_member_that_fails_or_gives_no_number_is_named_and_left_out(small, tmp_path, monkeypatch):
    def fails(rows, context):
        raise ValueError("this member wants more")

    def gives_nan(rows, context):
        return blends.Fitted(lambda encoded: np.full((len(encoded.tabular), 2), np.nan), lambda: None)

    monkeypatch.setitem(MEMBERS, "fails", fails)
    monkeypatch.setitem(MEMBERS, "nan", gives_nan)
    config = BlendConfig(members=["boosting", "fails", "nan"], identity="on")
    found = fit_blend(small.prepared.splits, recipe_of(small), config, tmp_path)
    assert found.weights == {"boosting": 1.0}
    left_out = {member.name: member.left_out for member in found.tried}
    assert left_out["fails"] == "ValueError: this member wants more"
    assert "not finite" in left_out["nan"] and left_out["boosting"] is None
    with pytest.raises(ValueError, match="no member of the blend is left: fails: ValueError"):
        fit_blend(small.prepared.splits, recipe_of(small), BlendConfig(members=["fails"]), tmp_path)


def test_a_budget_leaves_out_what_would_take_longer(small, tmp_path, monkeypatch):
    def slow(rows, context):
        time.sleep(2)
        return MEMBERS["extra trees"](rows, context)

    monkeypatch.setitem(MEMBERS, "slow", slow)
    config = BlendConfig(members=["character n-grams", "slow"], budget=4, identity="on")
    found = fit_blend(small.prepared.splits, recipe_of(small), config, tmp_path)
    assert list(found.weights) == ["character n-grams"]
    assert "of the budget are left" in found.tried[1].left_out
    with pytest.raises(ValueError, match="character n-grams: would take .* 0 s of the budget are left"):
        config = BlendConfig(members=["character n-grams"], budget=1e-6, identity="on")
        fit_blend(small.prepared.splits, recipe_of(small), config, tmp_path / "less")


def test_unknown_members_are_named(small, tmp_path):
    with pytest.raises(ValueError, match=r"no members \['magic'\], only boosting, "):
        fit_blend(small.prepared.splits, recipe_of(small), BlendConfig(members=["magic"]), tmp_path)


@pytest.mark.parametrize(
    ("networks", "message"),
    [({"lstm2risk": {"width": 8}}, "lstm2risk has no width"), ({"magic": {}}, "no network 'magic'")],
)
def test_dimensions_that_no_network_has_are_named(small, tmp_path, networks, message):
    with pytest.raises(ValueError, match=message):
        fit_blend(small.prepared.splits, recipe_of(small), BlendConfig(networks=networks), tmp_path)


def test_a_random_split_is_held_out_in_folds(small, tmp_path):
    config = BlendConfig(members=["boosting", "character n-grams"], n_folds=2, identity="on")
    found = fit_blend(small.prepared.splits, recipe_of(small, split_by="random"), config, tmp_path)
    n = len(small.prepared.splits["train"]) + len(small.prepared.splits["val"])
    assert len(found.held) == n == found.held["objectId"].n_unique()
    assert class_auc(found.held[LABEL].to_numpy(), found.held_probs).value > 0.75


@pytest.mark.parametrize("split_by", ["time", pytest.param("random", marks=pytest.mark.slow)])
def test_a_label_that_nothing_tells_is_not_learned(small, tmp_path, split_by):
    splits = {
        name: frame.with_columns(pl.col(LABEL).shuffle(seed=1))
        for name, frame in small.prepared.splits.items()
    }
    config = BlendConfig(members=["boosting", "character n-grams"], n_folds=3)
    found = fit_blend(splits, recipe_of(small, split_by=split_by), config, tmp_path)
    p = found.measure(splits["test"])
    test = class_auc(splits["test"][LABEL].to_numpy(), blended({n: a.p for n, a in p.items()}, found.weights))
    assert test.low < 0.5 < test.high


@pytest.mark.slow
def test_three_classes_ten_rows_of_one(small, tmp_path):
    def three(frame, n):
        label = frame[LABEL].to_numpy().copy()
        label[np.flatnonzero(label == 1)[:n]] = 2
        return frame.with_columns(pl.Series(LABEL, label))

    splits = {
        "train": three(small.prepared.splits["train"], 10),
        "val": three(small.prepared.splits["val"], 3),
    }
    columns = {"split_by": "random", "label_values": {"0": 0, "1": 1, "2": 2}}
    config = BlendConfig(members=["boosting", "character n-grams"], n_folds=2)
    found = fit_blend(splits, recipe_of(small, **columns), config, tmp_path / "training")
    assert found.held_probs.shape[1] == 3
    found.save(tmp_path / "best", {})
    scored = Scorer(tmp_path / "best").score(small.prepared.splits["test"])
    assert scored.columns[1:4] == ["score_0", "score_1", "score_2"]


def test_names_only(small, tmp_path):
    config = BlendConfig(members=["boosting", "character n-grams"])
    recipe = recipe_of(small, numeric=[], categorical=[], text=["customerName"])
    found = fit_blend(small.prepared.splits, recipe, config, tmp_path / "training")
    found.save(tmp_path / "best", {})
    scorer = Scorer(tmp_path / "best")
    assert scorer.score_one({"customerName": "Ana Smith"}) >= 0
    assert set(scorer.reasons({"customerName": None}, n=1)["reason"]) <= {"customerName is missing"}


@pytest.mark.parametrize("identity", ["on", "off"])
def test_identity_features_are_read_as_told(small, tmp_path, identity):
    config = BlendConfig(members=["boosting"], identity=identity)
    found = fit_blend(small.prepared.splits, recipe_of(small), config, tmp_path)
    assert (found.recipe.features.identity is not None) == (identity == "on")


def test_an_unknown_choice_of_identity_features_is_refused():
    with pytest.raises(ValueError, match="'off', 'on' or 'auto'"):
        BlendConfig(identity="yes")


@pytest.mark.parametrize("split_by", ["time", "random"])
def test_one_text_column_of_one_value_and_no_column_that_varies(small, tmp_path, split_by):
    splits = {
        name: frame.with_columns(pl.lit("x").alias("customerName"), pl.lit(1.0).alias("one"))
        for name, frame in small.prepared.splits.items()
    }
    changes = {"numeric": ["one"], "categorical": [], "text": ["customerName"], "split_by": split_by}
    config = BlendConfig(members=["boosting", "character n-grams"])
    found = fit_blend(splits, recipe_of(small, **changes), config, tmp_path / "training")
    found.save(tmp_path / "best", {})
    assert 0 <= Scorer(tmp_path / "best").score_one({"customerName": "y", "one": 2}) <= 1
    left_out = found.tried[0].left_out  # split by time, a value's count tells rows apart
    assert left_out is None if split_by == "time" else "trees need rows of at least one feature" in left_out


def test_a_damaged_graph_is_refused(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "best")
    (tmp_path / "best" / "model.onnx").write_bytes(b"")
    with pytest.raises(ValueError, match=r"model.onnx is truncated"):
        Scorer(tmp_path / "best")


def test_token_ngrams_alone(small, tmp_path):
    found = fit_blend(
        small.prepared.splits,
        recipe_of(small),
        BlendConfig(members=["token n-grams"], identity="off"),
        tmp_path / "training",
    )
    found.save(tmp_path / "best", {})
    rows = small.prepared.splits["test"]
    served = Scorer(tmp_path / "best").score(rows)["score"].to_numpy()
    np.testing.assert_allclose(served, found.measure(rows)["token n-grams"].p[:, 1], atol=1e-5)


@pytest.mark.slow
def test_networks_of_other_classes(small, tmp_path):
    few = {"epochs": 1, "batch_size": 256, "precision": "float32"}
    networks = {
        "transformer2risk": {
            "embedding_size": 8,
            "hidden_size": 4,
            "n_blocks": 1,
            "n_heads": 2,
            "block_size": 6,
        },
        "bimodal_cnn": {"embedding_size": 8, "n_channels": [8], "kernel_sizes": [3], "hidden_common_dim": 8},
        "lstm": {"embedding_size": 8, "hidden_size": 8},
    }
    networks = {name: given | few for name, given in networks.items()}
    config = BlendConfig(members=list(networks), networks=networks)
    found = fit_blend(small.prepared.splits, recipe_of(small), config, tmp_path / "training")
    assert {member.name for member in found.tried if member.left_out is None} == set(networks)
    found.save(tmp_path / "best", {})
    rows = small.prepared.splits["test"].head(20)
    alone = blended({name: one.p for name, one in found.measure(rows).items()}, found.weights)
    served = Scorer(tmp_path / "best").score(rows)["score"].to_numpy()
    np.testing.assert_allclose(served, alone[:, 1], atol=1e-5)


# ---- a pretrained BERT among the members


@pytest.fixture(scope="module")
def pretrained(small, made_bert, tmp_path_factory):
    texts = small.prepared.splits["train"].select(small.prepared.column_map.all_text)
    return made_bert(tmp_path_factory.mktemp("pretrained"), train_wordpiece(texts, vocab_size=300))


def with_bert(pretrained, /, **changes):
    network = {"epochs": 1, "batch_size": 128, "precision": "float32", "lr": 0.001}
    given = {"members": FEW, "networks": {"bert": network, "bimodal_bert": network}, "identity": "on"}
    return BlendConfig(**given | {"pretrained": pretrained} | changes)


@pytest.fixture(scope="module")
def few(small):
    """A third of the rows: a BERT reads slowly."""
    return {name: frame.gather_every(3) for name, frame in small.prepared.splits.items()}


@pytest.fixture(scope="module")
def blend_of_bert(small, few, pretrained, folder):
    """With equal weights, so that the bundle holds the BERT however it ranks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blends, "choose_weights", lambda label, p: dict.fromkeys(p, 1 / len(p)))
        found = fit_blend(few, recipe_of(small), with_bert(pretrained), folder / "bert")
    found.save(folder / "with_bert", {}, int8_rows=small.prepared.splits["test"])
    return found


def test_a_pretrained_bert_is_a_member_with_a_tokenizer_of_its_own(blend_of_bert, small, folder):
    text = blend_of_bert.recipe.column_map.all_text
    rows = small.prepared.splits["test"].head(30)
    odd = [
        rows[:1].with_columns(pl.lit(None, pl.String).alias(name) for name in text),
        rows[1:2].with_columns(pl.lit("").alias(name) for name in text),
        rows[2:3].with_columns(pl.lit("A\u00f1\u00e1 \U0001f388\x00 [SEP] a" * 6_000).alias(text[0])),
    ]
    frame = pl.concat([*odd, rows[3:]], how="vertical_relaxed")
    alone = {name: found.p for name, found in blend_of_bert.measure(frame).items()}
    assert set(alone) == set(FEW) and np.ptp(alone["bert"][:, 1]) > 1e-4
    scorer = Scorer(folder / "with_bert", threads=1)
    together = scorer.score(frame)["score"].to_numpy()
    np.testing.assert_allclose(together, blended(alone, blend_of_bert.weights)[:, 1], atol=1e-5)
    each = [scorer.score_one(row) for row in frame.head(5).iter_rows(named=True)]
    np.testing.assert_allclose(each, together[:5], atol=1e-5)
    small_weights = Scorer(folder / "with_bert", int8=True).score(frame)["score"].to_numpy()
    assert 0 < np.abs(small_weights - together).max() < 0.02
    assert set(scorer.explain_one(frame.row(5, named=True))["input"]) >= set(text)
    assert len(scorer.reasons(frame.row(5, named=True)))
    card = (folder / "with_bert" / "MODEL_CARD.md").read_text()
    assert "first weights" in card and blend_of_bert.config.pretrained not in card


def test_scoring_with_a_bert_imports_neither_torch_nor_transformers(blend_of_bert, folder, run_fresh):
    code = (
        "import sys; from n3r.score import Scorer; scorer = Scorer(sys.argv[1]); "
        "scorer.score_one(dict.fromkeys(scorer.inputs.names)); "
        "print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    assert run_fresh(code, folder / "with_bert").strip() == "[]"


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("config.json", {"pretrained": {"max_tokens": 0}}, "config.json: .*max_tokens"),
        ("config.json", {"pretrained": "all"}, "config.json: .*"),
        ("pretrained_tokenizer_metadata.json", {"cls_token": "[NONE]"}, "no cls_token"),
    ],
)
def test_altered_files_of_the_second_tokenizer_are_named(
    blend_of_bert, folder, tmp_path, file, change, message
):
    bundle = tmp_path / "bundle"
    shutil.copytree(folder / "with_bert", bundle)
    content = json.loads((bundle / file).read_text())
    (bundle / file).write_text(json.dumps(content | change))
    (bundle / "MANIFEST.json").unlink()
    write_manifest(bundle)
    with pytest.raises(ValueError, match=message):
        Scorer(bundle)
    for name in bundle.glob("pretrained_*"):
        name.unlink()
    del content["pretrained" if "pretrained" in content else "sep_token"]
    (bundle / file).write_text(json.dumps(content))
    (bundle / "MANIFEST.json").unlink()
    write_manifest(bundle)
    with pytest.raises(ValueError, match="there is no tokenizer for it|pretrained_tokenizer.json"):
        Scorer(bundle)


def test_a_pretrained_model_is_tried_where_it_is_named(small, few, pretrained, tmp_path):
    config = with_bert(pretrained, members=["boosting"])
    assert config.tried == FEW and with_bert(pretrained, members=["bimodal_bert"]).tried == ["bimodal_bert"]
    found = fit_blend(few, recipe_of(small), config, tmp_path / "training")
    assert [member.name for member in found.tried] == FEW and found.tried[1].auroc.value is not None
    found.save(tmp_path / "best", {})
    kept = sorted(path.name for path in (tmp_path / "best").glob("pretrained_*"))
    assert bool(kept) == ("bert" in found.weights)
    Scorer(tmp_path / "best")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pretrained": None}, "bert among the members: give `pretrained`"),
        ({"pretrained": "./nothing"}, "./nothing is not a BERT model"),
        ({"networks": {"bert": {"pretrained": "./other"}}}, "bert has no pretrained"),
    ],
)
def test_a_pretrained_model_that_is_not_there_is_named(small, pretrained, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        fit_blend(small.prepared.splits, recipe_of(small), with_bert(pretrained, **changes), tmp_path)
