"""JSON in and out: what it cannot hold, and messages that name keys without values."""

import json

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from n3r.files.json_io import explain, key_values, near, plain, read_json, read_model, write_json


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")
    epochs: int = Field(1, ge=1)
    name: str = ""


def test_what_is_written_is_read(tmp_path):
    content = {"text": "Zoë\u2028", "numbers": [1, 2.5, None], "deep": {"yes": True}}
    write_json(tmp_path / "a.json", content)
    assert read_json(tmp_path / "a.json") == content
    with pytest.raises(ValueError):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert read_json(tmp_path / "a.json") == content  # the file of before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "cannot be read as JSON"),
        (b"\xff", "cannot be read as JSON"),
        (b"[" * 100_000, "too many brackets"),
    ],
)
def test_a_file_that_is_no_json_is_named(tmp_path, content, message):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match=f"a.json .*{message}|a.json {message}"):
        read_json(tmp_path / "a.json")


def test_a_file_that_is_missing_a_folder_or_too_large_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="b.json does not exist"):
        read_json(tmp_path / "b.json")
    with pytest.raises(ValueError, match="it is not a file"):
        read_json(tmp_path)
    write_json(tmp_path / "a.json", [1, 2, 3])
    with pytest.raises(ValueError, match="it has more than 5 bytes"):
        read_json(tmp_path / "a.json", max_bytes=5)


def test_a_model_tells_every_key_at_fault_and_no_value(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"epoch": 3, "epochs": 0, "name": ["Mary Smith"]}))
    with pytest.raises(ValueError) as error:
        read_model(tmp_path / "a.json", Settings)
    told = str(error.value)
    assert "unknown key 'epoch' (did you mean 'epochs'?)" in told and "key 'epochs'" in told
    assert "key 'name'" in told and "Mary" not in told
    (tmp_path / "b.json").write_text(json.dumps({"epochs": 3}))
    assert read_model(tmp_path / "b.json", Settings, {"name": "x"}) == Settings(epochs=3, name="x")


def test_of_many_problems_the_first_ten_are_told():
    with pytest.raises(ValidationError) as error:
        Settings(**{f"key_{i}": 0 for i in range(13)})
    assert explain(error.value, Settings.model_fields).endswith("; and 3 more")


def test_plain_is_what_json_can_hold(tmp_path):
    content = plain({"pair": (1, 2), "nan": float("nan"), "inf": float("inf"), "path": tmp_path})
    assert content == {"pair": [1, 2], "nan": None, "inf": None, "path": str(tmp_path)}


def test_keys_and_values():
    assert key_values(["a=1", "b=x=y"]) == {"a": "1", "b": "x=y"}
    with pytest.raises(ValueError, match="expected KEY=VALUE, found c, d"):
        key_values(["a=1", "c", "d"])


def test_a_near_name_is_asked_for():
    assert near("Epocs", ["epochs", "name"]) == " (did you mean 'epochs'?)"
    assert near("zzz", ["epochs"]) == ""
