"""A threshold keeps to the rate, budget or costs that it was chosen for."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from n3r.thresholds import MAX_POINTS, Ranking, RankingState, Rule, orders_a_day


def rows(n: int = 400, seed: int = 0, digits: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Whether rows are frauds, and scores with ties."""
    rng = np.random.default_rng(seed)
    is_fraud = rng.random(n) < 0.3
    return is_fraud, np.round((rng.random(n) + is_fraud).clip(0, 2) / 2, digits)


@pytest.mark.parametrize(
    ("given", "threshold", "n_flagged"),
    [
        ({"fpr": 0.05}, 0.85, 2),  # one of 20 legitimate rows may be flagged, and 0.8 would flag two
        ({"fpr": 0.1}, 0.3, 21),  # the 17 below cost no alarm
        ({"fpr": 0.01}, None, 0),
        ({"budget": "10%"}, 0.65, 4),
        ({"budget": "4/day"}, 0.65, 4),
        ({"budget": "400/day"}, 0.05, 40),
        ({"cost_missed": 100, "cost_alarm": 1}, 0.05, 40),
        ({"cost_missed": 1, "cost_alarm": 100}, None, 0),
        ({"threshold": 0.8}, 0.8, 4),
    ],
)
def test_worked_example(given, threshold, n_flagged):
    """Scores from the top, (frauds, legitimate): 0.9 (1, 1), 0.8 (1, 1), 0.5 (17, 0), 0.1 (1, 18)."""
    groups = [(0.9, 1, 1), (0.8, 1, 1), (0.5, 17, 0), (0.1, 1, 18)]
    score = np.array([s for s, frauds, others in groups for _ in range(frauds + others)])
    is_fraud = np.array([i < frauds for _, frauds, others in groups for i in range(frauds + others)])
    decision = Ranking.of(is_fraud, score).decide(Rule.of(**given), per_day=40)
    assert decision.threshold == (None if threshold is None else pytest.approx(threshold))
    assert decision.flags(score).sum() == n_flagged


@given(st.integers(0, 10_000), st.floats(0.001, 0.999), st.integers(1, 6))
def test_of_all_thresholds_the_one_that_flags_most_within_the_rate(seed, rate, digits):
    is_fraud, score = rows(seed=seed, digits=digits)
    ranking = Ranking.of(is_fraud, score)
    for rule, share in (
        (Rule(fpr=rate), lambda flagged: (flagged & ~is_fraud).sum() / (~is_fraud).sum()),
        (Rule(budget=f"{100 * rate:.6f}%"), lambda flagged: flagged.mean()),
    ):
        decision = ranking.decide(rule)
        allowed = [value for value in np.unique(score) if share(score >= value) <= rate + 1e-8]
        most = score >= min(allowed) if allowed else np.zeros(len(score), bool)
        assert (decision.flags(score) == most).all()
        assert share(decision.flags(score + 1e-9)) <= rate + 1e-8  # jitter moves no row
        if decision.threshold is not None:
            assert decision.recall == pytest.approx((most & is_fraud).sum() / is_fraud.sum())


@given(st.integers(0, 10_000), st.floats(0.01, 100))
def test_no_threshold_costs_less(seed, missed):
    is_fraud, score = rows(seed=seed)
    decision = Ranking.of(is_fraud, score).decide(Rule(cost_missed=missed, cost_alarm=1))
    cost = lambda flagged: missed * (is_fraud & ~flagged).sum() + (flagged & ~is_fraud).sum()  # noqa: E731
    least = min(cost(score >= value) for value in [*np.unique(score), 2])
    assert cost(decision.flags(score)) == pytest.approx(least)


def test_where_amounts_are_known_a_missed_fraud_costs_by_its_own():
    """Ten frauds of 900, 10 and 10 at the scores 0.9, 0.6 and 0.3, ten legitimate rows at each."""
    score = np.repeat([0.9, 0.6, 0.3], 20)
    is_fraud = np.tile([True, False], 30)
    ranking = Ranking.of(is_fraud, score, np.repeat([900.0, 10.0, 10.0], 20))
    rule = Rule(cost_missed=0.5, cost_alarm=6)  # a fraud of 10 is not worth an alarm, by number all would be
    decision = ranking.decide(rule)
    assert decision.threshold == pytest.approx(0.75) and decision.recall == pytest.approx(1 / 3)
    assert decision.recall_amount == pytest.approx(900 / 920) and "(97.8% of their amount)" in str(decision)
    of_numbers = Ranking.of(is_fraud, score)
    assert of_numbers.decide(Rule(cost_missed=6.1, cost_alarm=6)).threshold == pytest.approx(0.15)
    assert (
        of_numbers.decide(rule).threshold is None and of_numbers.decide(Rule(fpr=0.4)).recall_amount is None
    )
    kept = json.loads(json.dumps(ranking.to_dict()))
    assert Ranking.from_state(RankingState.model_validate(kept, strict=True)).decide(rule) == decision
    assert "amount" not in of_numbers.to_dict()


def test_of_many_rows_a_thousand_thresholds_are_kept_and_the_highest_are_all_there():
    is_fraud, score = rows(100_000, digits=12)
    whole = Ranking.of(is_fraud, score)
    assert len(whole.threshold) <= MAX_POINTS
    assert whole.flagged[:20].tolist() == list(range(1, 21)) and whole.flagged[-1] == whole.n
    assert whole.decide(Rule(fpr=0.01)).fpr == pytest.approx(0.01, rel=0.05)
    again = Ranking.from_state(
        RankingState.model_validate(json.loads(json.dumps(whole.to_dict())), strict=True)
    )
    assert again.decide(Rule(fpr=0.01)) == whole.decide(Rule(fpr=0.01))


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({}, "give one of fpr, budget"),
        ({"fpr": 0.1, "threshold": 0.5}, "give one of"),
        ({"fpr": 0}, "fpr"),
        ({"fpr": 1.0}, "fpr"),
        ({"fpr": float("nan")}, "fpr"),
        ({"threshold": 1.5}, "threshold"),
        ({"cost_missed": 5}, "cost_missed and cost_alarm belong together"),
        ({"cost_missed": -1, "cost_alarm": 1}, "cost_missed"),
        ({"budget": "50"}, "50/day or 2%"),
        ({"budget": "0/day"}, "more than nothing"),
        ({"budget": "101%"}, "at most 100%"),
        ({"budget": "many"}, "50/day or 2%"),
        ({"costs": 1}, "costs"),
    ],
)
def test_a_rule_is_one_way_to_flag(given, why):
    with pytest.raises(ValueError, match=why) as error:
        Rule.of(**given)
    assert "\n" not in str(error.value)


def test_too_few_rows_and_a_budget_without_times_are_refused():
    is_fraud, score = rows()
    with pytest.raises(ValueError, match="hold 9 frauds"):
        Ranking.of(np.arange(400) < 9, score).decide(Rule(fpr=0.1))
    with pytest.raises(ValueError, match="no time column: give a share"):
        Ranking.of(is_fraud, score).decide(Rule(budget="50/day"))
    assert Ranking.of(np.arange(400) < 9, score).decide(Rule(threshold=0.3)).threshold == 0.3


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"threshold": [0.1, 0.5]}, "falling"),
        ({"flagged": [5, 4]}, "rising"),
        ({"caught": [3, 1]}, "rising"),
        ({"caught": [1]}, "as many"),
        ({"n": 3}, "more rows"),
        ({"n_frauds": -1}, "n_frauds"),
        ({"amount": [1.0, 5.0]}, "belong together"),
        ({"amount": [5.0, 1.0], "total": 9.0}, "rising"),
        ({"amount": [-1.0, 1.0], "total": 9.0}, "rising"),
        ({"amount": [1.0], "total": 9.0}, "as many"),
        ({"amount": [1.0, 5.0], "total": 4.0}, "larger amount"),
    ],
)
def test_a_ranking_that_is_none_is_refused(change, why):
    state = {"threshold": [0.5, 0.1], "flagged": [2, 5], "caught": [1, 3], "n": 5, "n_frauds": 3}
    assert RankingState.model_validate(state)
    with pytest.raises(ValueError, match=why):
        RankingState.model_validate(state | change)


def test_orders_a_day_are_those_of_all_splits_over_all_their_days():
    splits = {
        "train": {"rows": 700, "from": "2025-01-01 00:00:00", "to": "2025-01-08 00:00:00"},
        "val": {"rows": 100, "from": "2025-01-08 00:00:00", "to": "2025-01-09 00:00:00"},
        "test": {"rows": 0},
    }
    assert orders_a_day(splits) == 100
    assert orders_a_day({"train": {"rows": 10}}) is None and orders_a_day({}) is None
    one = splits["train"]
    strange = ["x", [one], {"train": 3}, {"train": one | {"rows": "many"}}, {"train": one | {"to": "soon"}}]
    strange += [{"train": one | {"to": None}}, {"train": one | {"to": "2025-01-08T00:00:00+01:00"}}]
    assert [orders_a_day(content) for content in strange] == [None] * 7
