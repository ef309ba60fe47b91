"""Paths in a real object store protocol: what is read and written, a store that is busy, and one that stays away."""

from __future__ import annotations

import logging
import sys

import pytest

from raylib import buckets, storage
from raylib.errors import BucketError, UserError
from raylib.store.embeddings import Shelf
from tests.bucket import SECRET
from tests.bucket import bucket as bucket
from tests.bucket import server as server


def test_files_folders_and_their_names(bucket, tmp_path):
    folder = f"{bucket.url}/a folder"
    path = storage.join(folder, "sub", "a.txt")
    assert not storage.exists(path) and storage.list_files(folder) == [] == storage.list_folders(folder)
    storage.write_text(path, "grün\n")
    storage.write_text(storage.join(folder, "b.txt"), "b")
    assert storage.exists(path) and storage.read_text(path) == "grün\n" and storage.read_bytes(path, 2) == b"gr"
    assert storage.list_files(folder, ".txt") == [f"{folder}/b.txt"] and storage.list_folders(folder) == ["sub"]
    assert {name: size for name, (size, _) in storage.find_files(folder).items()} == {"sub/a.txt": 6, "b.txt": 1}
    with storage.open_input(path) as source:
        source.seek(4)
        assert source.read() == b"n\n"
    storage.download_file(path, tmp_path / "x" / "a.txt")
    assert (tmp_path / "x" / "a.txt").read_text() == "grün\n"
    storage.remove(path)
    storage.remove(path)
    storage.remove_folder(folder)
    assert bucket.files() == {}


def test_a_large_file_goes_up_in_parts_and_whole(bucket, tmp_path):
    data = bytes(range(256)) * (60 * 2**12)
    bucket.refuse(next=3, share=0.4, seed=3)
    with storage.atomic_write(f"{bucket.url}/large.bin") as stream:
        stream.write(data)
    with storage.open_input(f"{bucket.url}/large.bin") as source:
        assert source.read() == data
    assert bucket.refused > 3


def test_a_burst_of_refusals_and_refusals_by_chance_are_waited_out(bucket):
    before = buckets.repeated_requests()
    storage.write_text(f"{bucket.url}/a.txt", "a")
    assert buckets.repeated_requests() == before
    bucket.refuse(next=20)
    assert storage.read_text(f"{bucket.url}/a.txt") == "a"
    assert bucket.refused == 20 and buckets.repeated_requests() == before + 20

    bucket.refuse(share=0.3, seed=1)
    for i in range(30):
        storage.write_text(f"{bucket.url}/n/{i}.txt", str(i))
    assert [storage.read_text(path) for path in storage.list_files(f"{bucket.url}/n")] == sorted(map(str, range(30)))
    assert buckets.repeated_requests() == before + bucket.refused > before + 30


def test_waits_double_and_are_drawn_by_chance(monkeypatch):
    monkeypatch.setattr(buckets.random, "uniform", lambda low, high: low + (high - low) / 2)
    busy = buckets._Patient()
    waits = [busy(attempts=n, request_dict={}, caught_exception=TimeoutError()) for n in range(1, 12)]
    assert waits == pytest.approx([0.75 * min(20, 0.1 * 2**n) for n in range(11)])
    assert busy(attempts=1, request_dict={}, caught_exception=KeyError()) is None


@pytest.mark.parametrize(
    "act",
    [
        lambda url: storage.write_text(f"{url}/new.txt", "x"),
        lambda url: storage.read_text(f"{url}/old.txt"),
        lambda url: storage.exists(f"{url}/old.txt"),
        lambda url: storage.list_files(url),
        lambda url: Shelf(url, "f" * 64).refresh(),
    ],
    ids=["write", "read", "exists", "list", "store"],
)
def test_a_bucket_that_stays_away_is_named_and_keeps_what_it_has(bucket, monkeypatch, act):
    storage.write_text(f"{bucket.url}/old.txt", "old")
    monkeypatch.setenv("RAYLIB_BUCKET_PATIENCE", "0.1")
    bucket.refuse(share=1.0)
    with pytest.raises(BucketError) as error:
        act(bucket.url)
    said = str(error.value)
    assert said.startswith(f"{bucket.url} did not answer for 0.1 s (")
    assert "run the same command again" in said and "\n" not in said
    bucket.refuse()
    assert bucket.files() == {"old.txt": b"old"}


def test_nobody_listens(bucket, monkeypatch):
    import s3fs

    monkeypatch.setenv("RAYLIB_BUCKET_PATIENCE", "0.1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(BucketError, match="did not answer"):
        storage.read_text(f"{bucket.url}/old.txt")
    s3fs.S3FileSystem.clear_instance_cache()


def test_a_damaged_part_is_no_silence(bucket):
    from raylib.errors import StoreError

    shelf = Shelf(bucket.url, "f" * 64)
    storage.write_text(f"{shelf.folder}/part-x.parquet", "no Parquet")
    with pytest.raises(StoreError, match=r"part-x.parquet cannot be read"):
        shelf.refresh()


def test_a_bucket_that_is_not_there(server):
    with pytest.raises(BucketError, match="s3://no-such-bucket-of-ours does not exist"):
        storage.write_text("s3://no-such-bucket-of-ours/a.txt", "x")
    with pytest.raises(FileNotFoundError):
        storage.read_text(f"{server.bucket().url}/nothing.txt")


def test_credentials_are_refused_in_paths_and_never_repeated(bucket, monkeypatch, caplog, capsys):
    from raylib.cli import main

    for url in ("s3://AKIAKEY:SECRETWORD@bucket/x", "gs://SECRETWORD@bucket/x", "memory://a:SECRETWORD@b/c"):
        for use in (storage.exists, storage.read_text, storage.as_path):
            with pytest.raises(UserError) as error:
                use(url)
            assert "holds credentials" in str(error.value) and "SECRETWORD" not in str(error.value)
    url = "s3://AKIAKEY:SECRETWORD@bucket/x"
    for job in (
        ["evaluate", "--model", "m", "--tasks", "T", "--store", url],
        ["encode", "--model", url, "--input", "x", "--output", "y"],
        ["extract", "--model", "m", "--vqa-dataset", "x", "--images-dir", url],
        ["mine", "negatives", "--data", url, "--output", "y"],
        ["train", "--model", "m", "--data", "x", "--adapter", url],
    ):
        with pytest.raises(SystemExit, match="2"):
            main(job)
        said = " ".join("".join(capsys.readouterr()).split())
        assert "holds credentials" in said and "SECRETWORD" not in said

    monkeypatch.setenv("RAYLIB_BUCKET_PATIENCE", "0.1")
    caplog.set_level(logging.INFO)
    bucket.refuse(share=1.0)
    with pytest.raises(BucketError) as error:
        storage.write_text(f"{bucket.url}/new.txt", "x")
    for text in (str(error.value), caplog.text):
        assert SECRET not in text and "AKIA" not in text


def test_no_credentials_anywhere(server, monkeypatch, tmp_path):
    import s3fs

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(BucketError, match="no credentials were found"):
        storage.write_text("s3://some-bucket/a", "x")
    s3fs.S3FileSystem.clear_instance_cache()


def test_a_client_that_is_not_installed_is_named(monkeypatch):
    for scheme, module, extra in (("s3", "s3fs", "s3"), ("gs", "gcsfs", "gcs")):
        monkeypatch.setitem(sys.modules, module, None)
        monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, scheme, raising=False)
        with pytest.raises(UserError, match=rf"pip install 'raylib-cluster\[{extra}\]'"):
            storage.exists(f"{scheme}://bucket/x")
