"""Networks of every method, folded: each quantizer agrees with the trained network's, and so does
every backend with the oracle.
"""

import numpy as np
import pytest
import torch
from torch import nn

from bitfold.errors import UnsupportedError
from bitfold.export import compare_codes, fold_network, onnx_model, quantizer_names, run_onnxruntime
from bitfold.export.onnx_check import is_available
from bitfold.export.onnx_reader import graph_of
from bitfold.ir import CodeTensor, Grid, to_text, trace_oracle
from bitfold.kernels.registry import kernels_of
from bitfold.models import (
    ActivationQuantizer,
    NetSpec,
    Preprocessing,
    PublishedPreprocessing,
    new_network,
)
from bitfold.runtime import Session

pytestmark = pytest.mark.torch
