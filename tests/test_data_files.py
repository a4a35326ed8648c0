import hashlib
import shutil
import tarfile
import threading
import urllib.error
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import own_images
import pytest
from torchvision import datasets

from vaestudy import data
from vaestudy.data import registry
from vaestudy.errors import InputError, reading

COUNTS = {"train": 12, "test": 5}


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*_, **__):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr("urllib.request.urlopen", refuse)


@pytest.mark.parametrize(("name", "kind", "pack"), [("mnist", "MNIST", False), ("fashion_mnist", "FashionMNIST", True)])
def test_idx_files_give_their_pixels_and_classes(tmp_path, no_network, name, kind, pack):
    own_images.idx(tmp_path, kind, **COUNTS, pack=pack)
    published = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    for split, count in COUNTS.items():
        images, (pixels, classes) = data.load(name, split=split, data_dir=tmp_path), own_images.digits(count)
        assert images.shape == (1, 28, 28)
        np.testing.assert_array_equal(images.storage[:, 0], pixels)
        np.testing.assert_array_equal(images.factors.values(slice(None))[:, 0], classes)
        assert (images.factors.names, images.factors.sizes) == (("class",), (10,))
        assert images.checksum == hashlib.sha256(pixels.copy()).hexdigest()
        assert images.describe()["split"] == split
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == published  # nothing is unpacked


def test_held_out_images_are_of_the_official_test_split(tmp_path):
    own_images.idx(tmp_path, "MNIST", **COUNTS)
    train, test = data.train_and_test("mnist", 3, data_dir=tmp_path)
    assert (len(train), len(test)) == (12, 3)
    held = (test.batch(slice(None))[:, 0] * 255).round().numpy()
    assert all((own_images.digits(COUNTS["test"])[0] == image).all((1, 2)).any() for image in held)


def test_what_says_already_what_to_do_is_not_wrapped():
    with pytest.raises(InputError, match=r"^move it$"), reading("a file", "fetch it again"):
        raise InputError("move it")
    with pytest.raises(MemoryError), reading("a file", "fetch it again"):  # no other file would help
        raise MemoryError


def test_held_out_images_are_drawn_from_a_test_split_in_order_of_its_classes(monkeypatch):
    classes = np.arange(100)[:, None] // 50
    images = data.ImageSet.from_array(np.zeros((100, 1, 8, 8), np.uint8), data.Factors(("class",), (2,), classes))
    monkeypatch.setattr(registry, "load", lambda *_, **__: images)
    _, held = data.train_and_test("mnist", 20)
    seen = held.factors.values(slice(None))[:, 0]
    assert 4 <= seen.sum() <= 16
    assert (np.diff(seen) < 0).any()  # nor in that order


def test_padding_to_32_puts_two_black_pixels_around(tmp_path):
    own_images.idx(tmp_path, "MNIST", **COUNTS)
    pixels, _ = own_images.digits(COUNTS["train"])
    wide = data.load("mnist", image_size=32, data_dir=tmp_path).storage[:, 0]
    np.testing.assert_array_equal(wide[:, 2:-2, 2:-2], pixels)
    assert wide.sum() == pixels.sum()


@pytest.mark.parametrize(
    ("name", "page"), [("fashion_mnist", "zalandoresearch/fashion-mnist"), ("cifar10", "kriz/cifar")]
)
@pytest.mark.parametrize("download", [False, True])
def test_missing_files_say_what_to_fetch_and_where_to_put_it(tmp_path, no_network, name, page, download):
    with pytest.raises(InputError, match=rf"cannot read {name} in {tmp_path}.*{page}.* in data_dir") as caught:
        data.load(name, data_dir=tmp_path, download=download)
    assert "\n" not in str(caught.value)
    assert ("no route" in str(caught.value)) == download  # nothing is fetched unless it is asked for


class Server(BaseHTTPRequestHandler):
    """Sends the files of `folder`, from the middle on if asked to; at first it breaks off after `patience` bytes."""

    def do_GET(self):
        content = (self.folder / self.path.strip("/")).read_bytes()
        begin = int(self.headers.get("Range", "bytes=0-").split("=")[1].strip("-"))
        self.asked.append((self.path, begin))
        if begin >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(len(content) - begin))
        self.end_headers()
        end = begin + self.patience.pop() if self.patience else len(content)
        self.wfile.write(content[begin:end])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """MNIST's four files on a server of this machine, beside one that does not answer."""
    kind = type("Own", (Server,), {"folder": tmp_path / "server" / "MNIST" / "raw", "asked": [], "patience": []})
    own_images.idx(tmp_path / "server", "MNIST", **COUNTS, pack=True)
    digests = [(path.name, hashlib.md5(path.read_bytes()).hexdigest()) for path in sorted(kind.folder.iterdir())]
    http = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    thread = threading.Thread(target=http.serve_forever)
    thread.start()
    monkeypatch.setattr(datasets.MNIST, "resources", digests)
    silent, there = "http://127.0.0.1:9/", f"http://127.0.0.1:{http.server_port}/"
    monkeypatch.setattr(datasets.MNIST, "mirrors", [silent, there])
    yield kind
    http.shutdown()
    thread.join()
    http.server_close()


def test_only_a_download_that_is_asked_for_reaches_out(tmp_path, server):
    with pytest.raises(InputError, match="no train-images"):
        data.load("mnist", data_dir=tmp_path)
    assert not server.asked
    assert len(data.load("mnist", data_dir=tmp_path, download=True)) == COUNTS["train"]
    asked = len(server.asked)
    assert len(data.load("mnist", data_dir=tmp_path, download=True)) == COUNTS["train"]
    assert len(server.asked) == asked
    assert not list((tmp_path / "MNIST" / "raw").glob("*.part"))


def test_a_download_that_breaks_off_goes_on_where_it_was_and_nothing_half_has_its_name(tmp_path, server):
    raw, names = tmp_path / "MNIST" / "raw", [name for name, _ in datasets.MNIST.resources]
    server.patience.append(100)
    with pytest.raises(InputError, match="cannot read mnist") as caught:
        data.load("mnist", data_dir=tmp_path, download=True)
    assert "\n" not in str(caught.value)
    assert not (raw / names[0]).exists()
    data.load("mnist", data_dir=tmp_path, download=True)
    assert [begin for path, begin in server.asked if names[0] in path] == [0, 100]
    for name in names:
        assert (raw / name).read_bytes() == (server.folder / name).read_bytes()


def test_a_page_in_place_of_a_download_is_not_kept(tmp_path, server):
    (server.folder / datasets.MNIST.resources[0][0]).write_text("<html>moved</html>")
    with pytest.raises(InputError, match="is not the published t10k-images") as caught:
        data.load("mnist", data_dir=tmp_path, download=True)
    assert "\n" not in str(caught.value)
    assert not [path for path in (tmp_path / "MNIST" / "raw").iterdir() if path.suffix != ".lock"]


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    return own_images.cifar10(tmp_path, monkeypatch, 20, 4)


def test_cifar_batches_give_their_pixels_and_classes(cifar):
    for split, count in (("train", 20), ("test", 4)):
        images = data.load("cifar10", split=split, data_dir=cifar)
        pixels, factors = own_images.drawn(count, 32, seed=count)
        np.testing.assert_array_equal(images.storage, pixels.transpose(0, 3, 1, 2))
        np.testing.assert_array_equal(images.factors.values(slice(None)), factors[:, :1])
        assert images.describe()["split"] == split


def archive(root, change=lambda tar: None):
    """The batches as the published archive holds them, in place of their folder; returns its digest."""
    folder = root / "cifar-10-batches-py"
    with tarfile.open(root / "cifar-10-python.tar.gz", "w:gz") as tar:
        tar.add(folder, folder.name)
        change(tar)
    shutil.rmtree(folder)
    return hashlib.md5((root / "cifar-10-python.tar.gz").read_bytes()).hexdigest()


def test_the_cifar_archive_is_read_without_being_unpacked(cifar, monkeypatch):
    plain = data.load("cifar10", split="test", data_dir=cifar)
    monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", archive(cifar))
    assert data.load("cifar10", split="test", data_dir=cifar).describe() == plain.describe()
    assert [path.name for path in cifar.iterdir()] == ["cifar-10-python.tar.gz"]


def link(tar):
    entry = tarfile.TarInfo("cifar-10-batches-py/test_batch")
    entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/hostname"
    tar.addfile(entry)


def climb(tar):
    tar.addfile(tarfile.TarInfo("../../climbed"))


@pytest.mark.parametrize("trap", [link, climb])
def test_a_trusted_archive_leads_nowhere_outside(cifar, monkeypatch, trap):
    monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", archive(cifar, trap))
    with pytest.raises(InputError, match=r"outside|absolute"):
        data.load("cifar10", split="test", data_dir=cifar)
