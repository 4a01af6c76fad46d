"""Networks with quantizers, their checkpoints, their data and their training.

The names load on first use: reading images (``load_images``) needs numpy alone, the rest torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bitfold.models.calibration import calibrate
    from bitfold.models.checkpoints import load_checkpoint, load_one_network, save_checkpoint
    from bitfold.models.creation import new_network
    from bitfold.models.data import LabelledImages, load_images
    from bitfold.models.evaluation import evaluate
    from bitfold.models.loaded_net import LoadedNet
    from bitfold.models.nets import build_network, count_genes
    from bitfold.models.offered import METHODS, NETS
    from bitfold.models.protocol import ActivationQuantizer, WeightQuantizer
    from bitfold.models.published import PublishedOptions
    from bitfold.models.recipe import TrainConfig
    from bitfold.models.spec import NetSpec, Preprocessing, PublishedPreprocessing
    from bitfold.models.training import Progress, TrainRequest, TrainResult, train_network

__all__ = [
    # what a network is
    "NetSpec",
    "Preprocessing",
    "PublishedPreprocessing",
    "ActivationQuantizer",
    "WeightQuantizer",
    "METHODS",
    "NETS",
    "build_network",
    "count_genes",
    "calibrate",
    "new_network",
    # files
    "LoadedNet",
    "PublishedOptions",
    "load_checkpoint",
    "load_one_network",
    "save_checkpoint",
    "LabelledImages",
    "load_images",
    # training
    "Progress",
    "TrainConfig",
    "TrainRequest",
    "TrainResult",
    "evaluate",
    "train_network",
]

_HOMES = {
    "NetSpec": "spec",
    "Preprocessing": "spec",
    "PublishedPreprocessing": "spec",
    "ActivationQuantizer": "protocol",
    "WeightQuantizer": "protocol",
    "METHODS": "offered",
    "NETS": "offered",
    "build_network": "nets",
    "count_genes": "nets",
    "calibrate": "calibration",
    "new_network": "creation",
    "LoadedNet": "loaded_net",
    "PublishedOptions": "published",
    "load_checkpoint": "checkpoints",
    "load_one_network": "checkpoints",
    "save_checkpoint": "checkpoints",
    "LabelledImages": "data",
    "load_images": "data",
    "Progress": "training",
    "TrainConfig": "recipe",
    "TrainRequest": "training",
    "TrainResult": "training",
    "evaluate": "evaluation",
    "train_network": "training",
}


def __getattr__(name: str) -> object:
    """Import the module that holds ``name`` (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
