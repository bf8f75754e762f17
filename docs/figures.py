"""The figures of the documentation: python docs/figures.py"""

import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from efsgd_jax.runs.statement import detection_bound

HERE = Path(__file__).parent
RESULTS = HERE.parent / "benchmarks/results"
GRIDS = RESULTS / "quality"


def save(figure: plt.Figure, name: str) -> None:
    figure.savefig(HERE / "figures" / f"{name}.svg", metadata={"Date": None}, bbox_inches="tight")
    plt.close(figure)


def what_epsilon_means() -> None:
    """An attack has a true positive rate of at most e^epsilon times its false positive rate, plus delta."""
    figure, axes = plt.subplots(figsize=(4.2, 3.8))
    false = np.linspace(0, 1, 2001)
    for epsilon in (0.2, 1, 3, 10):
        best = [detection_bound(epsilon, 0.0, rate) for rate in false]
        axes.plot(false, best, label=f"epsilon {epsilon:g}")
    axes.plot(false, false, "k:", linewidth=1, label="random guessing")
    axes.set(xlabel="false positive rate", ylabel="true positive rate, at most", xlim=(0, 1), ylim=(0, 1.02))
    axes.legend(loc="lower right", frameon=False)
    save(figure, "epsilon")


def one_step() -> None:
    """Gradients, clipped, summed, with noise."""
    rng = np.random.default_rng(3)
    gradients = rng.normal(size=(9, 2)) * rng.uniform(0.3, 1.8, (9, 1)) + [0.5, 0.2]
    lengths = np.linalg.norm(gradients, axis=1, keepdims=True)
    clipped = gradients * np.minimum(1, 1 / lengths)
    total = clipped.sum(0)
    figure, axes = plt.subplots(1, 3, figsize=(9.6, 3.3))
    titles = (
        "gradients, one for each image",
        "clipped to a norm of at most C",
        "their sum, with Gaussian noise",
    )
    for ax, arrows, title in zip(axes, (gradients, clipped, total[None]), titles, strict=True):
        for x, y in arrows:
            ax.annotate("", (x, y), (0, 0), arrowprops={"arrowstyle": "->", "color": "C0", "lw": 1.4})
        ax.set(title=title, aspect="equal", xticks=[], yticks=[])
        ax.title.set_fontsize(9)
    for ax in axes[:2]:
        ax.add_patch(plt.Circle((0, 0), 1, fill=False, linestyle=":"))
        ax.set(xlim=(-2.2, 3.2), ylim=(-2.7, 2.7))
    cloud = total + 1.2 * rng.normal(size=(400, 2))
    axes[2].plot(*cloud.T, ".", color="C1", alpha=0.25, markersize=3)
    axes[2].set(xlim=(total[0] - 5.5, total[0] + 4), ylim=(total[1] - 4.8, total[1] + 4.8))
    save(figure, "one_step")


def images_by_epsilon() -> None:
    """Grids of the config at several epsilons, from the benchmark's runs on held-out images."""
    figure, axes = plt.subplots(2, 4, figsize=(9.6, 5.2))
    for row, data in zip(axes, ("mnist", "fashion_mnist"), strict=True):
        for ax, epsilon in zip(row, ("0.2", "1", "10", "inf"), strict=True):
            grid = Image.open(GRIDS / f"{data}_{epsilon}.png")
            ax.imshow(np.asarray(grid), cmap="gray")
            ax.set_title("no noise" if epsilon == "inf" else f"epsilon {epsilon}", fontsize=9)
            ax.axis("off")
    figure.tight_layout()
    figure.savefig(HERE / "figures" / "images.png", dpi=110, metadata={"Software": None})
    plt.close(figure)


def utility_by_epsilon() -> None:
    """The privacy-utility curve of the mixture: gen2real and FID by epsilon, on held-out images."""
    runs = json.loads((RESULTS / "quality_held_out.json").read_text())["runs"]
    epsilons = ("0.2", "1", "3", "10", "inf")
    figure, axes = plt.subplots(1, 2, figsize=(9.0, 3.2))
    for data, name in (("mnist", "MNIST"), ("fashion_mnist", "Fashion-MNIST")):
        rows = [runs[f"{data} {epsilon}"] for epsilon in epsilons]
        axes[0].plot(epsilons, [100 * np.mean([r["gen2real_cnn"] for r in some]) for some in rows], "o-", label=name)
        axes[1].plot(epsilons, [np.mean([r["fid"] for r in some]) for some in rows], "o-", label=name)
    for ax, title in zip(axes, ("accuracy on real images, %", "FID"), strict=True):
        ax.set(xlabel="epsilon", title=title, xticks=range(5), xticklabels=[*epsilons[:-1], "no noise"])
        ax.legend(frameon=False)
    save(figure, "utility")


if __name__ == "__main__":
    plt.rcParams["svg.hashsalt"] = "efsgd_jax"
    what_epsilon_means()
    one_step()
    images_by_epsilon()
    utility_by_epsilon()
