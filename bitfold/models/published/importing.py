"""Published checkpoint → network of ours, by the family that its tensor names show."""

from collections.abc import Callable
from dataclasses import dataclass

from bitfold.errors import InputError, UnsupportedError, UsageError
from bitfold.models.loaded_net import LoadedNet, empty_network, kind_of, shortened, value_problems
from bitfold.models.nets import QuantNet
from bitfold.models.published import basq, pact, sttn, uniq
from bitfold.models.published.last_input import quantize_last_input
from bitfold.models.published.layout import Assembly, PublishedOptions, TensorTable, unwrap


@dataclass(frozen=True, slots=True)
class Family:
    """A layout: its name, what tells it from the others, and how it is read."""

    name: str
    recognise: Callable[[TensorTable], bool]
    convert: Callable[[TensorTable, PublishedOptions], Assembly]


FAMILIES = (
    Family("UniQ", uniq.recognise, uniq.convert),
    Family("BASQ", basq.recognise, basq.convert),
    Family("STTN, training", sttn.recognise_branches, sttn.convert_branches),
    Family("STTN, merged", sttn.recognise_merged, sttn.convert_merged),
    Family("PACT", pact.recognise, pact.convert),
)


def import_published(content: object, options: PublishedOptions, *, where: str) -> LoadedNet:
    """The network in ``content``, what ``torch.load`` gave for a published checkpoint.

    ``where`` names the file in errors. Raises InputError for tensors that are missing, left over
    or impossible, UnsupportedError for a layout or network that is not offered, UsageError for
    options that are missing or contradict the tensors.
    """
    table = TensorTable(unwrap(content, where), where)
    family = _family(table)
    try:
        assembly = family.convert(table, options)
        table.finish()
        model = assembly.prepare(empty_network(assembly.spec))
    except UsageError as error:
        raise error.within(where) from error
    _fill(model, assembly, where)
    model.eval()
    if options.calibration is not None:
        table.notes.append(quantize_last_input(model, options.calibration))
    record = {"published": family.name, **_training_facts(content)}
    return LoadedNet(model, assembly.spec, record, tuple(table.notes))


def _family(table: TensorTable) -> Family:
    for family in FAMILIES:
        if family.recognise(table):
            return family
    raise UnsupportedError(
        f"tensors of no known published layout: {shortened(table.values)}",
        where=table.where,
        todo="Known: " + ", ".join(family.name for family in FAMILIES) + ".",
    )


def _fill(model: QuantNet, assembly: Assembly, where: str) -> None:
    wanted = model.state_dict()
    for target, value in assembly.tensors.items():
        if target not in wanted or kind_of(value) != kind_of(wanted[target]):
            place = kind_of(wanted[target]) if target in wanted else "no tensor"
            raise InputError(
                f"{assembly.origins[target]} is {kind_of(value)} where the network has {place}",
                where=where,
                todo="The file holds another network, or a variant that is not known.",
            )
    model.load_state_dict(assembly.tensors, assign=True)
    problems = value_problems(model)
    if problems:
        raise InputError(
            f"the checkpoint's numbers make no network: {shortened(problems)}",
            where=where,
            todo="The file is damaged, or training diverged.",
        )


def _training_facts(content: object) -> dict[str, object]:
    """The plain numbers and words beside the tensors: epoch, accuracy, architecture."""
    if not isinstance(content, dict):
        return {}
    return {
        str(key): value
        for key, value in content.items()
        if isinstance(value, bool | int | float | str)
    }
