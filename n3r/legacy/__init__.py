"""The legacy trainer, its weights, its artefact names and its layouts."""

from n3r.legacy.models import (
    LegacyLSTM2Risk,
    LegacyLSTMConfig,
    LegacyTransformer2Risk,
    LegacyTransformerConfig,
)
from n3r.legacy.trainer import (
    LegacyTextDataset,
    LegacyTokenizer,
    legacy_lstm_collate,
    legacy_tabular,
    legacy_transformer_collate,
    predict_legacy,
    train_legacy,
)
from n3r.legacy.weights import to_n3r
