"""What a training did to the weight matrices: how far they moved, and how few directions that took.

LoRA bets that the change which fine-tuning makes to a matrix has low rank (Hu et al. 2021, section 4.1; Aghajanyan et
al. 2020 measured why it might). Full fine-tuning makes no such bet, so its change can be taken apart to see.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import accumulate
from typing import Any

from unsloth_course.core.errors import CourseError
from unsloth_course.core.writing import in_columns

ALL_OF_IT = 0.95  # of a gain
PLACE = re.compile(r"layers\.(\d+)\.\w+\.(\w+)\.")


def changes(model: Any, before: Mapping[str, Any]) -> dict[str, Any]:
    """The change of every weight matrix that a training moved, by its place: "3.q_proj", "embed_tokens".

    before: weights from before the training by parameter name, as `diagnosis.watch` keeps them (`watching.before`).
    Of a model with a LoRA adapter each change is the product (alpha / r) B A that the adapter adds, and `before` is not
    looked at. Norms are no matrices and are left out. Tensors are float32 on the CPU, outputs x inputs.

    Raises CourseError when the model has no adapter and none of its matrices is in `before`. Taught in lesson colab1.
    """
    found = {}
    for name, module in model.named_modules():
        if hasattr(module, "lora_A") and isinstance(getattr(module, "scaling", None), dict):
            for adapter, scale in module.scaling.items():
                pair = module.lora_B[adapter].weight, module.lora_A[adapter].weight
                up, down = (weight.detach().float().cpu() for weight in pair)
                found[_place(f"{name}.")] = scale * up @ down
    if not found:
        for name, weight in model.named_parameters():
            if name in before and weight.dim() == 2:
                found[_place(name)] = weight.detach().float().cpu() - before[name].float()
    if not found:
        raise CourseError(
            "No weight matrix of this model was watched and it has no adapter, so there is no change to look at. Pass "
            "the weights that `diagnosis.watch` noted before the training: `watching.before`."
        )
    return found


def _place(name: str) -> str:
    """Where a weight sits: "3.q_proj" for a projection of the layer with index 3, else the module's own name."""
    found = PLACE.search(name)
    return f"{found[1]}.{found[2]}" if found else name.removesuffix(".weight").rsplit(".", 1)[-1]


def moved(model: Any, before: Mapping[str, Any]) -> dict[str, float]:
    """How far each weight moved: the norm of its change over the norm that it had, 0.01 being one percent.

    By place, as in `changes`; norms too. before: as in `changes`. Only for a model that was trained whole. A weight
    that was all zeros has moved by 0 or infinitely far. Taught in lesson colab1.
    """
    shares = {}
    for name, weight in model.named_parameters():
        if name in before:
            old = before[name].float()
            change, size = float((weight.detach().float().cpu() - old).norm()), float(old.norm())
            place = _place(name) if weight.dim() == 2 else name.removesuffix(".weight").removeprefix("model.")
            shares[place] = change / size if size else 0.0 if not change else float("inf")
    return shares


def spectrum(change: Any) -> list[float]:
    """The singular values of a change, largest first: as many as its shorter side is long. Taught in lesson colab1."""
    return _directions(change)[0].tolist()


def noise(rows: int, columns: int, seed: int) -> list[float]:
    """The singular values of a matrix of random numbers: what a change without any structure would look like."""
    import torch

    return spectrum(torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)))


def _directions(change: Any) -> tuple[Any, Any]:
    """Singular values, largest first, and the singular vectors of the shorter side, as columns.

    By the eigenvectors of the smaller of its two products with itself: many times faster than a full decomposition, and
    in float64 exact to about one part in 10^8 of the largest value.
    """
    import torch

    change = change.double()
    product = change.T @ change if change.shape[0] >= change.shape[1] else change @ change.T
    squares, vectors = torch.linalg.eigh(product)
    return squares.clamp(min=0).sqrt().flip(0), vectors.flip(1)


def energy(values: Sequence[float]) -> list[float]:
    """The share of a change that its strongest directions hold: of the first, of the first two, and so on up to 1.

    values: singular values, largest first. The share is of the sum of their squares, which is the squared norm of the
    change; what the best approximation of rank r keeps (Eckart and Young 1936). All zeros give shares of 1.
    """
    sums = list(accumulate(value * value for value in values))
    return [held / sums[-1] if sums[-1] else 1.0 for held in sums]


def rank_for(values: Sequence[float], share: float = 0.9) -> int:
    """The fewest directions that hold this share of a change, by `energy`; 0 for a change of all zeros."""
    if not any(values):
        return 0
    return next(rank for rank, held in enumerate(energy(values), 1) if held >= share - 1e-12)


class Cut:
    """The change of every matrix of a model, taken apart into its singular directions: how few of them do the work?

    `with cut(model, watching.before).to(4):` is the model with the four strongest directions of each change and no
    more; `spectra` holds the singular values of each change by place. Raises CourseError when nothing was watched.
    """

    def __init__(self, model: Any, before: Mapping[str, Any]):
        self.model = model
        self.spectra: dict[str, list[float]] = {}
        self._pieces = {}
        for name, weight in model.named_parameters():
            if name in before and weight.dim() == 2:
                values, vectors = _directions(weight.detach() - before[name].to(weight.device))
                self.spectra[_place(name)] = values.tolist()
                self._pieces[name] = (before[name], vectors.float().cpu())
        if not self._pieces:
            raise CourseError(
                "There is no change to cut: none of the model's matrices was watched. Pass `watching.before`, the "
                "weights that `diagnosis.watch` noted before a full fine-tuning."
            )

    @property
    def hardest(self) -> str:
        """The place of the projection whose change needs the most directions for 90 % of it: the worst for LoRA."""
        return max(self.needed(), key=self.needed().get)

    def needed(self, share: float = 0.9) -> dict[str, int]:
        """How many directions hold this share of the change of each projection, by place."""
        return {place: rank_for(values, share) for place, values in self.spectra.items() if "." in place}

    def __repr__(self) -> str:
        needed, rows = self.needed(), []
        for kind in dict.fromkeys(place.partition(".")[2] for place in needed):
            found = {place: rank for place, rank in needed.items() if place.endswith(f".{kind}")}
            low, high, width = min(found.values()), max(found.values()), len(self.spectra[next(iter(found))])
            rows.append((kind, f"{low:>3} to {high:>3} of {width}"))
        return f"directions that hold 90 % of the change, of those that the matrix has:\n{in_columns(rows)}"

    @property
    def full_rank(self) -> int:
        """The rank at which nothing is cut."""
        return max(map(len, self.spectra.values()))

    @contextmanager
    def to(self, rank: int) -> Iterator[None]:
        """Inside the block, each matrix is what it was before plus the strongest `rank` directions of its change.

        Rank 0 takes all matrices back to the base. Norms stay as they were trained, since they have no rank. Afterwards
        every weight is the trained one again, to the bit.
        """
        import torch

        weights = dict(self.model.named_parameters())
        kept = {name: weights[name].detach().clone() for name in self._pieces}
        try:
            with torch.no_grad():
                for name, (old, vectors) in self._pieces.items():
                    old = old.to(kept[name].device).float()
                    change, strongest = kept[name].float() - old, vectors[:, :rank].to(old.device)
                    if change.shape[0] >= change.shape[1]:
                        change = (change @ strongest) @ strongest.T
                    else:
                        change = strongest @ (strongest.T @ change)
                    weights[name].copy_(old + change)
            yield
        finally:
            with torch.no_grad():
                for name, trained in kept.items():
                    weights[name].copy_(trained)


cut = Cut  # as the lesson on full fine-tuning writes it


def kept(scores: Mapping[int, float]) -> dict[int, float]:
    """The share of a gain that is left with each change cut to a rank: 0 at the smallest, 1 at the largest.

    scores: by rank, more being better: a share of right answers, or minus a loss. The smallest rank's is where the gain
    is counted from, the largest one's that of the uncut model. All zeros where nothing was gained.
    """
    start, whole = scores[min(scores)], scores[max(scores)]
    return {rank: (scores[rank] - start) / (whole - start) if whole > start else 0.0 for rank in sorted(scores)}


def sentence(scores: Mapping[int, float], rank: int = 16) -> str:
    """What scores at several ranks say about low rank, in words.

    scores: as for `kept`. rank: that of a LoRA to compare with, among the scores. Taught in lesson colab1.
    """
    left = kept(scores)
    whole = max(left)
    if not left[whole]:
        return "The change gained nothing, so nothing can be said about the rank that it needs."
    needed = next(one for one in left if left[one] >= ALL_OF_IT)
    text = f"Rank {needed} keeps {100 * left[needed]:.0f} % of what the whole change of rank {whole} gained"
    if rank not in left:
        return f"{text}."
    if needed <= rank:
        spare = f", and a LoRA of rank {rank} has directions to spare" if needed < rank else ""
        return f"{text}: low rank suffices here{spare}."
    return f"{text}, and rank {rank} only {100 * left[rank]:.0f} %: low rank does not suffice here."
