"""Files that appear whole or not at all, on a disk and in an object store (fsspec's, in memory)."""

import errno
import os
import uuid

import fsspec
import pytest

from raylib import storage
from raylib.errors import UserError


@pytest.fixture
def remote():
    """A folder in an object store of this process."""
    folder = f"memory://bucket-{uuid.uuid4().hex}"
    yield folder
    filesystem, name = fsspec.core.url_to_fs(folder)
    if filesystem.exists(name):
        filesystem.rm(name, recursive=True)


@pytest.fixture(params=["local", "remote"])
def folder(request, tmp_path):
    return str(tmp_path / "f") if request.param == "local" else request.getfixturevalue("remote")


def no_space(*args, **kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_what_was_written_is_read(folder):
    path = storage.join(folder, "sub", "a.txt")
    assert not storage.exists(path)
    storage.write_text(path, "grün\n")
    assert storage.exists(path) and storage.read_text(path) == "grün\n"
    with storage.open_input(path) as source:
        assert source.read() == "grün\n".encode()


def test_a_file_appears_only_when_the_block_ends(folder):
    path = storage.join(folder, "part.bin")
    with storage.atomic_write(path) as stream:
        stream.write(b"x" * 100_000)
        assert not storage.exists(path)
    with storage.open_input(path) as source:
        assert source.read() == b"x" * 100_000


def test_a_failure_in_the_block_leaves_nothing(folder):
    path = storage.join(folder, "part.bin")
    with pytest.raises(RuntimeError, match="half way"), storage.atomic_write(path) as stream:
        stream.write(b"half")
        raise RuntimeError("half way")
    assert not storage.exists(path) and storage.list_files(folder) == []


def test_a_failure_leaves_what_was_there_before(folder):
    path = storage.join(folder, "a.txt")
    storage.write_text(path, "before")
    with pytest.raises(KeyError), storage.atomic_write(path, "w") as stream:
        stream.write("after")
        raise KeyError
    assert storage.read_text(path) == "before"
    assert [os.path.basename(p) for p in storage.list_files(folder)] == ["a.txt"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_is_one_line_that_names_the_file(tmp_path, monkeypatch, call):
    path = tmp_path / "part.bin"
    path.write_bytes(b"before")
    monkeypatch.setattr(storage.os, call, no_space)
    told = r"part.bin: No space left on device.*What was stored before is intact"
    with pytest.raises(UserError, match=told), storage.atomic_write(path) as stream:
        stream.write(b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"before" and os.listdir(tmp_path) == ["part.bin"]


def test_an_object_store_that_refuses_is_one_line_that_names_the_file(remote, monkeypatch):
    from fsspec.implementations.memory import MemoryFileSystem

    monkeypatch.setattr(MemoryFileSystem, "put_file", no_space)
    path = storage.join(remote, "part.bin")
    with pytest.raises(UserError, match=r"part.bin: No space left"), storage.atomic_write(path) as stream:
        stream.write(b"new")
    assert not storage.exists(path)


def test_a_file_in_the_place_of_a_folder_is_one_line(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(UserError, match=r"cannot write to .*taken: .*Choose a folder"):
        storage.make_folder(tmp_path / "taken")
    with (
        pytest.raises(UserError, match=r"cannot write .*taken/part.bin"),
        storage.atomic_write(tmp_path / "taken/part.bin"),
    ):
        pass


def test_a_folder_that_may_not_be_written_is_one_line(tmp_path, monkeypatch):
    def denied(path, mode="r", *args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("builtins.open", denied)
    with pytest.raises(UserError, match=r"cannot write to .*: Permission denied. Choose a folder"):
        storage.make_folder(tmp_path / "out")


def test_making_a_folder_leaves_it_empty(tmp_path):
    storage.make_folder(tmp_path / "a" / "b")
    storage.make_folder(tmp_path / "a" / "b")
    assert os.listdir(tmp_path / "a" / "b") == []


def test_listing_is_sorted_and_leaves_out_folders_other_suffixes_and_unfinished_files(folder):
    for name in ("b.parquet", "a.parquet", "c.json", ".x.parquet.1f.part", "deeper/d.parquet"):
        storage.write_text(storage.join(folder, name), "")
    found = storage.list_files(folder, ".parquet")
    assert [p.rsplit("/", 1)[1] for p in found] == ["a.parquet", "b.parquet"]
    assert all(storage.exists(p) for p in found), "the paths that are listed can be opened"


def test_a_folder_that_does_not_exist_lists_nothing(folder):
    assert storage.list_files(storage.join(folder, "nowhere")) == []


def test_a_listing_of_an_object_store_is_never_a_remembered_one(remote, monkeypatch):
    """s3fs remembers listings; a part that another machine wrote has to show."""
    from fsspec.implementations.memory import MemoryFileSystem

    forgotten = []
    monkeypatch.setattr(MemoryFileSystem, "invalidate_cache", lambda self, path=None: forgotten.append(path))
    storage.write_text(storage.join(remote, "a.txt"), "")
    forgotten.clear()
    storage.list_files(remote)
    assert any(path and path in remote.replace("memory:/", "") for path in forgotten)


def test_removing_is_idempotent(folder):
    path = storage.join(folder, "a.txt")
    storage.write_text(path, "x")
    storage.remove(path)
    assert not storage.exists(path)
    storage.remove(path)


def test_joining_knows_trailing_slashes():
    assert storage.join("s3://bucket/x/", "y", "z.txt") == "s3://bucket/x/y/z.txt"
    assert storage.is_remote("s3://bucket") and not storage.is_remote("/tmp/a")


def test_bytes_are_read_whole_in_part_and_as_a_stream(folder):
    path = storage.join(folder, "a.bin")
    with storage.atomic_write(path) as stream:
        stream.write(b"0123456789")
    assert storage.read_bytes(path) == b"0123456789"
    assert storage.read_bytes(path, 4) == b"0123" and storage.read_bytes(path, 40) == b"0123456789"
    with storage.open_binary(path) as stream:
        stream.seek(8)
        assert stream.read() == b"89"
    for read in (storage.read_bytes, lambda path: storage.open_binary(path).__enter__()):
        with pytest.raises(FileNotFoundError):
            read(storage.join(folder, "none"))


def test_every_file_below_a_remote_folder_is_found_with_its_size(remote):
    assert storage.find_files(remote) == {}
    for name, data in {"a.png": b"12", "sub/deep/b.png": b"123"}.items():
        storage.write_text(storage.join(remote, name), data.decode())
    found = storage.find_files(f"{remote}/")
    assert {name: size for name, (size, _) in found.items()} == {"a.png": 2, "sub/deep/b.png": 3}
    storage.write_text(storage.join(remote, "a.png"), "21")
    again = storage.find_files(remote)
    assert again["a.png"][1] != found["a.png"][1] != "" and again["sub/deep/b.png"] == found["sub/deep/b.png"]


def test_folders_are_listed_by_name_without_hidden_ones(folder):
    assert storage.list_folders(folder) == []
    for name in ("b/x.txt", "a/deep/y.txt", "c.txt"):
        storage.write_text(storage.join(folder, name), "")
    assert storage.list_folders(folder) == ["a", "b"]
    if not storage.is_remote(folder):
        os.mkdir(storage.join(folder, ".hidden"))
        assert storage.list_folders(folder) == ["a", "b"]


def test_a_folder_is_uploaded_with_its_last_file_last_and_downloaded(remote, tmp_path, monkeypatch):
    from fsspec.implementations.memory import MemoryFileSystem

    order = []
    put = MemoryFileSystem.put_file
    monkeypatch.setattr(
        MemoryFileSystem, "put_file", lambda self, path, name: (order.append(name), put(self, path, name))
    )
    for name in ("a.json", "deep/b.bin", "z.txt"):
        storage.write_text(tmp_path / "from" / name, name)
    storage.upload_folder(tmp_path / "from", f"{remote}/to", last="a.json")
    assert [name.split("/to/")[1] for name in order] == ["deep/b.bin", "z.txt", "a.json"]
    storage.download_file(f"{remote}/to/deep/b.bin", tmp_path / "back" / "deep" / "b.bin")
    assert (tmp_path / "back" / "deep" / "b.bin").read_text() == "deep/b.bin"
    with pytest.raises(FileNotFoundError):
        storage.download_file(f"{remote}/to/none", tmp_path / "none")
    monkeypatch.setattr(MemoryFileSystem, "put_file", no_space)
    with pytest.raises(UserError, match=r"cannot write .*/to: No space left"):
        storage.upload_folder(tmp_path / "from", f"{remote}/to", last="a.json")
