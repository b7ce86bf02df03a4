"""A transformer with hand-written backward passes, and a language model made of it."""

from n3r.custom_transformer.model import (
    CustomTransformer,
    CustomTransformerConfig,
    CustomTransformerWrapper,
    check_gradients,
)
