import http.server
import json
import threading

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from n3r.custom_transformer.corpus import (
    END,
    byte_pair_tokenizer,
    find_documents,
    load_tokenizer,
    read_documents,
    windows,
)

TEXTS = ["Ana Silva", "Bo Li", "Chidi Anagonye", "Dora Maar", "Ewa Nowak", "田中 太郎", "Fay Wray"] * 4
TOKENIZER = byte_pair_tokenizer(TEXTS, 300)


@given(st.text())
def test_any_text_becomes_tokens_and_back(text):
    assert TOKENIZER.decode(TOKENIZER.encode(text).ids) == text


def test_a_typed_end_is_text():
    ids = TOKENIZER.encode(f"a{END}b").ids
    assert TOKENIZER.token_to_id(END) not in ids
    assert TOKENIZER.decode(ids) == f"a{END}b"


def test_a_saved_tokenizer_is_the_same(tmp_path):
    TOKENIZER.save(str(tmp_path / "tokenizer.json"))
    for place in (tmp_path, tmp_path / "tokenizer.json"):
        again = load_tokenizer(str(place))
        assert again.encode("Ana Nowak").ids == TOKENIZER.encode("Ana Nowak").ids
        assert again.token_to_id(END) not in again.encode(END).ids


@given(
    documents=st.lists(st.text(max_size=30), min_size=1, max_size=8),
    longest=st.integers(2, 12),
    packed=st.booleans(),
    batch_size=st.integers(1, 5),
)
def test_every_token_is_predicted_once_after_those_before_it(documents, longest, packed, batch_size):
    found = windows(documents, TOKENIZER, longest, packed)
    end = TOKENIZER.token_to_id(END)
    sequences = [[end, *TOKENIZER.encode(text).ids, end] for text in documents]
    if packed:
        sequences = [[end, *(token for ids in sequences for token in ids[1:])]]
    expected = [tuple(ids[: i + 1]) for ids in sequences for i in range(1, len(ids))]
    seen = []
    for rows in found.batches(batch_size):
        ids, labels = found.batch(rows)
        assert ids.shape[1] <= longest
        for row, own, wanted in zip(rows, ids, labels, strict=True):
            document = sequences[found.document[row]]
            before = found.start[row] - (0 if packed else sum(map(len, sequences[: found.document[row]])))
            for i, label in enumerate(wanted):
                if i and label != -100:
                    assert own[i] == label
                    seen.append(tuple(document[: before + i + 1]))
    assert sorted(seen) == sorted(expected)
    assert found.n_predicted == len(expected)
    assert found.n_characters == sum(len(text) + 1 for text in documents)


def test_the_order_of_batches_is_that_of_seed_and_epoch():
    found = windows(TEXTS, TOKENIZER, 8, False)
    orders = [list(found.batches(4, seed, epoch)) for seed, epoch in ((0, 0), (0, 0), (0, 1), (1, 0))]
    assert orders[0] == orders[1] and orders[0] != orders[2] and orders[0] != orders[3]
    assert sorted(i for rows in orders[0] for i in rows) == list(range(len(found)))


@pytest.mark.parametrize(("unit", "n"), [("lines", 4), ("paragraphs", 2), ("files", 1)])
def test_documents_of_a_text_file(unit, n, tmp_path):
    (tmp_path / "a.txt").write_text("one\ntwo\n\nthree\nfour\n\n  \n", encoding="utf-8")
    found = find_documents(str(tmp_path / "a.txt"), "", unit)
    assert list(found) == ["train"] and len(found["train"]) == n


def test_tables_of_every_kind_give_their_column(tmp_path):
    frame = pl.DataFrame({"name": [*TEXTS, None, " "], "n": range(len(TEXTS) + 2)})
    frame.write_csv(tmp_path / "a.csv")
    frame.write_parquet(tmp_path / "a.parquet")
    frame.write_ndjson(tmp_path / "a.jsonl")
    for suffix in ("csv", "parquet", "jsonl"):
        assert find_documents(str(tmp_path / f"a.{suffix}"), "name") == {"train": TEXTS}
        assert find_documents(str(tmp_path / f"a.{suffix}"), "name", limit=3) == {"train": TEXTS[:3]}


def test_files_that_are_called_test_stay_the_test_set(tmp_path):
    (tmp_path / "data").mkdir()
    pl.DataFrame({"t": TEXTS}).write_parquet(tmp_path / "data" / "train-00000.parquet")
    pl.DataFrame({"t": ["only here"]}).write_parquet(tmp_path / "data" / "test-00000.parquet")
    (tmp_path / "README.md").write_text("not data")
    found = read_documents(str(tmp_path), "t")
    assert found["test"] == ["only here"]
    assert sorted(found["train"] + found["val"]) == sorted(TEXTS)


def test_random_splits_share_nothing_and_are_the_seeds(tmp_path):
    texts = [f"name {i}" for i in range(100)]
    (tmp_path / "a.txt").write_text("\n".join(texts))
    one, again, other = (
        read_documents(str(tmp_path / "a.txt"), "", "lines", held_out=0.2, seed=seed) for seed in (0, 0, 1)
    )
    assert {name: len(part) for name, part in one.items()} == {"train": 60, "val": 20, "test": 20}
    assert sorted(sum(one.values(), [])) == sorted(texts)
    assert one == again and one != other


def test_synthetic_orders_need_no_file():
    found = read_documents("synthetic", "customerName", limit=200)
    assert sum(map(len, found.values())) <= 200 and len(found["test"]) > 10
    with pytest.raises(ValueError, match="no column 'name'; it has"):
        read_documents("synthetic", "name", limit=200)


def test_what_cannot_be_read_is_named_and_not_repeated(tmp_path):
    pl.DataFrame({"n": [1, 2]}).write_parquet(tmp_path / "n.parquet")
    (tmp_path / "latin.txt").write_bytes("Zoë Müller".encode("latin-1"))
    (tmp_path / "bad.parquet").write_bytes(b"Zoe Mueller")
    (tmp_path / "bad.jsonl").write_text('{"n": "Zoe Mueller"')
    (tmp_path / "empty").mkdir()
    cases = {
        "n.parquet": "the column 'n' of .* holds Int64, not text",
        "latin.txt": "not a text in UTF-8",
        "bad.parquet": "cannot be read as parquet",
        "bad.jsonl": "row 1: is not JSON",
        "empty": "holds no file ending in",
        "missing.txt": "no file or folder",
    }
    for name, message in cases.items():
        with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
            read_documents(str(tmp_path / name), "n")
        assert "Zo" not in str(caught.value)
    (tmp_path / "few.txt").write_text("a\nb\n")
    with pytest.raises(ValueError, match="2 documents to train on and to split are too few; 10"):
        read_documents(str(tmp_path / "few.txt"), "", "lines")
    (tmp_path / "blank.txt").write_text("\n\n")
    with pytest.raises(ValueError, match="holds no documents"):
        read_documents(str(tmp_path / "blank.txt"), "")


def test_tokenizers_that_cannot_be_used(tmp_path):
    with pytest.raises(ValueError, match="vocab_size 256"):
        byte_pair_tokenizer(TEXTS, 256)
    with pytest.raises(FileNotFoundError, match="no tokenizer .*give a tokenizer.json, 'gpt2', or 'bpe'"):
        load_tokenizer(str(tmp_path / "t.json"))
    (tmp_path / "t.json").write_text("{}")
    with pytest.raises(ValueError, match="is not a tokenizer file"):
        load_tokenizer(str(tmp_path / "t.json"))
    from tokenizers import Tokenizer, models

    Tokenizer(models.BPE()).save(str(tmp_path / "t.json"))
    with pytest.raises(ValueError, match=f"has no token {END}".replace("|", r"\|")):
        load_tokenizer(str(tmp_path / "t.json"))


UNREACHABLE = """
import sys
from n3r.custom_transformer.corpus import load_tokenizer, read_documents
for call in (lambda: read_documents("nampdn-ai/tiny-textbooks", "textbook"), lambda: load_tokenizer("gpt2")):
    try:
        call()
    except FileNotFoundError as error:
        print(error)
"""


def test_a_hub_out_of_reach_says_how_to_do_without(run_fresh, tmp_path):
    out = run_fresh(UNREACHABLE, HF_ENDPOINT="http://127.0.0.1:9", HF_HOME=str(tmp_path)).splitlines()
    assert out[0].startswith("the hub gave no dataset nampdn-ai/tiny-textbooks (")
    assert out[0].endswith("no file or folder nampdn-ai/tiny-textbooks: give `data` the path of one")
    assert out[1].startswith("the hub gave no model openai-community/gpt2 (")
    assert out[1].endswith("give `tokenizer` the path of a tokenizer.json, or 'bpe' to train one")


class Hub(http.server.BaseHTTPRequestHandler):
    """The part of the hub's protocol that a download of a few files takes."""

    files: dict[str, bytes] = {}
    commit = "a" * 40

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        path = self.path.partition("?")[0]
        name = path.rpartition(f"/{self.commit}/")[2].rpartition("/resolve/main/")[2]
        headers = {"X-Repo-Commit": self.commit}
        if path.startswith("/api/"):
            siblings = [{"rfilename": name} for name in self.files]
            content = json.dumps({"id": "a/b", "sha": self.commit, "siblings": siblings})
            if "/tree/" in path:
                entries = [
                    {"type": "file", "path": n, "size": len(c), "oid": "0" * 40}
                    for n, c in self.files.items()
                ]
                content = json.dumps(entries)
            content = content.encode()
            headers["Content-Type"] = "application/json"
        elif name in self.files:
            content = self.files[name]
            headers["ETag"] = f'"{len(content):040d}"'
        else:
            self.send_error(404)
            return
        self.send_response(200)
        for key, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.wfile.write(content)


def test_a_data_set_and_a_tokenizer_from_a_hub(run_fresh, tmp_path):
    pl.DataFrame({"textbook": TEXTS}).write_parquet(tmp_path / "train.parquet")
    pl.DataFrame({"textbook": ["held out"]}).write_parquet(tmp_path / "test.parquet")
    TOKENIZER.save(str(tmp_path / "tokenizer.json"))
    Hub.files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    code = (
        "from n3r.custom_transformer.corpus import load_tokenizer, read_documents; "
        "found = read_documents('nampdn-ai/tiny-textbooks', 'textbook', limit=20); "
        "print({name: len(part) for name, part in found.items()}, load_tokenizer('gpt2').get_vocab_size())"
    )
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        place = {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": str(tmp_path / "cache")}
        online = run_fresh(code, **place)
        server.shutdown()
    assert online.split("\n")[0] == "{'train': 18, 'val': 2, 'test': 1} 300"
    offline = run_fresh(code, **{**place, "HF_ENDPOINT": "http://127.0.0.1:9"})
    assert offline == online  # from the cache


def test_windows_of_one_long_text_are_many():
    found = windows(["x" * 5000], TOKENIZER, 16, True)
    assert set(np.unique(found.length)[1:]) <= {16} and len(found) > 100
