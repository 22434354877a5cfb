"""The best path coefficients in one solve: ridge regression on path features, exact and within memory.

Minimises Σ_i ‖y_i − Σ_j g_j(x_i) π_j·(x_i, 1) − c‖² + λ‖π‖² over π and c (c is not penalised), as
scikit-learn's `Ridge(λ)` does on the explicit features, in float64. By what is smaller, `route` chooses

* dual: (K + λI) α = y − c with K = (X₁X₁ᵀ) ∘ (GGᵀ), `[n, n]`, π = Φᵀα; the h (d + 1) columns are never
  formed, and ``GGᵀ_ij = (|g_i| + |g_j| − d_ij) / 2`` is counted on packed bits, d being the Hamming distance;
* primal: (ΦᵀΦ + λI) π = Φᵀy from sums over blocks of samples. Sums of shards are the sums of the pooled
  data, so shards that send them lose nothing;
* gradients: conjugate gradients on the primal equations, which forms neither matrix.

Source: the quantitative phase of GreenLightningAI (arXiv 2312.09971) and GLAI (arXiv 2510.00883) is linear in
its coefficients; that it minimises squared error with a ridge, and these three ways, are ours.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import reduce
from operator import add

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from ouikit.nn.paths import PathModel, with_one
from ouikit.patterns import hamming_distances

LIMIT = 10_000  # rows of the largest matrix that is factored: 0.8 GB, and as much for its factor
BLOCK = 2**24  # float64 numbers of a block: 128 MB
TOLERANCE = 1e-8  # of conjugate gradients: the residual over the right-hand side
STEPS = 5_000  # of conjugate gradients, at most
MAX_CONDITION = 1e14  # two of float64's sixteen digits are left


@dataclass(frozen=True)
class RidgeFit:
    """How a system was solved.

    route: "dual", "primal" or "gradients". condition: of the matrix that was solved, largest over smallest
    eigenvalue, estimated; by gradients, of the matrix scaled to a diagonal of ones. residual: of the
    equations, over their right-hand side. steps: of conjugate gradients, else 0.
    """

    route: str
    condition: float
    residual: float
    steps: int = 0


@dataclass(frozen=True)
class PathStatistics:
    """All that a ridge fit needs of some samples; the sum of two is that of both together.

    With p + 1 features (g_j x_i …, 1), float64: gram ΦᵀΦ `[p + 1, p + 1]`, moment Φᵀy `[p + 1, outputs]` and
    energy Σ y² `[outputs]`. samples: how many; structure: a digest of the gates.
    """

    gram: Tensor
    moment: Tensor
    energy: Tensor
    samples: int
    structure: str

    def __add__(self, other: "PathStatistics") -> "PathStatistics":
        """Statistics of both sets of samples. Raises ValueError for other gates or outputs."""
        if self.structure != other.structure or self.moment.shape != other.moment.shape:
            raise ValueError("statistics add up under the same gates and outputs only: share one model first")
        return PathStatistics(
            self.gram + other.gram,
            self.moment + other.moment,
            self.energy + other.energy,
            self.samples + other.samples,
            self.structure,
        )


def pooled(shards: Iterable[PathStatistics]) -> PathStatistics:
    """The sum of statistics. Raises ValueError for no shard, and as their addition."""
    sums = [*shards]
    if not sums:
        raise ValueError("there is no shard")
    return reduce(add, sums)


def route(samples: int, paths: int) -> str:
    """How `fit_ridge` solves for n samples and p = h (d + 1) paths per output. The rule, in one place.

    >>> route(1_300, 4_160), route(50_000, 4_160), route(50_000, 16_448)
    ('dual', 'primal', 'gradients')
    """
    if samples <= min(paths, LIMIT):
        return "dual"
    return "primal" if paths < LIMIT else "gradients"


@torch.no_grad()
def gate_gram(gates: Tensor) -> Tensor:
    """In how many units two samples are both on, for all pairs: bool `[n, h]` -> int64 `[n, n]`.

    Counted on packed bits (`ouikit.hamming_distances`). Raises TypeError or ValueError as that does.

    >>> gate_gram(torch.tensor([[True, True], [True, False]])).tolist()
    [[2, 1], [1, 1]]
    """
    distances, on = hamming_distances(gates), gates.sum(1)
    return distances.neg_().add_(on).add_(on[:, None]).div_(2, rounding_mode="floor")


@torch.no_grad()
def path_kernel(x: Tensor, gates: Tensor) -> Tensor:
    """(X₁X₁ᵀ) ∘ (GGᵀ), the products of all pairs of path features: float64 `[n, n]`.

    x: float `[n, d]`; gates: bool `[n, h]`. Needs the memory of its result and one block.

    >>> path_kernel(torch.tensor([[2.0], [3.0]]), torch.tensor([[True, True], [True, False]])).tolist()
    [[10.0, 7.0], [7.0, 10.0]]
    """
    both_on, x1 = gate_gram(gates), with_one(x.double())
    kernel = both_on.view(torch.float64)  # a row is overwritten once it has been read
    for rows in _blocks(len(x), len(x)):
        kernel[rows] = both_on[rows].double() * (x1[rows] @ x1.T)
    return kernel


@torch.no_grad()
def fit_ridge(model: PathModel, x: Tensor, y: Tensor, penalty: float, *, by: str | None = None) -> RidgeFit:
    """Set π and c of a model to the exact minimiser; its gates stay.

    Args:
        model: whose gates are used.
        x: float `[n, d]`. y: class labels int64 `[n]`, of which one-hot targets are made, or float
            targets `[n, outputs]`, or `[n]` for one output.
        penalty: λ > 0, of the sum of squares and not of its mean.
        by: a route by name, in the place of `route`'s choice.

    Returns:
        How it was solved, with the condition number.

    Raises:
        ValueError: nothing to fit (no samples, one class or constant targets, no gate that varies), values
            that are not finite, a penalty that is not > 0, or a system too ill-conditioned for float64. The
            model is then as it was.

    >>> model = PathModel(torch.tensor([[1.0], [-1.0]]), torch.zeros(2), outputs=1)
    >>> x = torch.linspace(-1, 1, 20)[:, None]
    >>> fit = fit_ridge(model, x, x.abs(), penalty=1e-6)
    >>> fit.route, round(model(torch.tensor([[-0.5]])).item(), 4)
    ('primal', 0.5)
    """
    targets, gates = _targets(model, x, y), model.gates(x)
    _check(penalty, targets.amin(0), targets.amax(0))
    _check_gates(gates.sum(0), len(x))
    chosen = by or route(len(x), model.paths[0].numel())
    if chosen == "dual":
        flat, fit = _dual(x, gates, targets, penalty)
    elif chosen == "primal":
        flat, fit = _primal(_sums(model, x, targets), penalty)
    elif chosen == "gradients":
        flat, fit = _gradients(model, x, gates, targets, penalty)
    else:
        raise ValueError(f"the routes are dual, primal and gradients: got {by!r}")
    _put(model, flat)
    return fit


@torch.no_grad()
def statistics(model: PathModel, x: Tensor, y: Tensor) -> PathStatistics:
    """What a shard sends: sums over its samples, under the gates of a model that all shards share.

    x, y: as in `fit_ridge`; a shard may hold one class alone. Raises ValueError for no samples, values that
    are not finite, or more than LIMIT paths per output.
    """
    targets = _targets(model, x, y)
    paths = model.paths[0].numel()
    if paths >= LIMIT:
        raise ValueError(
            f"{paths} paths per output need {8 * paths**2 / 2**30:.1f} GB of sums: fewer units, please"
        )
    return _sums(model, x, targets)


@torch.no_grad()
def fit_statistics(model: PathModel, sums: PathStatistics, penalty: float) -> RidgeFit:
    """Set π and c from statistics: what `fit_ridge` gives on all their samples.

    Raises ValueError as `fit_ridge`, and for statistics of other gates.

    >>> torch.manual_seed(0)  # doctest: +ELLIPSIS
    <torch...
    >>> x, y = torch.randn(60, 3), torch.arange(60) % 2
    >>> model = PathModel(torch.randn(4, 3), torch.randn(4), outputs=2)
    >>> shards = [statistics(model, x[part], y[part]) for part in (y == 0, y == 1)]
    >>> fit = fit_statistics(model, pooled(shards), penalty=1.0)
    >>> federated = model.paths.clone()
    >>> _ = fit_ridge(model, x, y, penalty=1.0)
    >>> torch.allclose(federated, model.paths, atol=1e-6)
    True
    """
    if sums.structure != _structure(model):
        raise ValueError("these statistics were taken under other gates than the model's")
    mean = sums.moment[-1] / sums.samples
    spread = (sums.energy / sums.samples - mean**2).clamp_min(0).sqrt()
    _check(penalty, mean, mean + torch.where(spread > 1e-9 * (1 + mean.abs()), spread, 0.0))
    on = sums.gram[-1, :-1].view(model.paths.shape[1:])[:, -1]
    _check_gates(on, sums.samples)
    flat, fit = _primal(sums, penalty)
    _put(model, flat)
    return fit


def _targets(model: PathModel, x: Tensor, y: Tensor) -> Tensor:
    """Float64 `[n, outputs]` of labels or targets; everything that is wrong with one sample is said here."""
    outputs, _, inputs = model.paths.shape
    if x.ndim != 2 or x.shape[1] != inputs - 1 or not x.is_floating_point():
        raise ValueError(f"inputs are floats [n, {inputs - 1}]: got {x.dtype} {tuple(x.shape)}")
    if not len(x) or len(y) != len(x):
        raise ValueError(f"each sample needs its target, and there must be some: got {len(x)} and {len(y)}")
    if not x.isfinite().all():
        row = int((~x.isfinite()).any(1).nonzero()[0])
        raise ValueError(f"the inputs are not all finite: the first such row is {row}. Drop or repair it")
    if not y.is_floating_point():
        if y.ndim != 1 or y.min() < 0 or y.max() >= outputs:
            raise ValueError(
                f"labels are [n], 0 to {outputs - 1}: got {tuple(y.shape)}, {int(y.min())} to {int(y.max())}"
            )
        return one_hot(y.long(), outputs).double()
    y = y[:, None] if y.ndim == 1 else y
    if y.shape[1:] != (outputs,) or not y.isfinite().all():
        raise ValueError(f"targets are finite [n, {outputs}]: got {tuple(y.shape)}")
    return y.double()


def _check(penalty: float, low: Tensor, high: Tensor) -> None:
    if not 0 < penalty < float("inf"):
        raise ValueError(f"the penalty must be > 0 and finite: got {penalty}")
    if torch.equal(low, high):
        raise ValueError("the targets do not vary (is there one class alone?), so there is nothing to fit")


def _check_gates(on: Tensor, samples: int) -> None:
    """on: how often each unit was on."""
    if ((on == 0) | (on == samples)).all():
        raise ValueError(
            f"no gate varies over these {samples} samples, so the model would be linear: train the gates, or "
            "standardise the inputs"
        )


def _structure(model: PathModel) -> str:
    values = torch.cat([model.gate_weight.flatten(), model.gate_bias]).double().cpu()
    return hashlib.sha256(values.numpy().tobytes()).hexdigest()[:16]


def _put(model: PathModel, flat: Tensor) -> None:
    """flat: [p + 1, outputs], c last."""
    model.paths.copy_(flat[:-1].T.reshape(model.paths.shape))
    model.bias.copy_(flat[-1])


def _blocks(samples: int, width: int) -> Iterator[slice]:
    size = max(1, BLOCK // width)
    return (slice(start, start + size) for start in range(0, samples, size))


def _features(x1: Tensor, gates: Tensor) -> Tensor:
    """Explicit path features and the 1, `[b, h (d + 1) + 1]`, of a block alone."""
    return with_one((gates.double()[:, :, None] * x1[:, None]).flatten(1))


def _adjoint(x1: Tensor, gates: Tensor, v: Tensor) -> Tensor:
    """Φᵀv, `[p + 1, outputs]`, for v `[b, outputs]`, without Φ."""
    weighted = (v[:, :, None] * gates.double()[:, None]).flatten(1)  # [b, outputs · h]
    flat = (weighted.T @ x1).view(v.shape[1], -1).T
    return torch.cat([flat, v.sum(0, keepdim=True)])


def _apply(x1: Tensor, gates: Tensor, flat: Tensor) -> Tensor:
    """Φ flat, `[b, outputs]`, without Φ."""
    units = x1 @ flat[:-1].T.reshape(-1, x1.shape[1]).T  # [b, outputs · h]
    units = units.view(len(x1), flat.shape[1], -1)
    return (units @ gates.double()[:, :, None]).squeeze(2) + flat[-1]


def _sums(model: PathModel, x: Tensor, targets: Tensor) -> PathStatistics:
    columns = model.paths[0].numel() + 1
    gram = targets.new_zeros(columns, columns)
    moment = targets.new_zeros(columns, targets.shape[1])
    for rows in _blocks(len(x), columns):
        phi = _features(with_one(x[rows].double()), model.gates(x[rows]))
        gram.addmm_(phi.T, phi)
        moment.addmm_(phi.T, targets[rows])
    return PathStatistics(gram, moment, targets.square().sum(0), len(x), _structure(model))


def _dual(x: Tensor, gates: Tensor, targets: Tensor, penalty: float) -> tuple[Tensor, RidgeFit]:
    kernel = path_kernel(x, gates)
    kernel.diagonal().add_(penalty)
    factor, condition = _factored(kernel, penalty)
    del kernel
    solved = _solved(factor, torch.cat([targets, targets.new_ones(len(x), 1)], 1))
    intercept = solved[:, :-1].sum(0) / solved[:, -1].sum()
    alpha = solved[:, :-1] - solved[:, -1:] * intercept
    x1 = with_one(x.double())
    blocks = [*_blocks(len(x), _width(gates, targets))]
    flat = torch.stack([_adjoint(x1[rows], gates[rows], alpha[rows]) for rows in blocks]).sum(0)
    flat[-1] = intercept
    left = targets - penalty * alpha
    for rows in blocks:
        left[rows] -= _apply(x1[rows], gates[rows], flat)
    return flat, RidgeFit("dual", condition, float(left.norm() / targets.norm()))


def _primal(sums: PathStatistics, penalty: float) -> tuple[Tensor, RidgeFit]:
    matrix = sums.gram.clone()
    matrix.diagonal()[:-1].add_(penalty)
    factor, condition = _factored(matrix, penalty)
    flat = _solved(factor, sums.moment)
    left = matrix @ flat - sums.moment
    return flat, RidgeFit("primal", condition, float(left.norm() / sums.moment.norm()))


def _gradients(
    model: PathModel, x: Tensor, gates: Tensor, targets: Tensor, penalty: float
) -> tuple[Tensor, RidgeFit]:
    """Conjugate gradients for all outputs at once, scaled by the diagonal (Golub and Van Loan, 11.5)."""
    blocks = [*_blocks(len(x), _width(gates, targets))]
    ridge = torch.full((model.paths[0].numel() + 1, 1), penalty, dtype=torch.float64, device=x.device)
    ridge[-1] = 0

    def product(flat: Tensor) -> Tensor:
        total = ridge * flat
        for rows in blocks:
            x1, on = with_one(x[rows].double()), gates[rows]
            total += _adjoint(x1, on, _apply(x1, on, flat))
        return total

    right, diagonal = torch.zeros_like(ridge).repeat(1, targets.shape[1]), ridge.clone()
    for rows in blocks:
        x1, on = with_one(x[rows].double()), gates[rows]
        right += _adjoint(x1, on, targets[rows])
        diagonal += torch.cat([(on.double().T @ x1.square()).flatten(), x1.new_tensor([len(x1)])])[:, None]
    scale = diagonal.rsqrt()
    right = scale * right
    flat, left, size = torch.zeros_like(right), right.clone(), float(right.norm())
    way, rho, alphas, betas = left.clone(), size**2, [0.0], [0.0]
    while rho**0.5 > TOLERANCE * size:
        if len(alphas) > STEPS:
            raise ValueError(
                f"conjugate gradients left a residual of {rho**0.5 / size:.1e} after {STEPS} steps: raise "
                f"the penalty above {penalty:g}, or standardise the inputs"
            )
        bent = scale * product(scale * way)
        alphas.append(rho / float((way * bent).sum()))
        flat += alphas[-1] * way
        left -= alphas[-1] * bent
        rho, before = float(left.square().sum()), rho
        betas.append(rho / before)
        way = left + betas[-1] * way
    left = right - scale * product(scale * flat)
    condition = _lanczos_condition(alphas[1:], betas[1:])
    return scale * flat, RidgeFit("gradients", condition, float(left.norm()) / size, len(alphas) - 1)


def _width(gates: Tensor, values: Tensor) -> int:
    return gates.shape[1] * values.shape[1]


def _factored(matrix: Tensor, penalty: float) -> tuple[Tensor, float]:
    """Cholesky factor of a symmetric matrix, and its condition number."""
    factor, info = torch.linalg.cholesky_ex(matrix)
    condition = float("inf") if info else _condition(factor)
    if condition > MAX_CONDITION:
        raise ValueError(
            f"with a penalty of {penalty:g} the system is too ill-conditioned for float64 (condition number "
            f"{condition:.1e}): raise the penalty, or standardise the inputs"
        )
    return factor, condition


def _solved(factor: Tensor, right: Tensor) -> Tensor:
    """(LLᵀ)⁻¹ right; `torch.cholesky_solve` would copy L, which may be as large as memory allows."""
    half = torch.linalg.solve_triangular(factor, right, upper=False)
    return torch.linalg.solve_triangular(factor.mT, half, upper=True)


def _condition(factor: Tensor) -> float:
    """Largest over smallest eigenvalue of LLᵀ, by ten steps of the power method in both directions."""
    generator = torch.Generator().manual_seed(0)
    ahead = torch.randn(len(factor), 1, dtype=factor.dtype, generator=generator).to(factor.device)
    back, ends = ahead.clone(), [ahead.norm(), ahead.norm()]
    for _ in range(10):
        ahead = factor @ (factor.T @ (ahead / ends[0]))
        back = _solved(factor, back / ends[1])
        ends = [ahead.norm(), back.norm()]
    return float(ends[0] * ends[1])


def _lanczos_condition(alphas: list[float], betas: list[float]) -> float:
    """From the tridiagonal matrix that conjugate gradients make on their way (Golub and Van Loan, 11.3.5)."""
    a, b = (torch.tensor(values, dtype=torch.float64) for values in (alphas, betas))
    diagonal = 1 / a
    diagonal[1:] += b[:-1] / a[:-1]
    beside = b[:-1].sqrt() / a[:-1]
    values = torch.linalg.eigvalsh(torch.diag(diagonal) + torch.diag(beside, 1) + torch.diag(beside, -1))
    return float(values[-1] / values[0])
