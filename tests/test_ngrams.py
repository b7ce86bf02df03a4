"""n-grams: graphs that give scikit-learn's probabilities for any text, encodings that a fitted model saw."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnxruntime import InferenceSession, SessionOptions
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline

from n3r.encode import pad
from n3r.ngrams import NGRAMS, PAD, code_points, fit_ngrams, joined_texts, token_texts
from n3r.token_arrays import TokenizedText

LETTERS = "abcd e\U0001d49cé|X9@.\t"
ODD = [
    "",
    " ",
    "\n\n",
    "\t",
    "a \t b",
    "ab" * 50_000,
    "\U0001d49c" * 3,
    "\ud800",
    "qqqq",
    "�",
    "\x1c\x1cab",
    "a\0b",
]


def texts(n: int, seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    return ["".join(rng.choice(list(LETTERS), length)) for length in rng.integers(1, 40, n)]


def labels(rows: list[str], n_classes: int = 2) -> np.ndarray:
    """By the number of "ab", "X" and "9" in a text."""
    found = [sum(text.count(part) for part in ("ab", "X", "9")) for text in rows]
    return np.minimum(found, n_classes - 1)


def features(rows: list[str]) -> np.ndarray:
    lengths = np.array([len(text) for text in rows], np.float32)
    return np.stack([lengths, np.where(lengths > 20, np.nan, -lengths)], axis=1).astype(np.float32)


def graph_probs(member, rows: list[str], X: np.ndarray | None = None, threads: int = 1) -> np.ndarray:
    options = SessionOptions()
    options.intra_op_num_threads = threads
    session = InferenceSession(member.graph().SerializeToString(), options)
    batch = {"characters": code_points(rows), "tabular": X}
    return session.run(["probs"], {node.name: batch[node.name] for node in session.get_inputs()})[0]


CHARACTER_KINDS = [kind for kind, config in NGRAMS.items() if config.source == "characters"]


@pytest.fixture(scope="module", params=[(kind, c) for kind in CHARACTER_KINDS for c in (2, 3)], ids=str)
def fitted(request):
    kind, n_classes = request.param
    rows = texts(400)
    return fit_ngrams(kind, rows, labels(rows, n_classes), n_classes, seed=1, X=features(rows))


def test_a_graph_gives_scikit_learns_probabilities(fitted):
    rows = texts(100, seed=7) + ODD
    X = features(rows)
    want = fitted.predict(rows, X)
    np.testing.assert_allclose(graph_probs(fitted, rows, X), want, rtol=0, atol=1e-5)
    for _ in range(3):  # a sum that threads race for would be far off
        np.testing.assert_allclose(graph_probs(fitted, rows, X, threads=4), want, rtol=0, atol=1e-5)
    one_by_one = [graph_probs(fitted, rows[i : i + 1], X[i : i + 1])[0] for i in range(95, len(rows))]
    np.testing.assert_allclose(one_by_one, want[95:], rtol=0, atol=1e-5)
    assert want.std(axis=0).min() > 0.01, "rows that are all alike prove nothing"


@pytest.mark.parametrize("n_classes", [2, 3])
def test_the_linear_member_is_the_libraries_own_pipeline(n_classes):
    """Nothing is normalised that scikit-learn would not, but halves of characters."""
    rows, other = texts(400) + ODD[:7], texts(100, seed=7) + ODD[:7]
    member = fit_ngrams("character n-grams", rows, labels(rows, n_classes), n_classes)
    vectorizer = TfidfVectorizer(
        analyzer="char", ngram_range=(1, 4), lowercase=False, sublinear_tf=True, min_df=3, max_features=30_000
    )
    solver = "liblinear" if n_classes == 2 else "lbfgs"
    model = LogisticRegression(C=3.0, solver=solver, max_iter=1000, random_state=0)
    pipeline = make_pipeline(vectorizer, model).fit(rows, labels(rows, n_classes))
    np.testing.assert_allclose(member.predict(other), pipeline.predict_proba(other), rtol=0, atol=1e-6)


@pytest.fixture(scope="module")
def session():
    rows = texts(400)
    member = fit_ngrams("character n-grams", rows, labels(rows), 2)
    return member, InferenceSession(member.graph().SerializeToString())


@given(rows=st.lists(st.text() | st.text(LETTERS), min_size=1, max_size=9))
def test_any_texts(session, rows):
    member, graph = session
    probs = graph.run(["probs"], {"characters": code_points(rows)})[0]
    np.testing.assert_allclose(probs, member.predict(rows), rtol=0, atol=1e-5)


@given(rows=st.lists(st.text(), max_size=9))
def test_code_points_come_back_as_the_text_that_is_counted(rows):
    codes = code_points(rows)
    assert codes.dtype == np.int32 and codes.shape[0] == len(rows) and codes.shape[1] >= 1
    back = ["".join(map(chr, row[row != PAD])) for row in codes]
    counted = TfidfVectorizer(analyzer="char", lowercase=False, ngram_range=(1, 1)).build_analyzer()
    assert back == ["".join(counted(text)) for text in rows]


def test_code_points_of_half_a_character_and_padding():
    assert code_points(["a  b", "\ud83d"]).tolist() == [[97, 32, 98], [0xFFFD, PAD, PAD]]
    assert code_points([""]).tolist() == [[PAD]] and code_points([]).shape == (0, 1)


def test_joined_texts_close_each_field():
    assert joined_texts([["a", None], ["", "b|"]]) == ["a||", "[MISSING]|b||"]


def test_token_n_grams_read_what_networks_read_without_the_padding():
    rng = np.random.default_rng(0)
    lengths = rng.integers(0, 12, 300)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    ids = rng.integers(1, 3000, offsets[-1]).astype(np.int32)
    ids[rng.random(len(ids)) < 0.5] = 7
    tokens = TokenizedText(ids, offsets)
    rows = token_texts(*tokens)
    assert [[ord(c) - 0x10000 for c in row] for row in rows] == [tokens.row(i).tolist() for i in range(300)]
    y = np.array(["\U00010007\U00010007" in row for row in rows]).astype(int)
    member = fit_ngrams("token n-grams", rows, y, 2)
    session = InferenceSession(member.graph().SerializeToString())
    for pad_token in (0, 2999):
        text, _ = pad(tokens, pad_token)
        unseen = np.isin(text, [0]) | (text == pad_token)
        probs = session.run(["probs"], {"text": np.where(unseen, 0, text)})[0]
    np.testing.assert_allclose(probs, member.predict(rows), rtol=0, atol=1e-5)
    assert roc_auc_score(y, probs[:, 1]) > 0.9


@pytest.mark.parametrize("kind", CHARACTER_KINDS)
@pytest.mark.parametrize("present", [[0, 2], [1]], ids=str)
def test_a_class_without_rows_has_probability_0(kind, present):
    rows = texts(120)
    y = np.array(present)[labels(rows, len(present))]
    member = fit_ngrams(kind, rows, y, n_classes=3, X=features(rows))
    probs = graph_probs(member, rows, features(rows))
    np.testing.assert_allclose(probs, member.predict(rows, features(rows)), rtol=0, atol=1e-5)
    np.testing.assert_allclose(probs.sum(axis=1), 1, atol=1e-5)
    assert probs[:, sorted({0, 1, 2} - set(present))].max() < 1e-6


@pytest.mark.parametrize(
    "kind", [k if "boosting" not in k else pytest.param(k, marks=pytest.mark.slow) for k in CHARACTER_KINDS]
)
def test_a_planted_signal_is_found_and_shuffled_labels_are_not(kind):
    rows, other = texts(400), texts(400, seed=5)
    fitted = [fit_ngrams(kind, rows, labels(rows), 2, X=features(rows), threads=n) for n in (1, 2)]
    one, two = (member.predict(other, features(other)) for member in fitted)
    np.testing.assert_array_equal(one, two)
    assert roc_auc_score(labels(other), one[:, 1]) > 0.8
    aucs = []
    for seed in range(2):
        y = np.random.default_rng(seed).permutation(labels(rows))
        null = fit_ngrams(kind, rows, y, 2, X=features(rows)).predict(other, features(other))
        aucs.append(roc_auc_score(labels(other), null[:, 1]))
    assert abs(np.mean(aucs) - 0.5) < 0.15


def test_boosting_on_n_grams_alone():
    rows = texts(200)
    member = fit_ngrams("boosting on n-grams", rows, labels(rows), 2)
    np.testing.assert_allclose(
        graph_probs(member, rows), member.predict(rows, np.zeros((200, 0))), rtol=0, atol=1e-5
    )


def test_errors_say_what_is_wrong():
    with pytest.raises(ValueError, match="no n-grams 'words'"):
        fit_ngrams("words", ["a"], np.array([0]), 2)
    with pytest.raises(ValueError, match="no n-gram of 2 to 5 is in 3 of 4 rows"):
        fit_ngrams("long character n-grams", ["ab", "cd", "ef", "gh"], np.array([0, 1, 0, 1]), 2)
    with pytest.raises(ValueError, match="from 0 to 1"):
        fit_ngrams("character n-grams", ["a", "b"], np.array([0, 2]), 2)


def test_encoding_needs_no_scikit_learn_and_no_onnx(run_fresh):
    code = "import sys; from n3r.ngrams import code_points; code_points(['a']); print(*sys.modules)"
    assert {"sklearn", "onnx", "torch"} & set(run_fresh(code).split()) == set()
