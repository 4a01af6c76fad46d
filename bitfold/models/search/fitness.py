"""The fitness of a genome: images of a fold that the supernet, at that genome, classifies right."""

import contextlib
import functools
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from bitfold.errors import InputError, UsageError
from bitfold.models.checkpoints import load_checkpoint
from bitfold.models.evaluation import to_nchw
from bitfold.models.nets.basq_units import NUM_BRANCHES, BranchedNet, extract
from bitfold.models.quantizers.basq import BranchActivation, LsqActivation, LsqWeight
from bitfold.models.search.folds import Folds, ValidationSet, open_validation_set
from bitfold.models.search.genome import Genome

BATCH_SIZE = 250  # part of a fitness: float32 sums depend on it


@dataclass(frozen=True, slots=True)
class FitnessSource:
    """Where a process, this or another, finds supernet and images; ``sha256`` is the file's."""

    supernet: Path
    sha256: str
    folds: Folds


def file_sha256(path: Path) -> str:
    """Hexadecimal digest of a file; raises InputError if it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(
            f"the supernet cannot be read: {error}", where=f"file {path}", todo="Check the path."
        ) from error


def load_supernet(path: Path) -> BranchedNet:
    """The network in eval mode; raises UsageError unless it has all branches of every block."""
    model = load_checkpoint(path).model
    if not isinstance(model, BranchedNet) or model.spec.genome:
        raise UsageError(
            "not a BASQ supernet: there are no branches to choose from",
            where=f"file {path}",
            todo="Train one: bitfold train --method basq --supernet.",
        )
    assert all(len(unit.branches) == NUM_BRANCHES for unit in model.branch_units())
    return model.eval()


def assemble(supernet: BranchedNet, genome: Genome) -> BranchedNet:
    """A network of its own with the numbers of ``supernet`` at ``genome``, in the same mode.

    A block whose width differs from the supernet's is an approximation to start from: its clips
    stay (an LSQ activation step s becomes s·L/L' for L and L' steps up to the clip), and its
    weight steps are set anew by LSQ's rule 2·mean|w|/√Qp from the latent weights.

    Raises UsageError for a genome that does not fit.
    """
    if not genome.bits:
        return extract(supernet, genome.branches)
    spec = replace(supernet.spec, genome=genome.branches, block_bits=genome.bits)
    chosen = type(supernet)(spec)
    state = supernet.state_dict()
    own = {name: state[name] for name in chosen.state_dict() if not name.endswith(".bin")}
    chosen.load_state_dict(own, strict=False)
    _rescale_steps(supernet, chosen)
    return chosen.train(supernet.training)


@torch.no_grad()
def _rescale_steps(supernet: BranchedNet, chosen: BranchedNet) -> None:
    trained = dict(supernet.named_modules())
    for name, module in chosen.named_modules():
        before = trained.get(name)
        match module, before:
            case LsqActivation(), LsqActivation() if module.grid != before.grid:
                module.s.mul_(before.grid.hi / module.grid.hi)
            case BranchActivation(), BranchActivation() if module.grid == before.grid:
                module.bin.copy_(before.bin)
            case _:
                _refit_weight_steps(module, before)


def _refit_weight_steps(module: torch.nn.Module, before: torch.nn.Module | None) -> None:
    quantizer = getattr(module, "weight_quantizer", None)
    if not isinstance(quantizer, LsqWeight) or before is None:
        return
    weight = module.weight
    assert isinstance(weight, Tensor)
    if quantizer.grid != before.weight_quantizer.grid:  # type: ignore[union-attr]
        quantizer.calibrate(weight)


class FoldEvaluator:
    """A supernet and the validation images, ready to count hits; use one a process."""

    def __init__(self, supernet: BranchedNet, images: ValidationSet) -> None:
        self.supernet = supernet
        self.validation = images
        self._fold = -1
        self._images = self._labels = torch.empty(0)

    @torch.no_grad()
    def hits(self, fold: int, genome: Genome) -> int:
        """Images of ``fold`` whose top-1 class at ``genome`` is their label; one thread."""
        if fold != self._fold:
            images, labels = self.validation.read(fold)
            self._images, self._labels = to_nchw(images), torch.from_numpy(labels.copy())
            self._fold = fold
        if genome.bits:
            model = assemble(self.supernet, genome)
        else:
            model = self.supernet
            model.select(genome.branches)
        hits = 0
        with _one_thread():
            for start in range(0, len(self._images), BATCH_SIZE):
                logits = model(self._images[start : start + BATCH_SIZE].float())
                hits += int((logits.argmax(1) == self._labels[start : start + BATCH_SIZE]).sum())
        return hits


@functools.lru_cache(maxsize=1)
def open_evaluator(source: FitnessSource) -> FoldEvaluator:
    """The evaluator of this process; read once, kept until another one is asked for.

    Raises InputError where the file is not the one that the search was started with.
    """
    if file_sha256(source.supernet) != source.sha256:
        raise InputError(
            "the supernet is not the one the search started with",
            where=f"file {source.supernet}",
            todo="Give every machine the same file.",
        )
    return FoldEvaluator(load_supernet(source.supernet), open_validation_set(source.folds))


def count_hits(source: FitnessSource, fold: int, genome: Genome) -> int:
    """``FoldEvaluator.hits`` in whatever process this runs; its arguments can be sent."""
    return open_evaluator(source).hits(fold, genome)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """One torch thread: the order of float32 sums, and so a close call, depends on their number."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
