"""FID, KID, precision and recall, and InceptionV3's features, of this library and of its peers: numbers and seconds.

    python benchmarks/metric_peers.py --out=benchmarks/results/metric_peers.json

Needs the ``bench`` extra. The features are random and the same for all libraries, and so are InceptionV3's weights,
which go through a file that PyTorch wrote; nothing is downloaded.
"""

import argparse
import contextlib
import io
import sys
import tempfile
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import prdc
import pytorch_fid.inception
import torch
from provenance import provenance
from pytorch_fid.fid_score import calculate_frechet_distance
from timing import in_turn, spread, write_record
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric

from efsgd_jax.evaluation.metrics import frechet_distance_of_features, kernel_distance, load_inception, manifold_scores

PEERS = ("torch", "torchvision", "pytorch-fid", "torch-fidelity", "prdc")
TOLERANCE = {"FID": 1e-3, "KID": 1e-3, "PRDC": 1e-3, "InceptionV3": 1e-4}
OURS = "efsgd_jax"
Run = dict[str, Callable[[], Any]]


def random_features(n: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    """Two samples that differ by a little, at least 0 like a network's features: float32 ``[n, d]`` each."""
    rng = np.random.default_rng(0)
    # Few directions carry the variance, as in a network: in 2048 equal ones everything is far from everything.
    mixing = rng.normal(size=(min(d, 32), d)) / 4
    return tuple(
        np.maximum(rng.normal(size=(n, len(mixing))) @ mixing + 0.1 * rng.normal(size=(n, d)) + shift, 0.0).astype("f4")
        for shift in (0.0, 0.1)
    )


def frechet(real: np.ndarray, fake: np.ndarray) -> Run:
    def pytorch_fid_distance() -> float:
        moments = [(x.mean(axis=0), np.cov(x, rowvar=False)) for x in (real, fake)]
        return float(calculate_frechet_distance(*moments[0], *moments[1]))

    def torch_fidelity_distance() -> float:
        statistics = [fid_features_to_statistics(torch.from_numpy(x)) for x in (fake, real)]
        return fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]

    return {
        OURS: lambda: frechet_distance_of_features(real, fake),
        "pytorch-fid": pytorch_fid_distance,
        "torch-fidelity": torch_fidelity_distance,
    }


def kernel(real: np.ndarray, fake: np.ndarray) -> Run:
    def torch_fidelity_distance() -> tuple[float, float]:
        result = kid_features_to_metric(torch.from_numpy(fake), torch.from_numpy(real), verbose=False)
        return result["kernel_inception_distance_mean"], result["kernel_inception_distance_std"]

    return {OURS: lambda: kernel_distance(real, fake), "torch-fidelity": torch_fidelity_distance}


def manifolds(real: np.ndarray, fake: np.ndarray) -> Run:
    def peer() -> tuple[float, ...]:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints its sizes
            result = prdc.compute_prdc(real, fake, nearest_k=5)
        return tuple(float(result[key]) for key in ("precision", "recall", "density", "coverage"))

    return {OURS: lambda: tuple(manifold_scores(real, fake)), "prdc": peer}


def inception(num_images: int) -> Run:
    """Both networks with one set of random weights, statistics of batch normalisation included."""
    torch.manual_seed(0)
    pytorch_fid.inception.load_state_dict_from_url = lambda *_, **__: _random_weights()
    model = pytorch_fid.inception.fid_inception_v3()
    pytorch_fid.inception.load_state_dict_from_url = lambda *_, **__: model.state_dict()
    peer = pytorch_fid.inception.InceptionV3().eval()
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "random.pth"
        torch.save(model.state_dict(), file)
        ours = load_inception(file)
    images = np.random.default_rng(0).integers(0, 256, (num_images, 32, 32, 3), np.uint8)
    images //= np.array([1, 2, 4, 8], np.uint8)[np.arange(num_images) % 4].reshape(-1, 1, 1, 1)

    @torch.no_grad()
    def of_peer() -> np.ndarray:
        chunks = torch.from_numpy(images).permute(0, 3, 1, 2).float().div(255).split(32)
        return torch.cat([peer(chunk)[0][:, :, 0, 0] for chunk in chunks]).numpy()

    return {OURS: lambda: ours.features(images), "pytorch-fid": of_peer}


def _random_weights() -> dict[str, torch.Tensor]:
    """Of such sizes that what passes through keeps its own."""
    import torchvision

    model = torchvision.models.inception_v3(num_classes=1008, aux_logits=False, weights=None, init_weights=False)
    weights = model.state_dict()
    for name, tensor in weights.items():
        if tensor.ndim > 1:
            tensor.normal_(0.0, (2.0 / tensor[0].numel()) ** 0.5)
        elif name.endswith((".bn.weight", "running_var")):
            tensor.uniform_(0.7, 1.3)
        elif tensor.is_floating_point():
            tensor.normal_(0.0, 0.1)
    return weights


def compare(run: Run, rounds: int, tolerance: float) -> dict[str, Any]:
    """Values, what those of each library differ from ours by at most, and seconds of each round.

    Differences of scores are relative to ours, those of features absolute.
    """
    values = {name: np.asarray(f()) for name, f in run.items()}
    ours = values[OURS]
    scale = np.ones_like(ours) if ours.ndim == 2 else np.abs(ours)
    differences = {k: float(np.max(np.abs(v - ours) / scale)) for k, v in values.items() if k != OURS}
    assert max(differences.values()) <= tolerance, differences
    seconds = {name: [t / 1e3 for t in times] for name, times in in_turn(run, rounds).items()}
    shown = {name: value.tolist() for name, value in values.items() if value.ndim < 2}
    return {"values": shown, "differences": differences, "seconds": seconds}


def to_rows(name: str, result: Mapping[str, Any]) -> list[str]:
    rows = []
    for peer, seconds in result["seconds"].items():
        value = result["values"].get(peer)
        shown = "" if value is None else " ".join(f"{x:.6g}" for x in np.atleast_1d(value))
        difference = f"{result['differences'][peer]:.1e}" if peer != OURS else ""
        rows.append(f"| {name} | {peer} | {shown} | {difference} | {spread(seconds)} |")
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000, help="of features, real and generated")
    parser.add_argument("--dimensions", default="128,2048", help="of features, separated by commas")
    parser.add_argument("--images", type=int, default=64, help="through InceptionV3")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", help="JSON file of results")
    args = parser.parse_args()
    sizes = {k: v for k, v in vars(args).items() if k != "out"}
    record: dict[str, Any] = {**provenance(), **{name: version(name) for name in PEERS}, "sizes": sizes, "runs": {}}
    print("| | | value | difference | seconds |\n|---|---|---|---|---|")

    def add(name: str, kind: str, run: Run) -> None:
        record["runs"][name] = result = compare(run, args.rounds, TOLERANCE[kind])
        print("\n".join(to_rows(name, result)), flush=True)
        write_record(args.out, record)

    add("InceptionV3's features", "InceptionV3", inception(args.images))
    for d in map(int, args.dimensions.split(",")):
        real, fake = random_features(args.rows, d)
        for kind, run in (("FID", frechet), ("KID", kernel), ("PRDC", manifolds)):
            add(f"{kind}, d = {d}", kind, run(real, fake))
    return 0


if __name__ == "__main__":
    sys.exit(main())
