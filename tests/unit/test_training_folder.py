"""Training on image files: read as needed, by workers or not, always the same batches."""

from dataclasses import replace

import numpy as np
import pytest
import torch

pytest.importorskip("PIL", reason="needs Pillow")
from PIL import Image

from bitfold.models import TrainConfig, TrainRequest, load_checkpoint, train_network
from bitfold.models.batches import FileBatches, make_batches
from bitfold.models.data import open_images
from bitfold.models.distributed import Share
from bitfold.models.image_folder import ImageFolder, random_box
from bitfold.models.request import load_splits

pytestmark = pytest.mark.torch
# On a machine with one core torch warns that two workers are many.
FEW_CORES = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")

CONFIG = TrainConfig(epochs=2, batch_size=8, compile=False, save_every_s=0.0)


@pytest.fixture
def folder(tmp_path):
    generator = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 4)):
        for name in ("cat", "dog"):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(count):
                height, width = generator.integers(12, 24, 2)
                pixels = generator.integers(0, 256, (height, width, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(tmp_path / split / name / f"{i:02}.png")
    return tmp_path


def request_for(folder, **changes):
    return TrainRequest(
        net="resnet8", method="uniq", bits=(2, 2), output=folder / "net.pt", width=0.25,
        data=f"folder:{folder}", size=(8, 8, 3), config=CONFIG, **changes,
    )  # fmt: skip


def test_imagenets_val_folder_is_the_test_set(folder):
    train_set, test_set = load_splits(request_for(folder))
    assert isinstance(train_set, ImageFolder)
    assert (len(train_set), len(test_set)) == (24, 8)
    assert train_set.class_names == ("cat", "dog")
    assert train_set.shape == (8, 8, 3)


def test_a_folder_without_a_test_split_holds_every_tenth_image_out(folder):
    request = replace(request_for(folder), data=f"folder:{folder / 'train'}")
    train_set, test_set = load_splits(request)
    assert (len(train_set), len(test_set)) == (22, 2)


@FEW_CORES
def test_workers_give_the_same_batches_in_any_order_of_asking(folder):
    source = open_images(f"folder:{folder}", "train", size=(8, 8, 3))
    alone, helped = (make_batches(source, CONFIG, share=Share(), workers=n) for n in (0, 2))
    assert isinstance(helped, FileBatches)
    for step in (0, 1, 2, 4, 5, 1):
        (images, labels), (same_images, same_labels) = alone.batch(step), helped.batch(step)
        assert images.dtype == torch.uint8
        assert images.shape == (8, 3, 8, 8)
        assert torch.equal(images, same_images)
        assert torch.equal(labels, same_labels)


def test_two_processes_read_the_two_halves_of_a_batch(folder):
    source = open_images(f"folder:{folder}", "train", size=(8, 8, 3))
    whole = make_batches(source, CONFIG, share=Share()).batch(3)
    parts = [make_batches(source, CONFIG, share=Share(rank, 2)).batch(3) for rank in (0, 1)]
    for i in (0, 1):
        assert torch.equal(whole[i], torch.cat([part[i] for part in parts]))


@FEW_CORES
def test_training_on_files_resumes_bit_for_bit(folder):
    train_network(request_for(folder))

    class StopError(Exception):
        pass

    def stop(progress):
        if progress.step == 4:
            raise StopError

    broken = replace(request_for(folder), output=folder / "broken.pt", workers=2)
    with pytest.raises(StopError):
        train_network(broken, report=stop)
    assert train_network(broken).resumed_from_step == 3
    first, second = (
        load_checkpoint(folder / name).model.state_dict() for name in ("net.pt", "broken.pt")
    )
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_random_box_lies_within_the_image():
    generator = np.random.default_rng(0)
    for _ in range(500):
        left, top, right, bottom = random_box(20, 31, least_area=0.1, generator=generator)
        assert 0 <= left < right <= 31
        assert 0 <= top < bottom <= 20
    assert random_box(1, 1000, least_area=0.9, generator=generator) == (0, 0, 1000, 1)
