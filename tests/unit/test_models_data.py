"""Data sources and every way in which they can be bad."""

import gzip
import sys

import numpy as np
import pytest

from bitfold.errors import InputError, MissingDependencyError, UsageError
from bitfold.models import load_images
from bitfold.models.data import FASHION_MNIST_CLASSES, FASHION_MNIST_DIR


def error_of(spec, kind=InputError, **options):
    with pytest.raises(kind) as caught:
        load_images(str(spec), **options)
    assert caught.value.todo
    return caught.value


def idx(array, ndim=None):
    sizes = b"".join(int(n).to_bytes(4, "big") for n in array.shape)
    return bytes((0, 0, 8, ndim or array.ndim)) + sizes + array.tobytes()


@pytest.fixture
def fashion(tmp_path):
    for stem, count in (("train", 6), ("t10k", 4)):
        images = np.arange(count * 6, dtype=np.uint8).reshape(count, 2, 3)
        labels = np.arange(count, dtype=np.uint8)
        (tmp_path / f"{stem}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
        (tmp_path / f"{stem}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))
    return tmp_path


def test_fashion_mnist_files_are_read_by_split(fashion):
    test, train = (load_images(f"fashion-mnist:{fashion}", split) for split in ("test", "train"))
    assert test.images.shape == (4, 2, 3, 1)
    assert train.images.shape == (6, 2, 3, 1)
    assert test.images[1].reshape(-1).tolist() == [6, 7, 8, 9, 10, 11]
    assert test.labels.dtype == np.int64
    assert test.class_names == FASHION_MNIST_CLASSES


def test_a_missing_fashion_mnist_names_the_package(tmp_path):
    error = error_of(f"fashion-mnist:{tmp_path / 'none'}")
    assert "dataset-fashion-mnist" in error.todo
    assert "none" in error.where
    assert "t10k-images" in error_of(f"fashion-mnist:{tmp_path}").where


def damage(path, change):
    path.write_bytes(change(path.read_bytes()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[:-9], "truncated or damaged gzip file"),
        (lambda data: data[:40], "truncated or damaged gzip file"),
        (lambda data: b"text", "truncated or damaged gzip file"),
        (lambda data: b"", "not an idx file of 3-dimensional bytes"),
        (lambda data: gzip.compress(b"\0\0\x08\x01" + bytes(40)), "it starts with '00000801'"),
        (lambda data: gzip.compress(b"\0\0\x08\x03"), "not an idx file"),
        (lambda data: gzip.compress(gzip.decompress(data)[:-1]), "but shape (4, 2, 3) takes 40"),
        (lambda data: gzip.compress(b"\0\0\x08\x03" + b"\xff" * 12), "takes 7922816"),
    ],
)
def test_a_damaged_idx_file_is_named(fashion, change, message):
    damage(fashion / "t10k-images-idx3-ubyte.gz", change)
    error = error_of(f"fashion-mnist:{fashion}")
    assert message in error.what
    assert "t10k-images" in error.where


def test_labels_must_match_the_images(fashion):
    path = fashion / "t10k-labels-idx1-ubyte.gz"
    path.write_bytes(gzip.compress(idx(np.zeros(3, np.uint8))))
    assert error_of(f"fashion-mnist:{fashion}").what == "3 labels for 4 images"
    path.write_bytes(gzip.compress(idx(np.array([0, 10, 0, 255], np.uint8))))
    what = error_of(f"fashion-mnist:{fashion}").what
    assert what == "label 10 of image 1 is not in 0…9 (2 such labels)"


def test_the_embedded_sample_has_every_class():
    data = load_images("embedded")
    assert data.images.shape == (500, 28, 28, 1)
    assert data.images.dtype == np.uint8
    assert np.bincount(data.labels).min() >= 30
    assert data.class_names == FASHION_MNIST_CLASSES


@pytest.mark.skipif(not FASHION_MNIST_DIR.is_dir(), reason="dataset-fashion-mnist not installed")
def test_the_embedded_sample_is_the_start_of_the_test_set():
    sample, whole = load_images("embedded"), load_images("fashion-mnist")
    assert whole.images.shape == (10000, 28, 28, 1)
    assert (sample.images == whole.images[:500]).all()
    assert (sample.labels == whole.labels[:500]).all()


IMAGES = np.zeros((3, 4, 5, 3), np.uint8)


def test_an_npz_file_needs_images_only(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, images=IMAGES)
    data = load_images(str(path))
    assert data.images.shape == (3, 4, 5, 3)
    assert data.labels is None
    np.savez(path, images=IMAGES, labels=np.array([0, 9, 1], np.uint8))
    data = load_images(str(path))
    assert data.labels.tolist() == [0, 9, 1]
    assert data.class_names == tuple("0123456789")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"labels": np.zeros(3, int)}, "no array `images`; it holds labels"),
        ({"images": IMAGES.astype(np.float32)}, "got float32 (3, 4, 5, 3)"),
        ({"images": IMAGES[0]}, "got uint8 (4, 5, 3)"),
        ({"images": IMAGES[:0]}, "got uint8 (0, 4, 5, 3)"),
        ({"images": IMAGES, "labels": np.zeros(2, int)}, "2 labels for 3 images"),
        ({"images": IMAGES, "labels": np.zeros(3)}, "labels must be integers (N,), got float64"),
        ({"images": IMAGES, "labels": np.array([0, -1, 0])}, "label -1 of image 1"),
        (
            {"images": IMAGES, "labels": np.array([0, 2, 0]), "class_names": np.array(["a", "b"])},
            "label 2 of image 1 is not in 0…1",
        ),
        ({"images": IMAGES, "class_names": np.zeros(3)}, "class_names must be strings"),
        ({"images": np.array([{}], object)}, "pickled Python objects, which are never opened"),
    ],
)
def test_a_bad_npz_file_is_named(tmp_path, arrays, message):
    path = tmp_path / "bad.npz"
    np.savez(path, **arrays)
    error = error_of(path)
    assert message in error.what
    assert str(path) in error.where


def test_a_truncated_npz_file_is_refused(tmp_path):
    path = tmp_path / "cut.npz"
    np.savez(path, images=IMAGES)
    data = path.read_bytes()
    for cut in (b"", b"text", data[:50], data[:-20]):
        path.write_bytes(cut)
        assert "not an .npz file, or truncated" in error_of(path).what
    path.write_bytes(data[:200] + bytes([data[200] ^ 1]) + data[201:])
    assert "not an .npz file, or truncated" in error_of(path).what
    np.save(tmp_path / "single.npy", IMAGES)
    path.write_bytes((tmp_path / "single.npy").read_bytes())
    assert "not an .npz file, or truncated" in error_of(path).what


@pytest.fixture
def folder(tmp_path):
    image_module = pytest.importorskip("PIL.Image", reason="Pillow not installed")
    for i, name in enumerate(("cat", "dog")):
        (tmp_path / name).mkdir()
        for j in range(2):
            pixels = np.full((6, 8, 3), 40 * i + j, np.uint8)
            image_module.fromarray(pixels).save(tmp_path / name / f"{j}.png")
    return tmp_path


def test_a_folder_has_one_class_a_sub_folder(folder):
    data = load_images(f"folder:{folder}")
    assert data.images.shape == (4, 6, 8, 3)
    assert data.images[:, 0, 0, 0].tolist() == [0, 1, 40, 41]
    assert data.labels.tolist() == [0, 0, 1, 1]
    assert data.class_names == ("cat", "dog")


def test_a_folder_is_scaled_and_cropped_to_a_size(folder):
    data = load_images(f"folder:{folder}", size=(12, 10, 1))
    assert data.images.shape == (4, 12, 10, 1)
    assert data.images[:, 5, 5, 0].tolist() == [0, 1, 40, 41]


def test_a_folder_of_several_sizes_needs_a_size(folder):
    from PIL import Image

    Image.fromarray(np.zeros((3, 3, 3), np.uint8)).save(folder / "dog" / "2.png")
    error = error_of(f"folder:{folder}")
    assert error.what == "3x3 pixels where the first image has 6x8"
    assert "2.png" in error.where


def test_a_damaged_image_is_named(folder):
    (folder / "dog" / "0.png").write_bytes((folder / "dog" / "0.png").read_bytes()[:30])
    error = error_of(f"folder:{folder}")
    assert "not a readable image" in error.what
    assert "0.png" in error.where


def test_an_empty_folder_is_named(tmp_path):
    pytest.importorskip("PIL.Image", reason="Pillow not installed")
    assert error_of(f"folder:{tmp_path}").what == "no images in 0 class folders"
    assert "no such folder" in error_of(f"folder:{tmp_path / 'none'}").what


def test_a_folder_without_pillow_names_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    assert "Pillow" in error_of(f"folder:{tmp_path}", MissingDependencyError).what


@pytest.mark.parametrize("spec", ["cifar", "fashion-mnist:", "folder:", "", "a.npy"])
def test_an_unknown_source_lists_the_known_ones(spec):
    assert "fashion-mnist:DIR" in error_of(spec, UsageError).todo
