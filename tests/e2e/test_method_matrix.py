"""Every network with every method that it has: all forms of its integers agree, and it simulates.

Small images, a quarter of the channels or fewer; benchmarks/matrix.py does it at full size.
"""

from collections import defaultdict

import numpy as np
import pytest

from bitfold.certify import compare_traces
from bitfold.export import fold_network
from bitfold.fpga_sim import simulate
from bitfold.ir import trace_oracle
from bitfold.kernels.c_backend import c_rows
from bitfold.models import NetSpec, Preprocessing, new_network
from bitfold.models.nets.catalogue import count_genes
from bitfold.models.offered import METHODS, NETS
from bitfold.models.spec import DEFAULT_GRID
from bitfold.runtime import Session

pytestmark = pytest.mark.torch

BACKENDS = ("c", "numba") if c_rows() else ("numba",)
SIDES = {"alexnet": 16, "mobilenetv1": 16, "mobilenetv2": 16}  # where 8 pixels are too few
WIDTHS = {"alexnet": 0.125, "resnet50": 0.125, "mobilenetv2": 0.125}


def each_with_some_bits():
    """(net, method, bits) of all pairs; every width of a method occurs on some network."""
    turns = defaultdict(int)
    for net, methods in NETS.items():
        for method in methods:
            if method == "float":
                continue
            offered = METHODS[method]
            widths = [w for w in offered.weights if w in offered.activations]
            bits = widths[turns[method] % len(widths)]
            turns[method] += 1
            yield pytest.param(net, method, (bits, bits), id=f"{net}-{method}-{bits}")


def small(net, method, bits, **options):
    side = SIDES.get(net, 8)
    fields = {
        "net": net,
        "method": method,
        "bits": bits,
        "input_shape": (side, side, 3),
        "class_names": ("a", "b", "c", "d", "e"),
        "preprocessing": Preprocessing(124, 58),
        "width": WIDTHS.get(net, 0.25),
        "weight_grid": DEFAULT_GRID.get(bits[0], "odd"),
        **options,
    }
    genes = count_genes(NetSpec(**fields)) if method == "basq" else 0
    return new_network(NetSpec(**fields, genome=tuple(i % 7 for i in range(genes))), seed=1)


def check_all_forms(model):
    graph = fold_network(model).graph
    shape = (2, *model.spec.input_shape)
    images = np.random.default_rng(2).integers(0, 256, shape, dtype=np.uint8)
    want = trace_oracle(graph, images)
    logits = want[graph.output.name]
    assert (logits[0] != logits[1]).any()
    for backend in BACKENDS:
        with Session(graph, backend=backend) as session:
            stage = compare_traces(backend, session.trace(images), want)
            assert stage.compared > logits.size
            assert stage.mismatches == 0, f"{backend}: {stage.first}"
            assert np.array_equal(session.run(images), logits)
    assert simulate(graph).cycles > 0


@pytest.mark.parametrize(("net", "method", "bits"), list(each_with_some_bits()))
def test_all_forms_of_a_small_network_agree(net, method, bits):
    check_all_forms(small(net, method, bits))


def test_all_forms_agree_with_one_activation_scale_a_channel():
    check_all_forms(small("mobilenetv2", "basq", (3, 3), per_channel=True))
