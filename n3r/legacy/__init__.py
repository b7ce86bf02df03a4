"""The legacy trainer, its artefact names and its layouts."""

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
    to_n3r,
    train_legacy,
)
