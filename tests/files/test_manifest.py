"""A bundle is refused, file by file and with what to do, when it is not what was written."""

import json
import shutil

import pytest

from n3r.files.manifest import FILES, FORMAT, MANIFEST, OPTIONAL, verify, versions, write_manifest, written_by


@pytest.fixture
def folder(tmp_path):
    """A folder with the files of a bundle; what is in them does not matter here."""
    bundle = tmp_path / "model"
    bundle.mkdir()
    for name in FILES:
        (bundle / name).write_text(f"the content of {name}")
    write_manifest(bundle)
    return bundle


def edit(folder, **changes):
    path = folder / MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_whole_bundle_gives_the_versions_that_wrote_it(folder):
    assert verify(folder) == versions()
    assert {"n3r", "onnxruntime", "tokenizers", "torch"} <= set(versions())


@pytest.mark.parametrize("name", FILES)
def test_missing_truncated_and_altered_files_are_named(folder, name):
    content = (folder / name).read_bytes()
    for changed, problem in (
        (content[:-1], rf"{name} is truncated \({len(content) - 1} of {len(content)} bytes\)"),
        (content[:-1] + b"?", f"{name} was altered"),
        (content + b"?", f"{name} was altered"),
    ):
        (folder / name).write_bytes(changed)
        with pytest.raises(ValueError, match=problem):
            verify(folder)
    (folder / name).unlink()
    with pytest.raises(ValueError, match=f"{name} is missing"):
        verify(folder)


def test_all_problems_are_named_at_once(folder):
    (folder / "model.onnx").unlink()
    (folder / "config.json").write_text("")
    (folder / "extra.pkl").write_bytes(b"")
    with pytest.raises(
        ValueError, match=r"model.onnx is missing; extra.pkl is foreign; config.json is trunc"
    ):
        verify(folder)


def test_links_folders_and_unlisted_files_are_foreign(folder, tmp_path):
    content = (folder / "vocab.json").read_text()
    (tmp_path / "elsewhere.json").write_text(content)
    (folder / "vocab.json").unlink()
    (folder / "vocab.json").symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(ValueError, match="vocab.json is foreign"):
        verify(folder)
    (folder / "vocab.json").unlink()
    (folder / "vocab.json").mkdir()
    with pytest.raises(ValueError, match="vocab.json is not a file"):
        verify(folder)
    shutil.rmtree(folder / "vocab.json")
    (folder / "vocab.json").write_text(content)
    (folder / OPTIONAL[0]).write_text("a known name that the manifest does not list")
    with pytest.raises(ValueError, match=f"{OPTIONAL[0]} is foreign"):
        verify(folder)


def test_optional_files_are_listed_like_the_others(folder):
    (folder / OPTIONAL[0]).write_text("8 bits")
    write_manifest_again(folder)
    assert verify(folder)
    (folder / OPTIONAL[0]).unlink()
    with pytest.raises(ValueError, match=f"{OPTIONAL[0]} is missing"):
        verify(folder)


def write_manifest_again(folder):
    (folder / MANIFEST).unlink()
    write_manifest(folder)


@pytest.mark.parametrize("name", ["../../secret", "/etc/hosts", "sub/model.onnx", "model.pkl"])
def test_a_manifest_that_names_other_files_is_refused(folder, name):
    files = json.loads((folder / MANIFEST).read_text())["files"]
    edit(folder, files={**files, name: {"bytes": 1, "sha256": "0" * 64}})
    with pytest.raises(ValueError, match=f"{MANIFEST} was altered"):
        verify(folder)


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{", f'{{"format": {FORMAT}}}', f'{{"format": {FORMAT}, "files": {{"vocab.json": 3}}}}'],
)
def test_a_damaged_manifest_is_named(folder, content):
    (folder / MANIFEST).write_text(content)
    with pytest.raises(ValueError, match=MANIFEST):
        verify(folder)


def test_no_manifest_is_no_bundle(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"MANIFEST\.json: train it first"):
        verify(tmp_path)
    with pytest.raises(FileNotFoundError, match="train it first"):
        verify(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("written", "advice"),
    [(FORMAT + 1, "install that n3r"), (FORMAT - 1, "train the model again"), ("x", "train the model again")],
)
def test_another_format_is_refused_with_what_to_do(folder, written, advice):
    edit(folder, format=written, versions={"n3r": "9.8.7"})
    with pytest.raises(ValueError, match=rf"format {written!r} of n3r 9\.8\.7.*{advice}"):
        verify(folder)


def test_a_library_that_cannot_read_a_file_is_named_with_both_versions(tmp_path):
    message = r"model.onnx cannot be read \(opset 99\): it was written with onnxruntime 99.1 and this is 1\."
    with (
        pytest.raises(ValueError, match=message),
        written_by(tmp_path / "model.onnx", "onnxruntime", {"onnxruntime": "99.1"}),
    ):
        raise RuntimeError("opset 99\nand more")
