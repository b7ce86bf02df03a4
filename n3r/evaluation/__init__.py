"""What a model's scores are worth: the evaluation of one model, and its parts."""

from n3r.evaluation.evaluate import EvaluationConfig, evaluate_model
