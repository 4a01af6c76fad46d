"""Published checkpoints as integers: against the published code's logits, and layer by layer."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from bitfold.export import compare_codes, fold_network, quantizer_names
from bitfold.models import PublishedOptions, load_checkpoint, load_images
from bitfold.runtime import Session
from tests.published_images import PREPROCESSING, images_of

pytestmark = [pytest.mark.torch, pytest.mark.slow]
DATA = Path(__file__).parents[1] / "data" / "published"
FILES = {
    "basq": ("basq_mbv2_w025_2bit.pth", "basq_mbv2_w025_2bit.npz", 32),
    "sttn-merged": ("sttn_resnet18_w16_ter.pth.tar", "sttn_resnet18_w16.npz", 64),
    "sttn-training": ("sttn_resnet18_w16_bwx2.pth.tar", "sttn_resnet18_w16.npz", 64),
    "uniq": ("uniq_presnet20_2bit.pth", "uniq_presnet20_2bit.npz", 32),
}
IMAGES_LAYER_BY_LAYER = 10
# What evaluating the trained network in float64 can itself move a value by.
FLOAT64_NOISE = 1e-9


@cache
def folded(name, edge_bits):
    """The imported network and its integer graph."""
    file, wanted, side = FILES[name]
    published = np.load(DATA / wanted)
    genome = tuple(map(int, published["selections"])) if "selections" in published else None
    options = PublishedOptions((side, side, 3), PREPROCESSING, genome=genome, edge_bits=edge_bits)
    model = load_checkpoint(DATA / file, published=options).model
    return model, fold_network(model), published["logits"]


def integer_logits(name, edge_bits):
    with Session(folded(name, edge_bits)[1].graph) as session:
        return session.run(images_of(FILES[name][2]))


@pytest.mark.parametrize("name", FILES)
def test_sixteen_bit_edges_give_the_published_class(name):
    same = integer_logits(name, 16).argmax(1) == folded(name, 16)[2].argmax(1)
    assert same.mean() >= 0.99


@pytest.mark.parametrize("name", FILES)
def test_eight_bit_edges_cost_at_most_half_a_point(name):
    labels = load_images("embedded").labels
    published = (folded(name, 8)[2].argmax(1) == labels).mean()
    assert (integer_logits(name, 8).argmax(1) == labels).mean() >= published - 0.005


@pytest.mark.parametrize("name", ["basq", "sttn-merged", "uniq"])
def test_a_code_flips_only_where_the_bound_allows(name):
    model, fold, _ = folded(name, 16)
    images = images_of(FILES[name][2])[:IMAGES_LAYER_BY_LAYER]
    with Session(fold.graph) as session:
        codes = session.trace(images)
    names = quantizer_names(fold.graph, model)
    flips, _ = compare_codes(model, names, images, codes=codes, layer_by_layer=True)
    bounds = {layer.name: layer.error for layer in fold.layers if layer.kind == "thresholds"}
    assert len(flips) == len(bounds)
    for flip in flips:
        assert flip.farthest <= bounds[flip.name] + FLOAT64_NOISE
        assert flip.flips == 0 or bounds[flip.name] > 0


def test_published_basq_states_the_bound_of_its_channel_multipliers():
    layers = folded("basq", 16)[1].layers
    stated = [layer for layer in layers if layer.kind == "channel multipliers"]
    assert len(stated) == 34
    assert all(0 < layer.error < 1e-3 for layer in stated)
