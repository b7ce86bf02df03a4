"""The legacy beside a bundle: same function, same rows, same order, a verdict from the paired difference."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import roc_auc_score

from n3r.bundle import Bundle
from n3r.files import kept
from n3r.legacy.epoch_files import read_experiment
from n3r.legacy.layouts import import_legacy
from n3r.legacy.trainer import predict_legacy
from n3r.model import RiskModel
from n3r.multiclass import measure
from n3r.predictions import prediction_table
from n3r.rows.parts import joined
from n3r.schema import LABEL, ORACLE, SCORE, SEGMENT, joined_text
from n3r.studies import ablation, beside, parity


@pytest.mark.parametrize("n_rows", [13, 100, 513, 1025])
@pytest.mark.parametrize("epochs", [1, 2, 5, 10])
def test_defect_23_the_legacy_gets_a_batch_size_it_survives(n_rows, epochs):
    size = beside.workable_batch_size(n_rows, 512, epochs)
    assert 2 <= size <= 512
    assert n_rows % size != 1
    assert epochs * -(-n_rows // size) != 10


def test_deviations_are_found_whole():
    notes = parity.deviations()
    where = {note["where"] for note in notes}
    assert {"text.py", "kernels.py", "train.py", "tabular.py", "rows/keys.py"} <= where
    assert all(note["what"].endswith((".", ")")) for note in notes)


def test_deviations_read_comments_and_docstrings(tmp_path):
    tag = parity.TAG
    (tmp_path / "a.py").write_text(
        f'"""Doc.\n\n{tag} one thing\nover two lines.\n\nOther.\n"""\n\n'
        f"x = 1\n# {tag} another\n# thing.\ny = 2\n"
    )
    assert parity.deviations(tmp_path) == [
        {"where": "a.py", "what": "one thing over two lines."},
        {"where": "a.py", "what": "another thing."},
    ]


# ---- the legacy's function from its weights


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """Where the legacy's own files go, by model class."""
    return tmp_path_factory.mktemp("files")


@pytest.fixture(scope="module", params=["lstm2risk", "transformer2risk"])
def trained(request, a_bundle, splits, files, tmp_path_factory) -> tuple[Bundle, beside.LegacyRun]:
    """A bundle, not trained, and the legacy trained beside it."""
    bundle = a_bundle(request.param, epochs=3, precision="float32")
    options = {"progress": False, "epoch_files": files / request.param}
    return bundle, beside.train_beside(bundle, splits, tmp_path_factory.mktemp("legacy"), **options)


def by_deviation(rows: list[dict]) -> dict[str, dict]:
    assert len({row["deviation"] for row in rows}) == len(rows)
    return {row["deviation"]: row for row in rows}


def test_the_legacys_weights_give_its_probabilities_with_every_deviation_off(trained, splits):
    bundle, run = trained
    rows = by_deviation(parity.function_parity(run, bundle, splits["test"], 5, 16))
    assert rows["none"]["largest"] < 1e-6 and rows["none"]["n_moved"] == 0
    assert rows["none"]["n_rows"] == 80
    assert run.predict(splits["test"]).std() > 1e-2
    assert rows["imputation"]["n_moved"] >= 10  # 30 % of the rows miss a number
    assert rows["all"]["largest"] > 1e-4
    for name in ("scaling", "bins", "batches", "decay", "clipping", "best_epoch", "kernels", "logits"):
        assert rows[name]["largest"] is None and rows[name]["note"]
    if run.model_class == "transformer2risk":
        assert rows["pool"]["largest"] > 1e-5 and "max_tokens" not in rows
    else:
        assert rows["max_tokens"]["largest"] < 1e-6 and "pool" not in rows
    assert rows["tokenizer"]["largest"] < 1e-6  # nobody here types a bar


def test_defect_15_typed_special_tokens_move_a_score_only_where_n3rs_tokenizer_reads_them(trained, splits):
    bundle, run = trained
    frame = splits["test"].with_columns(emailAddress=pl.lit("Anina | [PAD] [CLS]"))
    frame = frame.with_columns(joined_text(bundle.column_map.text))
    rows = by_deviation(parity.function_parity(run, bundle, frame, 5, 16))
    assert rows["none"]["largest"] < 1e-6
    assert rows["tokenizer"]["n_moved"] == 80


def test_a_long_text_is_cut_where_that_is_on(trained, splits):
    bundle, run = trained
    bundle = replace(bundle, texts=bundle.texts.model_copy(update={"max_tokens": 10}))
    rows = by_deviation(parity.function_parity(run, bundle, splits["test"], 5, 16))
    if run.model_class == "lstm2risk":
        assert rows["none"]["largest"] < 1e-6 and rows["max_tokens"]["n_moved"] == 80


def test_function_parity_repeats_itself_and_seeds_draw_other_batches(trained, splits):
    bundle, run = trained
    one, same, other = (parity.function_parity(run, bundle, splits["test"], 3, 8, s) for s in (0, 0, 1))
    assert one == same != other


def test_the_legacys_weights_give_its_probabilities_beside_a_bundle_with_identity_features(
    trained, splits, a_bundle
):
    run = trained[1]
    bundle = a_bundle(run.model_class, identity=True, epochs=3, precision="float32")
    rows = by_deviation(parity.function_parity(run, bundle, splits["test"], 5, 16))
    assert rows["none"]["largest"] < 1e-6
    assert rows["identity"]["largest"] is None and rows["identity"]["note"] == "weights are learned for it"


def test_function_parity_refuses_another_bundle_and_no_rows(trained, splits):
    bundle, run = trained
    with pytest.raises(ValueError, match="another bundle"):
        parity.function_parity(run._replace(columns=["b", "a"]), bundle, splits["test"])
    with pytest.raises(ValueError, match="no rows"):
        parity.function_parity(run, bundle, splits["test"].clear())


# ---- trained again, kept and read back


def test_a_legacy_is_trained_once_for_each_plan_and_scores_the_same_later(trained, splits, tmp_path):
    bundle, run = trained
    file, frame = tmp_path / kept.FILE, splits["test"]
    written = []
    for plan in [{}, {}, {"seed": 1}]:
        found = beside.train_beside(bundle, splits, tmp_path, progress=False, **plan)
        written.append(file.stat().st_mtime_ns)
        moved = np.abs(found.predict(frame) - run.predict(frame)).max()
        assert moved > 1e-3 if plan else moved == 0  # the default seed is the bundle's
        loaded = beside.load_legacy(tmp_path)
        np.testing.assert_array_equal(loaded.predict(frame.drop(LABEL, "objectId")), found.predict(frame))
        assert (loaded.history, loaded.model_class, loaded.columns) == (
            found.history,
            run.model_class,
            run.columns,
        )
        assert loaded.tokenizer.vocab_size == run.tokenizer.vocab_size
    assert written[0] == written[1] < written[2]


def test_the_legacys_files_are_those_of_its_epochs_and_any_epoch_becomes_a_bundle(trained, splits, files):
    bundle, run = trained
    folder, test = files / run.model_class, splits["test"]
    assert sorted(path.name for path in folder.iterdir()) == [
        "experiments", "features.txt", "models", "tokenizer.json"
    ]  # fmt: skip
    (log,) = (folder / "experiments").iterdir()
    table = read_experiment(log).table
    assert table["step"].to_list() == [0, 1, 2]
    assert table["test_auc"].to_list() == [epoch["test_auc"] for epoch in run.history]
    of_both_classes = 0
    for (market,), rows in test.group_by(SEGMENT):
        found = table[f"{market}_auc"][2]
        if rows[LABEL].n_unique() == 1:
            assert found is None
            continue
        of_both_classes += 1
        alone = predict_legacy(run.model, run.dataset(rows), batch_size=32)
        assert found == pytest.approx(roc_auc_score(rows[LABEL], alone), abs=1e-12)
    assert of_both_classes > 1
    assert {f"{name}_auc" for name in test[SEGMENT]} == set(table.columns[4:])
    places = [folder / "models" / "model_2.pt", run.model_class]
    places += [folder / "tokenizer.json", folder / "features.txt"]
    taken = import_legacy(*places, bundle.column_map)
    expected = predict_legacy(run.model, run.dataset(test), batch_size=1)
    np.testing.assert_allclose(taken.predict(test)[:, 1], expected, rtol=0, atol=2e-6)


def test_files_that_are_asked_for_later_or_are_gone_are_written_again(a_bundle, splits, tmp_path):
    bundle = a_bundle("lstm2risk", epochs=1)
    place, folder = tmp_path / "kept", tmp_path / "files"
    weights, times = folder / "models" / "model_0.pt", []
    for asked in (None, folder, folder, folder):
        beside.train_beside(bundle, splits, place, progress=False, epoch_files=asked)
        times.append((place / kept.FILE).stat().st_mtime_ns)
        assert weights.is_file() == (asked is not None)
        if len(times) == 3:
            weights.unlink()
    assert times[0] < times[1] == times[2] < times[3]


def test_another_seed_is_another_training_of_both_on_the_same_rows(trained, splits, tmp_path):
    bundle, run = trained
    rows = {name: frame for name, frame in splits.items() if name != "val"}
    test = splits["test"]
    own = bundle.predictions(test), prediction_table(test, bundle.column_map.id, run.predict(test))
    found = [beside.by_seed(bundle, own, rows, [0, 4], tmp_path / name) for name in "ab"]
    again = beside.by_seed(bundle, own, rows, [4], tmp_path / "a")
    for side in (0, 1):
        first, other = found[0][side]
        assert first is own[side] and first.columns == other.columns
        assert (first["score"] - other["score"]).abs().max() > 1e-3
        assert other.equals(found[1][side][1]) and other.equals(again[side][1])


def test_of_a_sample_of_the_training_rows_n3r_learns_too_and_the_report_says_so(trained, splits, tmp_path):
    bundle, run = trained
    more = replace(bundle, data={"splits": {"train": {"rows": 10**6}}})
    test = splits["test"]
    own = bundle.predictions(test), prediction_table(test, bundle.column_map.id, run.predict(test))
    divided = {**splits, "test": joined(test[:7], test[7:])}
    ours, theirs = beside.by_seed(more, own, divided, [0], tmp_path)
    assert len(ours) == 1 and theirs == [own[1]]
    assert ours[0].drop("score").equals(own[0].drop("score")) and not ours[0].equals(own[0])
    told = f"a sample of {len(splits['train'])} of the 1,000,000 training rows"
    assert told in beside.compared_on(more, divided) and beside.compared_on(bundle, divided) is None
    assert kept.plan("n3r.studies.beside", divided) == kept.plan("n3r.studies.beside", splits)


def test_test_rows_in_parts_give_the_same_function(trained, splits):
    bundle, run = trained
    divided = joined(splits["test"][:7], splits["test"][7:])
    one, other = (parity.function_parity(run, bundle, rows, 3, 16) for rows in (splits["test"], divided))
    assert one == other


def test_three_classes_are_not_compared_with_the_legacy(trained, splits, tmp_path):
    bundle, _ = trained
    several = RiskModel(bundle.model.config.model_copy(update={"n_classes": 3}))
    for compare in (
        lambda own: beside.train_beside(own, splits, tmp_path),
        lambda own: ablation.ablate(own, splits, [0], tmp_path),
    ):
        with pytest.raises(
            ValueError, match="the legacy is binary only: .* this model tells 3 classes apart"
        ):
            compare(replace(bundle, model=several))
    assert not list(tmp_path.iterdir())


def test_a_legacy_that_was_not_trained_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"model.safetensors does not exist: train the legacy"):
        beside.load_legacy(tmp_path)


# ---- what the report is made of


def test_records_and_curves_of_each_model_and_split(trained, splits):
    bundle, run = trained
    key, rows = run.model_class, dict(splits)
    rows["test"] = rows["test"].with_columns(pl.lit(0.5).alias(ORACLE))
    found = parity.predictions({key: bundle}, {key: run}, {key: "Net"}, rows)
    assert list(found) == [("Net", "val"), ("Net", "test"), ("legacy Net", "val"), ("legacy Net", "test")]
    drawn = parity.curves(found, rows)
    assert {split: list(models) for split, models in drawn.items()} == {
        "val": ["Net", "legacy Net"],
        "test": ["Net", "legacy Net", "oracle"],
    }
    recorded = {key: {"model": {"name": "Net", "dimensions": {"d": 1}}, "timing": {"orders_per_second": 9}}}
    baselines = {"guess": {"test": np.full(len(rows["test"]), 0.5)}}
    net, legacy, guess, oracle = parity.model_records(recorded, {key: run}, drawn, baselines, rows)
    assert (net["name"], net["orders_per_second"]) == ("Net", 9)
    assert (legacy["system"], legacy["epochs"], legacy["dimensions"]) == ("legacy", 3, {"d": 1})
    assert legacy["n_parameters"] == run.n_parameters and {"val", "test"} <= legacy.keys()
    assert (guess["system"], oracle["system"]) == ("baseline", "oracle")
    assert guess["test"] == oracle["test"]


def test_three_classes_have_curves_of_class_0_against_the_rest_and_no_oracle(in_three):
    rows = pl.DataFrame({"id": range(90), LABEL: [0, 1] * 45, ORACLE: [0.5] * 90})
    splits = {"train": rows, "test": in_three(rows)}
    p = splits["test"].select(f"{SCORE}_{c}" for c in range(3)).to_numpy()
    found = {("Net", "test"): prediction_table(splits["test"], "id", p)}
    drawn = parity.curves(found, splits)
    assert list(drawn["test"]) == ["Net"]
    label, risk = drawn["test"]["Net"]
    assert (label == (splits["test"][LABEL].to_numpy() > 0)).all() and risk == pytest.approx(1 - p[:, 0])
    recorded = {"lstm2risk": {"model": {"name": "Net"}, "timing": {}}}
    net, guess = parity.model_records(recorded, {}, drawn, {"guess": {"test": p}}, splits)
    assert net["name"] == "Net" and guess["test"] == measure(splits["test"][LABEL], p)
