"""Artifacts are verified before use, and never a way to run code; tests/test_atomic.py has all or nothing."""

import json
import os
import subprocess
import sys
import textwrap
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file
from toy_artifact import neighbours, save, word_of

from llmrec.errors import ArtifactError
from llmrec.storage import artifacts
from llmrec.storage.artifacts import (
    expect_fingerprint,
    fingerprint_arrays,
    fingerprint_bytes,
    read_manifest,
    write_artifact,
)


def test_round_trip(tmp_path):
    save(tmp_path / "model", "one")
    manifest = read_manifest(tmp_path / "model", "toy")
    assert manifest.kind == "toy" and manifest.fingerprints == {"catalog": "ab" * 32}
    assert set(manifest.files) == {"a.json", "nested/b.txt"}
    assert manifest.files["nested/b.txt"][1] == 3
    assert manifest.versions["numpy"] == np.__version__
    save(tmp_path / "model", "two")
    assert word_of(tmp_path / "model") == "two"
    assert neighbours(tmp_path / "model") == []


def test_an_artifact_inside_an_artifact(tmp_path):
    with write_artifact(tmp_path / "model", "outer") as directory:
        save(directory / "part", "one")
    assert "part/manifest.json" in read_manifest(tmp_path / "model", "outer").files
    assert word_of(tmp_path / "model" / "part") == "one"


def test_what_is_not_ours_is_not_replaced(tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("years of work")
    with pytest.raises(ArtifactError, match=r"holds files but no manifest\.json"):
        save(tmp_path / "home", "one")
    assert (tmp_path / "home" / "thesis.txt").exists()
    (tmp_path / "file").write_text("x")
    with pytest.raises(ArtifactError, match="is a file"):
        save(tmp_path / "file", "one")


@pytest.mark.parametrize(
    "manifest", ['{"name": "My page", "icons": []}', "[]", "not JSON", '{"kind": "toy", "files": 3}']
)
def test_a_directory_with_somebody_elses_manifest_is_not_replaced(tmp_path, manifest):
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.txt").write_text("years of work")
    (home / "manifest.json").write_text(manifest)
    with pytest.raises(ArtifactError, match=r"has a manifest\.json that llmrec did not write; it is not replaced"):
        save(home, "one")
    assert (home / "thesis.txt").read_text() == "years of work"


def test_an_artifact_of_another_kind_and_one_with_more_in_it_are_not_replaced(tmp_path):
    save(tmp_path / "model", "one")
    with pytest.raises(ArtifactError, match="kind 'toy', not 'data'"), write_artifact(tmp_path / "model", "data"):
        pass
    (tmp_path / "model" / "raw").mkdir()
    (tmp_path / "model" / "raw" / "NOTES.md").write_text("mine")
    with pytest.raises(ArtifactError, match=r"'raw/NOTES\.md', which its manifest\.json does not list"):
        save(tmp_path / "model", "two")
    assert (tmp_path / "model" / "raw" / "NOTES.md").read_text() == "mine"
    with write_artifact(tmp_path / "model", "data", own_place=True) as directory:  # a cache may clear its own place
        (directory / "b.txt").write_text("new")
    assert read_manifest(tmp_path / "model", "data").files.keys() == {"b.txt"}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_one_flipped_byte_is_refused(tmp_path, data):
    path = tmp_path / "model"
    if not path.exists():
        save(path, "one")
    name = data.draw(st.sampled_from(["a.json", "nested/b.txt", "manifest.json"]))
    good = (path / name).read_bytes()
    place = data.draw(st.integers(0, len(good) - 1))
    bad = bytearray(good)
    bad[place] ^= 1 << data.draw(st.integers(0, 7))
    before = read_manifest(path, "toy")
    try:
        (path / name).write_bytes(bad)
        if name == "manifest.json":
            with suppress(ArtifactError):  # white space may change, the meaning may not
                assert read_manifest(path, "toy") == before
        else:
            with pytest.raises(ArtifactError) as error:
                read_manifest(path, "toy")
            assert name in str(error.value) and before.files[name][0] in str(error.value)
            assert artifacts.sha256_file(path / name) in str(error.value)
    finally:
        (path / name).write_bytes(good)


def test_missing_extra_and_resized_files(tmp_path):
    path = tmp_path / "model"
    save(path, "one")
    (path / "extra.json").write_text("{}")
    with pytest.raises(ArtifactError, match=r"'extra\.json' is not listed"):
        read_manifest(path, "toy", verify=False)
    (path / "extra.json").unlink()
    (path / "a.json").write_text('"longer"')
    with pytest.raises(ArtifactError, match=r"'a\.json' has 8 bytes"):
        read_manifest(path, "toy", verify=False)
    (path / "a.json").unlink()
    with pytest.raises(ArtifactError, match=r"'a\.json' is listed .* but missing"):
        read_manifest(path, "toy")


def test_other_kinds_formats_and_places(tmp_path):
    save(tmp_path / "model", "one")
    with pytest.raises(ArtifactError, match="kind 'toy'; one of kind 'data'"):
        read_manifest(tmp_path / "model", "data")
    with pytest.raises(ArtifactError, match="does not exist"):
        read_manifest(tmp_path / "nowhere", "toy")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArtifactError, match=r"no manifest\.json"):
        read_manifest(tmp_path / "empty", "toy")
    manifest = tmp_path / "model" / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"format": 99}))
    with pytest.raises(ArtifactError, match="format 99 is unknown"):
        read_manifest(tmp_path / "model", "toy")
    for junk in ["", "[]", "{", "null", "[" * 100_000, '{"format": 1}', '{"format": 1, "kind": "toy"}']:
        manifest.write_text(junk)
        with pytest.raises(ArtifactError):
            read_manifest(tmp_path / "model", "toy")


@pytest.mark.parametrize(
    "name", ["w.pkl", "w.PT", "w.pt.gz", "w.bin", "w.pth", "w.joblib", "code.py", "w.npz", "o.npy"]
)
def test_files_that_can_run_code_are_refused(tmp_path, name):
    path = tmp_path / "model"
    with pytest.raises(ArtifactError, match="refused"), write_artifact(path, "toy") as directory:
        (directory / name).write_bytes(b"cos\nsystem\n.")
    assert not path.exists()


def test_object_arrays_and_auto_map_are_refused(tmp_path):
    with write_artifact(tmp_path / "good", "toy") as directory:
        np.save(directory / "plain.npy", np.arange(3))
        (directory / "config.json").write_text('{"model_type": "llama"}')
    assert len(read_manifest(tmp_path / "good", "toy").files) == 2
    with pytest.raises(ArtifactError, match="plain numbers"), write_artifact(tmp_path / "bad", "toy") as directory:
        np.save(directory / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    hidden = '{"text_config": [{"\\u0061uto_map": {"AutoModel": "evil.Model"}}]}'
    with pytest.raises(ArtifactError, match="auto_map"), write_artifact(tmp_path / "bad", "toy") as directory:
        (directory / "config.json").write_text(hidden)


def test_symlinks_and_names_outside_are_refused(tmp_path):
    (tmp_path / "secret").write_text("secret")
    with pytest.raises(ArtifactError, match="symlink"), write_artifact(tmp_path / "model", "toy") as directory:
        (directory / "a.json").symlink_to(tmp_path / "secret")
    save(tmp_path / "model", "one")
    manifest = tmp_path / "model" / "manifest.json"
    raw = json.loads(manifest.read_text())
    for name in ["../secret", "/etc/passwd", "nested/../../secret", "..\\secret"]:
        raw["files"] = {name: {"sha256": "0" * 64, "bytes": 6}}
        manifest.write_text(json.dumps(raw | {"self": artifacts._seal(raw)}))
        with pytest.raises(ArtifactError):
            read_manifest(tmp_path / "model", "toy")


def test_loading_a_hostile_directory_opens_and_imports_nothing(tmp_path):
    evil = tmp_path / "evil"
    evil.mkdir()
    (evil / "manifest.json").write_text(json.dumps({"format": 1, "kind": "toy", "files": {"../out": {}}}))
    (tmp_path / "out").write_text("outside")
    (evil / "model.pkl").write_bytes(b"cos\nsystem\n(S'touch pwned'\ntR.")
    (evil / "config.json").write_text('{"auto_map": {"AutoModel": "evil.Model"}}')
    (evil / "evil.py").write_text("raise SystemExit('ran')")
    (evil / "link").symlink_to(tmp_path / "out")
    script = f"""
        import sys
        from pathlib import Path
        from llmrec.storage.artifacts import read_manifest
        from llmrec.errors import ArtifactError
        def hook(event, args):
            if event == "import" or event.startswith(("subprocess", "os.exec", "pickle", "socket")):
                print("VIOLATION", event, args)
            if event == "open" and not str(args[0]).startswith({str(evil)!r}):
                print("VIOLATION", event, args)
        sys.addaudithook(hook)
        for name in ["link", "model.pkl", "evil.py", "config.json", "manifest.json"]:
            try:
                read_manifest(Path({str(evil)!r}), "toy")
                print("VIOLATION loaded")
            except ArtifactError:
                (Path({str(evil)!r}) / name).unlink()
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "VIOLATION" not in done.stdout, done.stdout


def test_wrong_pairs_name_both_fingerprints(tmp_path):
    save(tmp_path / "model", "one")
    manifest = read_manifest(tmp_path / "model", "toy")
    expect_fingerprint(manifest, "catalog", "ab" * 32, "catalogue")
    with pytest.raises(ArtifactError) as error:
        expect_fingerprint(manifest, "catalog", "cd" * 32, "catalogue")
    assert "ab" * 6 in str(error.value) and "cd" * 6 in str(error.value) and "catalogue" in str(error.value)
    with pytest.raises(ArtifactError, match="no fingerprint of its tokenizer"):
        expect_fingerprint(manifest, "tokenizer", "cd" * 32, "tokenizer")


def test_fingerprints_tell_boundaries_names_types_and_shapes_apart():
    assert fingerprint_bytes(b"ab", b"c") != fingerprint_bytes(b"a", b"bc")
    a = np.arange(6, dtype=np.int64)
    whole = fingerprint_arrays(a=a, b=a)
    others = [
        fingerprint_arrays(a=a),
        fingerprint_arrays(a=a, c=a),
        fingerprint_arrays(a=a.reshape(2, 3), b=a),
        fingerprint_arrays(a=a.astype(np.int32), b=a),
        fingerprint_arrays(a=a[::-1], b=a),
    ]
    assert len({whole, *others}) == 6
    assert whole == fingerprint_arrays(b=a, a=a)
    assert fingerprint_arrays(a=a.astype(">i8")) == fingerprint_arrays(a=a), "the same on every machine"
    expected = "812620787f56e2c07a9499e5d40ac58156638174376d01d620822c4058ec4388"
    assert fingerprint_arrays(a=np.array([1.5, -0.0], np.float32)) == expected
    with pytest.raises(ArtifactError, match="object"):
        fingerprint_arrays(a=np.array([{}], dtype=object))


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_who_may_read_the_directory_may_read_its_files(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        with write_artifact(tmp_path / "model", "toy") as directory:
            (directory / "part").mkdir()
            save_file({"a": np.zeros(2, np.float32)}, directory / "part" / "a.safetensors")
            (directory / "b.txt").write_text("b")
            (directory / "b.txt").chmod(0o600)
    finally:
        os.umask(before)
    modes = {one.name: one.stat().st_mode & 0o777 for one in (tmp_path / "model").rglob("*") if one.is_file()}
    assert modes == {"a.safetensors": mode, "b.txt": mode, "manifest.json": mode}
