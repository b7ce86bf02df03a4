"""The legacy trainer, its weights, its artefact names and its layouts."""

from n3r.legacy.trainer import (
    LegacyLSTM2Risk,
    LegacyLSTMConfig,
    LegacyTextDataset,
    LegacyTokenizer,
    LegacyTransformer2Risk,
    LegacyTransformerConfig,
    legacy_lstm_collate,
    legacy_tabular,
    legacy_transformer_collate,
    predict_legacy,
    train_legacy,
)
from n3r.legacy.weights import to_n3r
