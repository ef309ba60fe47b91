"""Images by name: in a folder, a zip, an object store; and names that would lead elsewhere."""

import io
import multiprocessing
import os
import pickle
import uuid
import warnings
import zipfile
from concurrent.futures import ThreadPoolExecutor

import fsspec
import pytest
from PIL import Image

from raylib.errors import UserError
from raylib.evaluate.contents import BadContentError
from raylib.extract.images import open_images, relative_name
from raylib.extract.places import HeldImage
from tests.encode.made import png

FILES = {
    "a.png": png("red"),
    "sub/b.JPG": png("blue", (8, 2)),
    "sub/000000000009": png("lime"),
    "twice.png": png("red"),
    "twice.webp": png("blue"),
    "notes.txt": b"no image",
}
KINDS = ["folder", "zip", "top zip", "remote", "remote zip"]


def write_zip(path, files, **settings):
    with zipfile.ZipFile(path, "w", **settings) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return str(path)


@pytest.fixture
def remote():
    """A folder of an object store of this process, and its file system."""
    name = f"images-{uuid.uuid4().hex}"
    filesystem = fsspec.filesystem("memory")
    yield f"memory://{name}", filesystem
    filesystem.rm(f"/{name}", recursive=True)


def make(kind, tmp_path, request):
    """FILES as --images-dir of this kind."""
    if kind.endswith("zip"):
        top = "images/" if kind == "top zip" else ""
        path = write_zip(tmp_path / "images.zip", {top + name: data for name, data in FILES.items()})
        if kind != "remote zip":
            return path
        url, filesystem = request.getfixturevalue("remote")
        filesystem.put_file(path, f"{url}/images.zip")
        return f"{url}/images.zip"
    if kind == "remote":
        url, filesystem = request.getfixturevalue("remote")
        for name, data in FILES.items():
            filesystem.pipe_file(f"{url}/{name}", data)
        return url
    for name, data in FILES.items():
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return str(tmp_path / "images")


@pytest.fixture(params=KINDS)
def source(request, tmp_path):
    return open_images(make(request.param, tmp_path, request))


def image(source, name):
    return source.place(source.find(name))


def reason(source, name):
    with pytest.raises(BadContentError) as caught:
        source.find(name)
    return str(caught.value)


def test_images_are_found_by_their_names(source):
    for name in ("a.png", "./a.png", "sub//b.JPG", "sub/./b.JPG", "sub/000000000009"):
        assert image(source, name).read() == FILES[relative_name(name)]


def test_an_end_may_be_left_out_where_one_file_fits(source):
    assert image(source, "a").read() == FILES["a.png"]
    assert image(source, "sub/b").read() == FILES["sub/b.JPG"]
    assert "twice.png or " in reason(source, "twice") and "twice.webp in " in reason(source, "twice")
    assert image(source, "twice.webp").read() == FILES["twice.webp"]


@pytest.mark.parametrize("name", ["A.png", "b.JPG", "notes", "a.png/x.png", "sub/a.png", "nowhere/a.png", "a.png.png"])
def test_what_is_not_there(source, name):
    assert reason(source, name) == f"there is no image {name} in {source.where}"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("../a.png", r"leads out of its folder by ..;"),
        ("sub/../a.png", r"leads out of its folder by ..;"),
        ("sub/..", r"leads out of its folder by ..;"),
        ("/etc/passwd", r"is an absolute path;"),
        ("//host/a.png", r"is an absolute path;"),
        ("C:/a.png", r"is an absolute path;"),
        ("c:a.png", r"is an absolute path;"),
        ("file:///etc/passwd", r"is an absolute path;"),
        ("s3://bucket/a.png", r"is an absolute path;"),
        ("sub\\b.JPG", r"has a backslash; expected a path relative to --images-dir, with / between folders"),
        ("..\\a.png", r"has a backslash;"),
        ("a.png\0", r"holds a NUL character;"),
        ("", r"names no file;"),
        (".", r"names no file;"),
        ("./", r"names no file;"),
    ],
)
def test_names_that_could_lead_elsewhere_are_refused(source, name, why):
    assert reason(source, name).startswith(f"the image name {name!r} {why}")


def test_symbolic_links_stay_inside_the_folder(tmp_path, request):
    folder = make("folder", tmp_path, request)
    (tmp_path / "secret.png").write_bytes(png("black"))
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "x.png").write_bytes(png("black"))
    (tmp_path / "images2").mkdir()
    (tmp_path / "images2" / "x.png").write_bytes(png("black"))
    for link, target in {
        "out.png": tmp_path / "secret.png",
        "folder": tmp_path / "outside",
        "beside": tmp_path / "images2",
        "hop": "folder",
        "in.png": "a.png",
        "loop.png": "loop.png",
        "lost.png": "nothing.png",
    }.items():
        os.symlink(target, os.path.join(folder, link))
    os.symlink(folder, tmp_path / "door")
    source = open_images(str(tmp_path / "door"))
    assert image(source, "in.png").read() == FILES["a.png"], "the folder may be a link itself"
    for name in ("out.png", "folder/x.png", "beside/x.png", "hop/x.png"):
        assert reason(source, name) == (
            f"{name} leads out of {tmp_path}/door by a symbolic link; expected an image inside it"
        )
    assert reason(source, "out") == reason(source, "out.png")
    assert reason(source, "folder/x") == f"there is no image folder/x in {tmp_path}/door"
    assert "loop.png in" in reason(source, "loop.png")
    assert reason(source, "lost.png").startswith("there is no image")


def test_folders_and_pipes_are_no_images(tmp_path, request):
    source = open_images(make("folder", tmp_path, request))
    os.mkfifo(tmp_path / "images" / "pipe.png")
    assert reason(source, "sub") == f"sub in {source.where} is no file"
    assert reason(source, "pipe.png") == f"pipe.png in {source.where} is no file"
    assert "File name too long" in reason(source, "x" * 300)


def test_places_travel_and_carry_their_bytes(source):
    place = image(source, "a.png")
    assert len(pickle.dumps(place)) < 600
    assert pickle.loads(pickle.dumps(place)) == place and hash(place) == hash(image(source, "./a.png"))
    assert pickle.loads(pickle.dumps(place)).read() == FILES["a.png"]
    held = pickle.loads(pickle.dumps(place.carried()))
    assert isinstance(held, HeldImage) and held.read() == FILES["a.png"] and held.carried() is held


def test_pixels_are_told_by_the_header(source):
    assert [image(source, name).pixels() for name in ("a.png", "sub/b.JPG", "notes.txt")] == [24, 16, 0]


def test_pixels_of_a_large_file_need_only_its_start(tmp_path, monkeypatch):
    noise = Image.frombytes("RGB", (300, 200), os.urandom(300 * 200 * 3))
    buffer = io.BytesIO()
    noise.save(buffer, "PNG")
    path = tmp_path / "n.png"
    path.write_bytes(buffer.getvalue())
    place = image(open_images(str(tmp_path)), "n.png")
    asked = []
    load = type(place).load
    monkeypatch.setattr(type(place), "load", lambda self, limit=None: asked.append(limit) or load(self, limit))
    assert place.pixels() == 60_000 and asked == [65_536]
    late = b"\xff\xd8" + b"\xff\xe2\xff\xff" + bytes(65_533)  # a comment that fills all of the start
    buffer = io.BytesIO()
    noise.save(buffer, "JPEG")
    path.write_bytes(late + buffer.getvalue()[2:])
    assert image(open_images(str(tmp_path)), "n.png").pixels() == 60_000 and asked[1:] == [65_536, None]


def test_a_file_that_changed_is_never_taken_for_the_old_one(tmp_path, request):
    for kind in ("folder", "zip", "remote"):
        where = make(kind, tmp_path, request)
        source = open_images(where)
        place = image(source, "a.png")
        other = png("blue", (7, 7))
        if kind == "zip":
            write_zip(where, {**FILES, "a.png": other})
        elif kind == "remote":
            request.getfixturevalue("remote")[1].pipe_file(f"{where}/a.png", other)
        else:
            (tmp_path / "images" / "a.png").write_bytes(other)
        with pytest.raises(BadContentError, match=r"a\.png.* has changed since the run began; run again"):
            place.read()
        assert place.pixels() == 0 and place.carried() is place
        assert source.find("a.png") == source.find("a.png")
        assert image(open_images(where), "a.png").read() == other


def test_the_mark_of_an_image_changes_with_it(tmp_path, request):
    for kind in ("folder", "zip", "remote"):
        where = make(kind, tmp_path, request)
        before = open_images(where).find("a.png")
        assert open_images(where).find("a.png") == before and before.size == len(FILES["a.png"])
        if kind == "zip":
            write_zip(where, {"a.png": png("blue")})
        elif kind == "remote":
            request.getfixturevalue("remote")[1].pipe_file(f"{where}/a.png", png("blue"))
        else:
            (tmp_path / "images" / "a.png").write_bytes(png("blue"))
            os.utime(tmp_path / "images" / "a.png", ns=(1, 1))
        assert open_images(where).find("a.png").mark != before.mark


def test_a_damaged_or_encrypted_member_of_a_zip_is_bad_where_it_is_read(tmp_path):
    data = os.urandom(1000)
    path = write_zip(tmp_path / "z.zip", {"a.png": data, "b.png": data}, compression=zipfile.ZIP_DEFLATED)
    raw = bytearray((tmp_path / "z.zip").read_bytes())
    raw[60:80] = bytes(20)
    directory = raw.index(b"PK\x01\x02", raw.index(b"PK\x01\x02") + 1)
    raw[directory + 8] |= 1  # b.png, encrypted
    (tmp_path / "z.zip").write_bytes(raw)
    source = open_images(path)
    for name, why in (("a.png", "a.png cannot be read from"), ("b.png", "encrypted")):
        with pytest.raises(BadContentError, match=why):
            image(source, name).read()


def test_a_zip_of_one_folder_with_what_a_mac_adds(tmp_path):
    files = {"photos/a.png": png("red"), "photos/sub/b.png": png("blue"), "__MACOSX/photos/._a.png": b"x"}
    source = open_images(write_zip(tmp_path / "z.zip", files))
    assert image(source, "a.png").read() == image(source, "photos/a").read() == png("red")
    assert image(source, "sub/b").read() == png("blue")
    two = open_images(write_zip(tmp_path / "y.zip", {**files, "other/c.png": b"x"}))
    assert reason(two, "a.png").startswith("there is no image a.png")


def _read_in_process(place):
    return place.read()


def test_a_zip_is_read_from_threads_and_forked_processes(tmp_path):
    files = {f"{i}.png": png("red", (i + 1, 3)) for i in range(40)}
    source = open_images(write_zip(tmp_path / "z.zip", files))
    places = [image(source, name) for name in files]
    places[0].read()  # opened here before the fork
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(_read_in_process, places)) == list(files.values())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with multiprocessing.get_context("fork").Pool(2) as pool:
            assert pool.map(_read_in_process, places, chunksize=1) == list(files.values())


@pytest.mark.parametrize("remotely", [False, True])
def test_what_is_no_place_for_images(tmp_path, remote, remotely):
    url, filesystem = remote
    filesystem.pipe_file(f"{url}/bad.zip", b"no zip")
    (tmp_path / "bad.zip").write_bytes(b"no zip")
    root = url if remotely else str(tmp_path)
    with pytest.raises(UserError, match=r"--images-dir .*bad\.zip: .*expected a folder of images or a \.zip of them"):
        open_images(f"{root}/bad.zip")
    with pytest.raises(UserError, match=r"--images-dir .*none"):
        open_images(f"{root}/none")
    with pytest.raises(UserError, match=r"--images-dir .*none\.zip"):
        open_images(f"{root}/none.zip")


def test_a_remote_folder_is_listed_once(tmp_path, request, monkeypatch):
    where = make("remote", tmp_path, request)
    source = open_images(where)
    filesystem = request.getfixturevalue("remote")[1]
    for name in ("find", "info", "exists", "ls"):
        monkeypatch.setattr(type(filesystem), name, None)
    assert source.find("sub/b").name == "sub/b.JPG"
    monkeypatch.undo()
