"""Stages trained as one network: per member scvi-tools' own loss, gradients and steps, whatever its company."""

import copy
import itertools
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from scvi.model import SCANVI
from scvi.module import SCANVAE, VAE
from scvi.train import SemiSupervisedTrainingPlan, TrainingPlan
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from study.cells.prepared import Cells
from study.cells.sources import query_names
from study.cells.twins import prepare
from study.config.composition import compose
from study.plan.split import Split, split_cells
from study.training.building import State, build_scvi, joint_anndata, predict_probabilities, state_of
from study.training.counts import Dense, OnDevice, Sparse, hold
from study.training.draws import drawn_labelled
from study.training.fused import Trained, train_together
from study.training.group import Group, Member
from study.training.hardware import Hardware
from study.training.members import Asked, assemble, cells_on
from study.training.models import finetune, pretrain
from study.training.noise import noise_shapes
from study.training.snapshot import ReadSnapshot, Snapshot, TrainingError
from study.training.stacked import Minibatch, Stack, learned_names, losses, minibatch
from tests.made import TINY, few_cells

GPU = Hardware(engine="gpu")
GENES, LABELS, BATCHES, CELLS = 40, 4, 3, 400
RNG = np.random.default_rng(0)
COUNTS = sp.csr_matrix(RNG.poisson(RNG.gamma(0.5, 1.5, size=(CELLS, GENES))).astype(np.float32))
BATCH, LABEL = RNG.integers(BATCHES, size=CELLS), RNG.integers(LABELS, size=CELLS)
NORMS = {"batch": ("both", "none"), "layer": ("none", "both"), "none": ("none", "none"), "both": ("both", "both")}
KL, RATIO, WIDTH = 0.3, 50.0, 48
# Cells of each member's minibatches, joint and labelled: whole ones, and such as the last of an epoch.
SIZES = [(48, 48), (31, 20), (48, 7)]


def build(kind: type[VAE], seed: int, dtype: torch.dtype, norm: str = "batch", **settings: Any) -> VAE:
    torch.manual_seed(seed)
    batch_norm, layer_norm = NORMS[norm]
    module: VAE = kind(
        GENES,
        n_batch=BATCHES,
        n_labels=LABELS,
        n_hidden=12,
        n_latent=5,
        use_batch_norm=batch_norm,
        use_layer_norm=layer_norm,
        **settings,
    )
    return module.to(dtype).train()


def cells_of(rows: Sequence[int], dtype: torch.dtype) -> dict[str, Tensor]:
    found = {"X": torch.from_numpy(COUNTS[list(rows)].toarray()).to(dtype)}
    return found | {
        key: torch.from_numpy(codes[list(rows)]).view(-1, 1) for key, codes in (("batch", BATCH), ("labels", LABEL))
    }


def stacked_cells(rows: Sequence[Sequence[int]], codes: np.ndarray, dtype: torch.dtype) -> Minibatch:
    """Minibatches of one width; what does not count are other cells."""
    padded = torch.tensor([[*one, *range(CELLS - WIDTH + len(one), CELLS)] for one in rows])
    x = torch.from_numpy(COUNTS.toarray())[padded].to(dtype)
    return minibatch(x, torch.from_numpy(codes)[padded], torch.tensor([len(one) for one in rows]))


def drawn_as_by_scvi_tools(module: VAE, seed: int, joint: int, labelled: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """What one step of a module draws from torch's global generator, in its order, by site; rows beyond are 0."""
    torch.manual_seed(seed)
    keep, normal = noise_shapes(module, WIDTH)
    order = [*(site for site in keep if site.startswith("z_encoder")), "z"]
    order += [*(site for site in keep if site.startswith("encoder_z2_z1")), "z2"]
    order += [site for site in keep if site.startswith("classifier")]
    order += [*(site for site in keep if site.startswith("labelled z_encoder")), "labelled z"]
    order += [site for site in keep if site.startswith("labelled classifier")]
    rate = next((part.p for part in module.modules() if isinstance(part, torch.nn.Dropout)), 0.0)
    found: dict[str, Tensor] = {}
    for site in order:
        n = labelled if site.startswith("labelled") else joint
        shape = keep.get(site) or {**normal, "labelled z": (1, WIDTH, module.n_latent)}.get(site)
        if shape is None:  # scVI has no labels
            continue
        true = (shape[0], n, shape[2])
        draw = torch.empty(true, dtype=dtype)
        draw = draw.bernoulli_(1 - rate) / (1 - rate) if site in keep else draw.normal_()
        found[site] = torch.zeros(shape, dtype=dtype)
        found[site][:, :n] = draw
    return found


def stack_of(modules: Sequence[VAE]) -> Stack:
    states = [module.state_dict() for module in modules]
    stack = {name: torch.stack([state[name] for state in states]) for name in states[0]}
    for name in learned_names(modules[0]):
        stack[name].requires_grad_()
    return stack


def rows_of(member: int) -> tuple[range, range]:
    joint, labelled = SIZES[member]
    return range(10 * member, 10 * member + joint), range(100 + member, 100 + member + labelled)


def stock_step(module: VAE, member: int, dtype: torch.dtype) -> Tensor:
    """Loss and gradients of scvi-tools' own first step."""
    joint, labelled = rows_of(member)
    torch.manual_seed(member)
    options: dict[str, Any] = {"kl_weight": torch.tensor(KL, dtype=dtype)}
    if isinstance(module, SCANVAE):
        options |= {"labelled_tensors": cells_of(labelled, dtype), "classification_ratio": RATIO + member}
    loss: Tensor = module(cells_of(joint, dtype), loss_kwargs=options)[2].loss
    loss.backward()
    return loss.detach()


def stacked_step(
    modules: Sequence[VAE], of: Sequence[int], dtype: torch.dtype
) -> tuple[Tensor, Mapping[str, Tensor], Stack]:
    """Losses, gradients and weights of the same step of several members as one."""
    stack, template = stack_of(modules), modules[0]
    drawn = [drawn_as_by_scvi_tools(modules[at], member, *SIZES[member], dtype) for at, member in enumerate(of)]
    noise = {site: torch.stack([one[site] for one in drawn]) for site in drawn[0]}
    joint = stacked_cells([rows_of(member)[0] for member in of], BATCH, dtype)
    labelled = stacked_cells([rows_of(member)[1] for member in of], LABEL, dtype)
    kl, ratio = torch.tensor([KL], dtype=dtype), torch.tensor([RATIO + member for member in of], dtype=dtype)
    shown = losses(template, stack, joint, labelled if isinstance(template, SCANVAE) else None, noise, kl, ratio)
    names = learned_names(template)
    gradients = torch.autograd.grad(shown.loss.sum(), [stack[name] for name in names])
    return shown.loss.detach(), dict(zip(names, gradients, strict=True)), stack


def distance(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm().clamp(min=1e-300))


def assert_same_step(kind: type[VAE], dtype: torch.dtype, limit: float, **settings: Any) -> None:
    modules = [build(kind, 10 + member, dtype, **settings) for member in range(len(SIZES))]
    loss, gradients, stack = stacked_step(modules, range(len(SIZES)), dtype)
    for member, module in enumerate(modules):
        assert distance(loss[member], stock_step(module, member, dtype)) <= limit
        expected = {name: weight.grad for name, weight in module.named_parameters() if weight.grad is not None}
        assert list(gradients) == list(expected), "Adam would decay a weight in one of them alone"
        of_member = torch.cat([gradients[name][member].flatten() for name in expected])
        assert distance(of_member, torch.cat([grad.flatten() for grad in expected.values()])) <= limit
        for name, value in module.state_dict().items():
            assert torch.allclose(stack[name][member], value, rtol=limit, atol=limit), name


@pytest.mark.parametrize("kind", [VAE, SCANVAE])
@pytest.mark.parametrize("likelihood", ["zinb", "nb", "poisson"])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float64, 1e-12), (torch.float32, 1e-5)], ids=["double", "single"])
def test_first_step_of_each_member_is_that_of_scvi_tools(
    kind: type[VAE], likelihood: str, norm: str, dtype: torch.dtype, limit: float
) -> None:
    """With dropout and sampling as scvi-tools draws them, at minibatches that are whole or not."""
    classifier = {"linear_classifier": norm == "batch"} if kind is SCANVAE else {}
    assert_same_step(kind, dtype, limit, norm=norm, gene_likelihood=likelihood, **classifier)


@pytest.mark.parametrize("kind", [VAE, SCANVAE])
@pytest.mark.parametrize(
    "settings",
    [
        {"n_layers": 2},
        {"dropout_rate": 0.0},
        {"n_layers": 2, "norm": "layer"},
        {"n_layers": 2, "deeply_inject_covariates": False, "var_activation": torch.nn.functional.softplus},
        {"extra_encoder_kwargs": {"var_eps": 0.1}},
    ],
    ids=["deep", "no dropout", "deep, layer", "covariates once", "variance"],
)
def test_other_networks(kind: type[VAE], settings: dict[str, Any]) -> None:
    assert_same_step(kind, torch.float64, 1e-12, **settings)


def test_a_classifier_of_its_own_size() -> None:
    assert_same_step(SCANVAE, torch.float64, 1e-12, classifier_parameters={"n_layers": 2, "n_hidden": 7})


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_order_and_company_change_nothing_beyond_rounding(dtype: torch.dtype) -> None:
    modules = [build(SCANVAE, 10 + member, dtype, linear_classifier=True) for member in range(3)]
    loss, gradients, _ = stacked_step(modules, [0, 1, 2], dtype)
    limit = 1e-13 if dtype == torch.float64 else 1e-6
    for group in ([2, 0, 1], [1], [2, 1]):
        other_loss, others, _ = stacked_step([modules[member] for member in group], group, dtype)
        for at, member in enumerate(group):
            assert distance(other_loss[at], loss[member]) <= limit
            for name, gradient in gradients.items():
                assert (others[name][at] - gradient[member]).norm() <= limit * gradients["px_r"][member].norm()


def on_device(room: int | None = None) -> OnDevice:
    counts = hold(COUNTS, torch.device("cpu"), 2**62 if room is None else room)
    return OnDevice(counts, torch.from_numpy(BATCH), torch.from_numpy(LABEL))


def member_of(kind: type[VAE], seed: int, n: int = 100, samples: int | None = 10, **settings: Any) -> Member:
    rows = np.random.default_rng(seed).permutation(CELLS)[:n]
    labelled = {str(label): rows[LABEL[rows] == label] for label in range(LABELS)} if kind is SCANVAE else {}
    return Member(build(kind, seed, torch.float32, **settings), rows, seed, labelled, samples, 50.0 + seed)


def trained(members: Sequence[Member], epochs: Sequence[int] = (2,), size: int = 32) -> list[Trained]:
    return train_together(members, on_device(), epochs, size)


def far(one: Trained, other: Trained) -> float:
    states = [one.states[max(one.states)], other.states[max(other.states)]]
    assert states[0].keys() == states[1].keys()
    return max(float((value - states[1][name]).abs().max()) for name, value in states[0].items())


@pytest.mark.parametrize("kind", [VAE, SCANVAE])
def test_whole_trainings_do_not_depend_on_the_company(kind: type[VAE]) -> None:
    """Also where epochs have other sizes of the last minibatch, and labelled cells are drawn in other numbers."""
    members = [
        member_of(kind, 1),
        member_of(kind, 2, n=98),
        member_of(kind, 3, samples=3),
        member_of(kind, 4, samples=None),
    ]
    together = trained(members)
    for at, member in enumerate(members):
        (alone,) = trained([member])
        assert far(together[at], alone) < 1e-5
        assert together[at].curves.keys() == alone.curves.keys()
        for name, curve in alone.curves.items():
            assert together[at].curves[name] == pytest.approx(curve, rel=1e-3, abs=1e-6), name
    assert far(*(trained([member])[0] for member in members[:2])) > 1e-3


def test_a_member_that_diverges_leaves_the_others_as_they_are() -> None:
    members = [member_of(SCANVAE, seed) for seed in range(3)]
    lost = copy.deepcopy(members[1])
    with torch.no_grad():
        next(lost.module.z_encoder.parameters()).fill_(torch.nan)
    whole, beside = trained(members), trained([members[0], lost, members[2]])
    assert beside[1].diverged == 1 and not np.isfinite(beside[1].curves["train_loss"]).any()
    for at in (0, 2):
        assert beside[at].diverged is None
        assert far(whole[at], beside[at]) == 0
        assert whole[at].curves == beside[at].curves


@pytest.mark.parametrize("kind", [VAE, SCANVAE])
def test_a_step_of_the_optimiser_is_that_of_scvi_tools(kind: type[VAE]) -> None:
    """The weights after a step of the group, and those of scvi-tools' module after one of its plan's optimiser."""
    members = [member_of(kind, seed, n=32, samples=None, dropout_rate=0.0) for seed in range(2)]
    group = Group(members, on_device(), 32)
    group.begin(41, group.draw())
    group.step()
    for at, one in enumerate(members):
        module = copy.deepcopy(one.module)
        plan = SemiSupervisedTrainingPlan(module, LABELS) if kind is SCANVAE else TrainingPlan(module)
        adam = plan.configure_optimizers()["optimizer"]
        options: dict[str, Any] = {"kl_weight": 0.1}
        rows = group.joint.rows[0, at].tolist()
        if kind is SCANVAE:
            labelled = group.labelled.rows[0, at].tolist()
            options |= {"labelled_tensors": cells_of(labelled, torch.float32), "classification_ratio": 50.0 + one.seed}
        given = [group.noise.sites[site][at].flatten(0, 1) for site in ("z", "z2") if site in group.noise.sites]
        with as_drawn([*given, torch.zeros(32, 5)] if kind is SCANVAE else given):
            module(cells_of(rows, torch.float32), loss_kwargs=options)[2].loss.backward()
        adam.step()
        for name, value in module.state_dict().items():
            assert torch.allclose(group.state(at)[name], value, rtol=1e-5, atol=1e-6), name


@contextmanager
def as_drawn(numbers: Sequence[Tensor]) -> Iterator[None]:
    """Let distributions be sampled with these standard normal numbers, one tensor after another."""
    left = list(numbers)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.distributions.normal, "_standard_normal", lambda *_, **__: left.pop(0))
        yield
    assert not left


def test_labelled_cells_are_drawn_anew_for_each_epoch_and_given_again_within_it() -> None:
    one = member_of(SCANVAE, 5, n=203, samples=12)
    group = Group([one, member_of(SCANVAE, 6, n=203, samples=None)], on_device(), 32)
    seen = []
    for epoch in (1, 2):
        group.begin(epoch, group.draw())
        drawn = [
            rows[:n].tolist() for rows, n in zip(group.labelled.rows[:, 0], group.labelled.sizes[:, 0], strict=True)
        ]
        assert len(drawn) == 7 and drawn[:2] == drawn[2:4] == drawn[4:6] and drawn[6] == drawn[0]
        cells = [*drawn[0], *drawn[1]]
        assert len(set(cells)) == len(cells) == 48 and (np.bincount(LABEL[cells]) == 12).all()
        assert set(cells) <= set(one.rows.tolist())
        joint = [rows[:n].tolist() for rows, n in zip(group.joint.rows[:, 0], group.joint.sizes[:, 0], strict=True)]
        assert sorted(itertools.chain(*joint)) == sorted(one.rows.tolist()) and len(joint[-1]) == 203 % 32
        seen.append(set(cells))
    assert seen[0] != seen[1]
    probes = group.probes(0, 2)
    assert probes["steps"] == 14 and probes["labelled_batches"] == 2 and probes["batches"] == 7
    assert sum(probes["distinct_labelled"].values()) == len(seen[0] | seen[1])


@pytest.mark.parametrize("kind", [VAE, SCANVAE])
@pytest.mark.parametrize("room", [None, 5], ids=["dense", "sparse"])
def test_a_step_asks_nothing_of_the_host(kind: type[VAE], room: int | None) -> None:
    """On a device without values whatever would wait for one fails, and so does what takes a tensor from the host."""
    group = Group([member_of(kind, 1), member_of(kind, 2)], on_device(room), 32)
    group.begin(1, group.draw())

    def moved(value: Any) -> Any:
        if isinstance(value, Tensor):
            return torch.empty_like(value, device="meta", requires_grad=value.requires_grad)
        if isinstance(value, dict):
            return {name: moved(one) for name, one in value.items()}
        if is_dataclass(value) and not isinstance(value, type):
            return type(value)(**{one.name: moved(getattr(value, one.name)) for one in fields(value)})
        return value

    for one in (group, group.noise):
        for name, value in vars(one).items():
            setattr(one, name, moved(value))
    group.learned = [group.stack[name] for name in learned_names(group.template)]
    group.noise.generators = [None, None]
    group.adam = SimpleNamespace(step=lambda: None)  # its own fused step knows real devices alone

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            found = function(*args, **(kwargs or {}))
            for one in tree_leaves((args, kwargs, found)):
                assert not isinstance(one, Tensor) or one.is_meta, function
            return found

    with Watch():
        group.step()
    assert all(weight.grad is not None and weight.grad.shape == weight.shape for weight in group.learned)


@pytest.mark.parametrize(("most", "dtype"), [(255, torch.uint8), (256, torch.int16), (32767, torch.int16)])
def test_counts_lie_in_the_smallest_type_that_holds_them(most: int, dtype: torch.dtype) -> None:
    matrix = sp.csr_matrix(np.array([[0, most], [0, 0], [7, 1]], dtype=np.float32))
    held = hold(matrix, torch.device("cpu"), 2**62)
    assert isinstance(held, Dense) and held.counts.dtype == dtype
    rows = torch.tensor([[2, 0], [1, 2]])
    assert torch.equal(held.gather(rows, torch.float32), torch.from_numpy(matrix.toarray())[rows])


@pytest.mark.parametrize(("most", "room"), [(32768, 2**62), (0.5, 2**62), (3, 5)])
def test_other_counts_stay_sparse(most: float, room: int) -> None:
    matrix = sp.csr_matrix(np.array([[0, most], [0, 0], [7, 1]], dtype=np.float32))
    held = hold(matrix, torch.device("cpu"), room)
    rows = torch.tensor([[2, 0], [1, 2]])
    assert isinstance(held, Sparse)
    assert torch.equal(held.gather(rows, torch.float32), torch.from_numpy(matrix.toarray())[rows])


@pytest.mark.parametrize(
    "others",
    [
        member_of(VAE, 1, norm="layer"),
        member_of(VAE, 1, gene_likelihood="nb"),
        member_of(VAE, 1, n=129),
        member_of(SCANVAE, 1),
    ],
)
def test_unlike_stages_are_refused(others: Member) -> None:
    with pytest.raises(ValueError, match="together"):
        trained([member_of(VAE, 0, n=100), others])
    assert trained([member_of(VAE, 0, dropout_rate=0.2), member_of(VAE, 1)])[1].diverged is None


def test_a_minibatch_of_one_cell_is_refused() -> None:
    with pytest.raises(ValueError, match="single cell"):
        trained([member_of(VAE, 0, n=97)])
    draws = drawn_labelled({"a": np.arange(40), "b": np.arange(40, 73)}, None, 24, np.random.default_rng(0))
    assert draws.size == 72, "as in `batches.LabelledBatches`"


@pytest.mark.parametrize(
    "settings",
    [
        {"dispersion": "gene-batch"},
        {"encode_covariates": True},
        {"log_variational": False},
        {"extra_decoder_kwargs": {"use_activation": False}},
    ],
    ids=["dispersion", "covariates", "counts as they are", "no activation"],
)
def test_losses_that_are_not_computed_here_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="cannot train together"):
        trained([member_of(VAE, 0, **settings)])


@cache
def simulated() -> Cells:
    data = compose(
        ["data=simulated", "data.simulate.reference_cells=240", "data.simulate.genes=80", "data.simulate.classes=3"]
    ).data
    with tempfile.TemporaryDirectory() as folder:
        return prepare(data, query_names(data)[:1], Path(folder))[query_names(data)[0]]


def test_members_start_from_the_weights_and_cells_of_their_stages() -> None:
    cells, config = few_cells(), compose([*TINY, "scanvi.n_samples_per_label=5"])
    parts, started = split_cells(cells, 0, 3, 128), {}
    stock = torch.optim.Adam.step

    def first(self: torch.optim.Adam, *args: Any, **kwargs: Any) -> Any:
        started.setdefault(
            len(self.param_groups[0]["params"]), [p.detach().clone() for p in self.param_groups[0]["params"]]
        )
        return stock(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.Adam, "step", first)
        kept: list[dict[str, Tensor]] = []
        pretrain(cells, parts, config, 3, [1], lambda s: kept.append(state_of(s.model)), Hardware())
        finetune(cells, parts, config, 3, [1], lambda s: kept.append(state_of(s.model)), Hardware(), kept[0])
    for asked, expected in zip(
        [Asked(parts, config, 3, [1]), Asked(parts, config, 3, [1], kept[0])], started.values(), strict=True
    ):
        (one,) = assemble(cells, [asked], GPU).members
        found = [weight for weight in one.module.parameters() if weight.requires_grad]
        assert len(found) == len(expected) and all(map(torch.equal, found, expected))
        assert np.array_equal(one.rows, parts.train)
    assert one.samples == 5 and sorted(np.concatenate(list(one.labelled.values()))) == sorted(parts.labelled)


def test_a_stage_by_itself_is_a_group_of_one() -> None:
    """What `transfer` trains: each level is read, and a loss that is not finite is an error."""
    cells, config = few_cells(), compose(TINY)
    parts, kept, read = split_cells(cells, 0, 3, 128), list[State](), list[Snapshot]()
    pretrain(cells, parts, config, 3, [1, 2], lambda snapshot: kept.append(state_of(snapshot.model)), GPU)
    finetune(cells, parts, config, 3, [1, 3], read.append, GPU, kept[1])
    assert len(kept) == 2 and not torch.equal(kept[0]["px_r"], kept[1]["px_r"])
    assert [(one.epoch, len(one.curves["train_loss"])) for one in read] == [(1, 1), (3, 3)]
    assert not any(part.training for part in read[1].model.module.modules())
    broken = {**kept[1], "px_r": torch.full_like(kept[1]["px_r"], torch.nan)}
    with pytest.raises(TrainingError, match="the training loss is nan in epoch 1"):
        finetune(cells, parts, config, 3, [2], read.append, GPU, broken)
    assert len(read) == 2


def test_members_draw_no_cell_without_a_label() -> None:
    labels = few_cells().labels.copy()
    labels[::7] = -1
    cells, config = replace(few_cells(), labels=labels), compose(TINY)
    parts = split_cells(cells, 0, 3, 128)
    state = state_of(build_scvi(joint_anndata(cells, parts), config.scvi))
    (one,) = assemble(cells, [Asked(parts, config, 3, [1], state)], GPU).members
    assert set(cells.unlabelled) <= set(one.rows)
    for name, rows in one.labelled.items():
        assert (labels[rows] == cells.classes.index(name)).all()


@pytest.mark.parametrize("made", ["bundled", "simulated"])
def test_cells_have_the_codes_that_scvi_tools_gives_them(made: str) -> None:
    cells = few_cells() if made == "bundled" else simulated()
    parts, held = split_cells(cells, 0, 3, 128), cells_on(cells, torch.device("cpu"))
    model = build_scvi(joint_anndata(cells, parts), compose(TINY).scvi)
    assert np.array_equal(model.adata_manager.get_from_registry("batch").ravel(), held.batch.numpy())
    model.is_trained_ = True
    labelled = SCANVI.from_scvi_model(model, unlabeled_category="Unknown", labels_key="label")
    codes = labelled.adata_manager.get_from_registry("labels").ravel()
    assert np.array_equal(codes[parts.labelled], held.labels.numpy()[parts.labelled])
    everything = held.counts.gather(torch.arange(20), torch.float32)
    assert torch.equal(everything, torch.from_numpy(cells.counts[:20].toarray()))


def recalls(called: Sequence[np.ndarray], cells: Cells, parts: Split) -> np.ndarray:
    """Recall of each class among held-out cells, shape (n_trainings, n_classes)."""
    truth, found = cells.labels[parts.held_out], [one[parts.held_out] for one in called]
    return np.array([[(one[truth == label] == label).mean() for label in range(len(cells.classes))] for one in found])


def test_recall_is_like_that_of_the_exact_engine() -> None:
    """Other random numbers, so another draw of chance: equal within what seeds make of it."""
    cells, seeds = simulated(), range(4)
    config = compose([*TINY, "scvi.n_hidden=32", "scanvi.n_samples_per_label=20"])
    parts = split_cells(cells, 0, 3, 64)
    called: dict[str, list[np.ndarray]] = {"exact": [], "gpu": []}

    def read(engine: str) -> ReadSnapshot:
        return lambda snapshot: called[engine].append(predict_probabilities(snapshot.model, cells).argmax(axis=1))

    for seed in seeds:
        kept: list[State] = []
        pretrain(cells, parts, config, seed, [12], lambda s, a=kept: a.append(state_of(s.model)), Hardware())
        finetune(cells, parts, config, seed, [8], read("exact"), Hardware(), kept[0])
    first: dict[int, State] = {}
    pretraining = assemble(cells, [Asked(parts, config, seed, [12]) for seed in seeds], GPU)
    assert not pretraining.train(lambda at, snapshot: first.update({at: state_of(snapshot.model)}))
    finetuning = assemble(cells, [Asked(parts, config, seed, [8], first[seed]) for seed in seeds], GPU)
    assert not finetuning.train(lambda _, snapshot: read("gpu")(snapshot))
    one, other = (recalls(each, cells, parts) for each in called.values())
    assert one.mean() > 0.6, "there is something to be like"
    assert np.abs(one.mean(axis=0) - other.mean(axis=0)).max() < 0.15
