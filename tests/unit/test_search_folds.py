"""Which images fitness is counted on."""

import numpy as np
import pytest

from bitfold.errors import UsageError
from bitfold.models.search import Folds, open_validation_set


@pytest.fixture
def data(tmp_path):
    """100 images that hold their own number, five classes one after the other."""
    images = np.zeros((100, 2, 2, 1), np.uint8)
    images[:, 0, 0, 0] = np.arange(100)
    path = tmp_path / "data.npz"
    np.savez(path, images=images, labels=np.arange(100) // 20)
    return str(path)


def numbers(folds, fold):
    images, labels = open_validation_set(folds).read(fold)
    assert np.array_equal(labels, images[:, 0, 0, 0] // 20)
    return images[:, 0, 0, 0].tolist()


def test_the_defaults_are_the_published_folds():
    assert (Folds("embedded").count, Folds("embedded").images) == (10, 5000)


def test_folds_share_no_image_and_leave_out_what_training_tests_on(data):
    folds = Folds(data, 3, 30)
    seen = [number for fold in range(3) for number in numbers(folds, fold)]
    assert sorted(seen) == [number for number in range(100) if number % 10 != 9]


def test_spread_folds_hold_every_class(data):
    folds = Folds(data, 3, 10)
    assert [{n // 20 for n in numbers(folds, fold)} for fold in range(3)] == [set(range(5))] * 3


def test_stored_folds_are_runs(data):
    folds = Folds(data, 5, 18, "stored")
    assert [{n // 20 for n in numbers(folds, fold)} for fold in range(5)] == [
        {fold} for fold in range(5)
    ]


def test_fewer_images_than_there_are_lie_evenly_spaced(data):
    assert numbers(Folds(data, 1, 9), 0) == [0, 11, 22, 33, 44, 55, 66, 77, 88]


def test_too_many_images_are_refused_with_the_number_that_fits(data):
    with pytest.raises(UsageError, match=r"need 5000; there are 90 .*\n.*\nUse --fold-images 9\."):
        open_validation_set(Folds(data, 10, 500))


def test_images_without_labels_are_refused(tmp_path):
    np.savez(tmp_path / "u.npz", images=np.zeros((4, 2, 2, 1), np.uint8))
    with pytest.raises(UsageError, match="needs labels"):
        open_validation_set(Folds(str(tmp_path / "u.npz"), 1, 1))


@pytest.mark.parametrize("wrong", [{"count": 0}, {"images": 0}])
def test_no_fold_and_no_image_are_refused(wrong):
    with pytest.raises(UsageError, match=r"folds of .* images"):
        Folds("embedded", **wrong)


def test_the_digest_tells_images_apart(data):
    first, again, other = (open_validation_set(Folds(data, 2, n)).sha256() for n in (10, 10, 11))
    assert first == again != other


def test_files_stay_on_disk_until_their_fold_is_read(tmp_path):
    image = pytest.importorskip("PIL.Image")
    for name in ("a", "b"):
        (tmp_path / "train" / name).mkdir(parents=True)
        for i in range(5):
            pixels = np.full((3, 3), i * 10, np.uint8)
            image.fromarray(pixels).save(tmp_path / "train" / name / f"{i}.png")
    validation = open_validation_set(Folds(f"folder:{tmp_path}", 3, 3))
    validation.source.files[0].write_bytes(b"not an image")
    images, labels = validation.read(1)
    assert images.shape == (3, 3, 3, 1)
    assert labels.tolist() == [0, 0, 1]
    assert len(validation.sha256()) == 64
