"""What a blend is asked for: which members are tried, how they are judged, and how long that may take."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from n3r.bert import n_places
from n3r.blend.members import MEMBERS, NETWORKS, PRETRAINED
from n3r.files.pretrained import architecture
from n3r.identity.selection import Choice
from n3r.model import ModelConfig
from n3r.tokenizer import BertTokenizer, Reader, TextConfig
from n3r.train import TrainConfig

DEFAULT = (
    "slow boosting",
    "random forest",
    "character n-grams",
    "token n-grams",
    "boosting on n-grams",
    "lstm2risk",
)


class BlendConfig(BaseModel):
    """Which members are tried, how they are judged, and how long that may take."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    members: list[str] = Field(list(DEFAULT), min_length=1)
    networks: dict[str, dict[str, Any]] = {}  # model class -> its dimensions and training, by name
    identity: Choice = "auto"  # whether the features of identity strings are read; auto: unless they hurt
    n_folds: int = Field(5, ge=1, le=20)  # of rows that are not split by time; 1: few are held out, once
    budget: float | None = Field(None, gt=0)  # seconds; members that would exceed it are left out
    seed: int = Field(0, ge=0)
    pretrained: str | None = None  # folder or hub name of a BERT to fine-tune, or "minilm"
    max_tokens: int = Field(256, ge=8)  # of a text that the pretrained BERT reads

    @property
    def tried(self) -> list[str]:
        """The members; with a pretrained model one that reads it, whether or not it is among them."""
        alone = self.pretrained is not None and not set(self.members) & set(PRETRAINED)
        return [*self.members, "bert"] if alone else self.members

    def check(self) -> None:
        """Raise ValueError for what no member reads."""
        if unknown := [name for name in self.members if name not in MEMBERS]:
            raise ValueError(f"there are no members {unknown}, only {', '.join(MEMBERS)}")
        if self.pretrained is None and (found := [name for name in self.members if name in PRETRAINED]):
            raise ValueError(
                f"{', '.join(found)} among the members: give `pretrained`, a model to fine-tune, such as "
                "minilm, which `make bert` installs"
            )
        known = {*ModelConfig.model_fields, *TrainConfig.model_fields} - {"pretrained", "embeddings"}
        for name, given in self.networks.items():
            if name not in NETWORKS:
                raise ValueError(
                    f"there is no network {name!r} among the members, only {', '.join(NETWORKS)}"
                )
            if foreign := [key for key in given if key not in known]:
                raise ValueError(f"networks: {name} has no {', '.join(foreign)}")

    def others(self) -> dict[str, Reader]:
        """How the pretrained model reads texts, where one is named; ValueError where it is not there."""
        if self.pretrained is None:
            return {}
        longest = min(self.max_tokens, n_places(architecture(self.pretrained)))
        tokenizer = BertTokenizer.from_pretrained(self.pretrained)
        return {"pretrained": Reader(tokenizer, TextConfig(max_tokens=longest))}
