"""The report page and the comparison: what they show, what a page to publish never shows, and how they fit a screen."""

import base64
import html
import io
import json
import re
import shutil
import stat
import subprocess
from importlib import resources

import numpy as np
import pytest
from PIL import Image

from efsgd_jax import UserError, compare, load_dataset, report, sample
from efsgd_jax.audit.membership import audit_release
from efsgd_jax.cli.compare import main as make_comparison
from efsgd_jax.cli.main import COMMANDS
from efsgd_jax.cli.report import main as make_report
from efsgd_jax.evaluation.anchors import ANCHORS
from efsgd_jax.evaluation.metrics.utility import logistic_regression
from efsgd_jax.files import write_json
from efsgd_jax.formatting import format_epsilon
from efsgd_jax.privacy.mechanism import BLANK_REGION, IMAGE, PERSON, REGION, REPLACE, ZERO_OUT
from efsgd_jax.reports.images import data_uri, strip

NAMES = [str(i) for i in range(10)]
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")


def utility_of(train, test):
    predicted = logistic_regression(*train, 10)(test[0])
    confusion = np.zeros((10, 10), int)
    np.add.at(confusion, (test[1], predicted), 1)
    accuracy = float(np.mean(predicted == test[1]))
    return {
        "accuracy": accuracy,
        "std": 0.011,
        "accuracies": [accuracy, accuracy],
        "per_class": {
            name: float(row[i] / row.sum()) for i, (name, row) in enumerate(zip(NAMES, confusion, strict=True))
        },
        "confusion": (2 * confusion).tolist(),
        "num_train": len(train[1]),
        "num_test": len(test[1]),
    }


@pytest.fixture(scope="module")
def scores(finished_run):
    """Scores of the agreed layout, made of the run's own images; the CNN's are logistic regression's."""
    data, fake = load_dataset("digits"), sample(finished_run.workdir, 200)
    generated, real = (fake.images, fake.labels), (data.train_images[:300], data.train_labels[:300])
    to_real, to_generated = utility_of(generated, (data.test_images, data.test_labels)), utility_of(real, generated)
    apart = fake.images[:, None] / 255.0 - data.train_images[None, :300] / 255.0
    distances = np.sqrt(np.sum(apart**2, axis=(2, 3, 4)))
    closest = [
        {
            "generated": int(i),
            "train": int(distances[i].argmin()),
            "distance": float(distances[i].min()),
            "space": "pixels",
        }
        for i in np.argsort(distances.min(axis=1))[:4]
    ]
    space = {"authenticity": 0.5, "closer_to_train": 0.81, "expected_closer_to_train": 0.8, "z": 0.4}
    group = {
        "gen2real": {"logistic_regression": to_real, "cnn": to_real},
        "real2gen": {"cnn": to_generated},
        "fidelity": {"classifier": {"fid": 12.5, "kid": 0.25, "kid_std": 0.01, "recall": 0.42, "num_images": 200}},
    }
    copying = {"flagged": False, "exact_copies": 0, "spaces": {"pixels": space}, "closest": closest}
    protocols = {
        "dpac": {"num_images": 60000, "gen2real": {"mlp": to_real}, "remarks": ["fewer images than asked for"]}
    }
    return {"num_images": 200, "seed": 0, **group, "copying": copying, "protocols": protocols}


@pytest.fixture
def run(finished_run, tmp_path):
    """Without what other tests may have found out about it."""
    found = shutil.ignore_patterns("scores.json", "audit.json", "score_cache")
    return shutil.copytree(finished_run.workdir, tmp_path / "run", ignore=found)


@pytest.fixture
def scored(run, scores):
    write_json(run / "private/scores.json", scores, private=True)
    return run


def edit_json(path, change):
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value, indent=2) + "\n")


def pictures(page):
    found = re.findall(r"data:image/png;base64,([^\"']+)", page)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))) for data in found]


def shows(page, images):
    """Whether any of uint8 images ``[n, S, S, 1]`` is somewhere in a picture of the page, at any whole scale."""
    size, wanted = images.shape[1], {image.tobytes() for image in images}
    for picture in pictures(page):
        for channel in (picture[..., None] if picture.ndim == 2 else picture).transpose(2, 0, 1):
            for factor in range(1, min(channel.shape) // size + 1):
                for top, left in np.ndindex(factor, factor):
                    pixels = channel[top::factor, left::factor]
                    if min(pixels.shape) >= size:
                        windows = np.lib.stride_tricks.sliding_window_view(pixels, (size, size))
                        if any(w.tobytes() in wanted for w in windows.reshape(-1, size, size)):
                            return True
    return False


def test_a_run_without_scores_says_how_to_make_them_and_is_for_its_owner_only(run, capsys):
    assert make_report([str(run)]) == 0
    path = run / "private/report/report.html"
    assert capsys.readouterr().out.startswith(f"{path}: private")
    page = path.read_text()
    privacy = json.loads((run / "release/privacy.json").read_text())
    heading = re.sub("<[^>]*>", "", page.split("<h1>")[1].split("</h1>")[0]).strip()
    assert heading == f"({format_epsilon(privacy['epsilon'])}, 1e-05)-differentially private images"
    assert "the same one in which one image with its label is replaced by a blank record that contributes" in page
    assert "The guarantee covers these pictures" in page.split('id="samples"')[1].split("</section>")[0]
    assert page.index('id="privacy"') < page.index('id="samples"') < page.index('id="training"')
    programs = re.findall(rf"efsgd (\w+) (?:--workdir=)?{run}", page)
    assert {"evaluate", "audit", "release", "report"} <= set(programs) <= COMMANDS.keys()
    assert "python -m" not in page
    assert "Not covered by epsilon" not in page.split('id="scores"')[1].split("</section>")[0]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_page_needs_no_network_and_runs_nothing(scored):
    page = report(scored).read_text()
    assert "default-src 'none'" in html.unescape(page)
    written = re.sub(r"data:image/png;base64,[A-Za-z0-9+/=]+", "", page)  # a picture's letters may spell "on2C=", too
    assert not re.search(r"<(script|link|iframe|object)\b|\bon\w+=|@import|url\((?!#)", written)
    targets = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert targets
    assert all(t.startswith(("data:image/png", "#")) for t in targets)
    ids = re.findall(r'\bid="([^"]*)"', page)
    assert len(set(ids)) == len(ids)
    assert all(target[1:] in ids for target in targets if target.startswith("#"))


def test_scores_are_shown_with_intervals_and_not_as_private(scored, scores):
    page = report(scored).read_text()
    accuracy, n = scores["gen2real"]["cnn"]["accuracy"], scores["gen2real"]["cnn"]["num_test"]
    assert f"{100 * accuracy:.1f} ± 1.1" in page
    z = 1.959964  # Wilson's formula by hand
    middle, half = accuracy + z**2 / (2 * n), z * np.sqrt(accuracy * (1 - accuracy) / n + z**2 / (4 * n**2))
    low, high = (100 * (middle + sign * half) / (1 + z**2 / n) for sign in (-1, 1))
    assert f"95%: {low:.1f} to {high:.1f}; n = {n}" in page
    for text in ("Not covered by epsilon", "By the protocol dpac", "fewer images than asked for", "No copying found"):
        assert text in page
    counts = np.array(scores["gen2real"]["cnn"]["confusion"])
    row = page.split('class="matrix')[1].split("<tbody>")[1].split("</tr>")[0]
    shown = [int(x or 0) for x in re.findall(r"<td[^>]*>(\d*)</td>", row)]
    assert shown == [round(100 * x) for x in counts[0] / counts[0].sum()]
    seen = np.array(scores["real2gen"]["cnn"]["confusion"]).sum(axis=0) / 400
    balance = page.split('id="balance"')[1].split("</section>")[0]
    assert [float(x) for x in re.findall(r"<span>([\d.]+)<small>", balance)] == pytest.approx(100 * seen, abs=0.051)
    assert shows(page, load_dataset("digits").train_images)


def test_scores_of_another_generator_are_named_so_and_their_pairs_left_out(scored):
    edit_json(scored / "private/scores.json", lambda s: s.update(generator_sha256="0" * 64))
    page = report(scored).read_text()
    assert page.count("The scores are of another generator") == 4
    assert not pictures(page.split('id="copying"')[1])


def test_the_audit_s_bound_is_beside_the_claim(run):
    pytest.importorskip("jax_privacy")
    found = audit_release(run)
    write_json(run / "private/audit.json", found._asdict(), private=True)
    section = report(run).read_text().split('id="audit"')[1].split("</section>")[0]
    assert "does not refute" in section
    assert f">{format_epsilon(found.claimed)} at delta" in section
    write_json(run / "private/audit.json", {**found._asdict(), "bound": found.claimed + 1}, private=True)
    assert "The attack refutes the claim" in report(run).read_text()


def test_a_page_to_publish_is_made_of_the_release_alone(run, capsys):
    shutil.rmtree(run / "private")
    with pytest.raises(UserError, match=r"no private/ part; --release"):
        report(run)
    assert make_report([str(run), "--release"]) == 0
    assert "nothing real is on it" in capsys.readouterr().out
    page, data = (run / "report.html").read_text(), load_dataset("digits")
    real = np.concatenate([data.train_images, data.test_images])
    assert len(pictures(page)) == 20
    assert not shows(page, real)
    assert str(run) not in page
    for part in ("training", "scores", "classes", "balance", "copying", "audit"):
        assert f'id="{part}"' not in page
    enlarged = np.kron(strip(real[5:7]), np.ones((3, 3, 1))).astype(np.uint8)
    first = re.search(r"data:image/png;base64,[^\"]+", page).group()
    assert shows(page.replace(first, data_uri(enlarged)), real)  # it would be seen


def test_noisy_scores_of_a_release_say_what_they_cost(run):
    found = {"name": "gen2real.cnn", "accuracy": 0.873, "epsilon": 0.1, "noise_std": 0.0394, "num_test": 359}
    scores = {"mechanism": "count plus noise", "scores": [{**found, "interval_95": [0.81, 0.93]}]}
    write_json(run / "release/scores.json", scores)
    page = report(run, release=True).read_text()
    for text in ("released through a noisy query", "gen2real.cnn", "87.3", "81.0 to 93.0", "3.9", "count plus noise"):
        assert text in page


def test_a_run_without_a_guarantee_says_so_first(run):
    def spoil(privacy):
        privacy.update(guarantee=False, reason_for_no_guarantee="no noise was added", epsilon="inf")

    edit_json(run / "release/privacy.json", spoil)
    for release in (False, True):
        page = report(run, release=release).read_text()
        body = page.split("<body>")[1]
        assert re.sub("<[^>]+>", "", body).lstrip().startswith("NOT PRIVATE: no noise was added")
        assert "<title>NOT PRIVATE" in page
        assert "Proven." not in page


def test_names_cannot_be_markup(scored):
    bad = "<script>alert('&')</script>\"><img src=x onerror=alert(1)>"

    def rename(part):
        return {bad if name == "0" else name: value for name, value in part.items()}

    edit_json(scored / "release/config.json", lambda c: c["spec"]["class_names"].__setitem__(0, bad))
    edit_json(scored / "release/config.json", lambda c: c["config"]["data"].update(attribute=bad))
    edit_json(scored / "private/scores.json",
              lambda s: [u.update(per_class=rename(u["per_class"])) for u in s["gen2real"].values()])  # fmt: skip
    write_json(scored / "release/scores.json",
               {"mechanism": bad, "scores": [{"name": bad, "accuracy": 0.5, "epsilon": 1, "interval_95": [0, 1],
                                              "noise_std": 0.1, "num_test": 9}]})  # fmt: skip
    pages = [report(scored), report(scored, release=True), compare([scored], out=scored / "compare.html").page]
    for page in pages:
        text = page.read_text()
        assert bad not in text
        assert bad in html.unescape(text)
        assert "<script" not in text
        assert "<img src=x" not in text


def directory_at(path):
    path.unlink(missing_ok=True)  # the copied run may have a page
    path.mkdir(parents=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda run: (run / "private/scores.json").write_text("[1]"), "scores.json is damaged"),
        (lambda run: (run / "private/scores.json").write_text("{"), "cannot read"),
        (lambda run: (run / "private/scores.json").write_text('{"gen2real": {"cnn": [1]}}'), "make it again"),
        (lambda run: (run / "private/audit.json").write_text('{"bound": 1}'), "audit.json is damaged"),
        (lambda run: (run / "release/privacy.json").write_text("{}"), "not a privacy report"),
        (lambda run: (run / "release/config.json").write_text("{}"), "config.json is damaged"),
        (lambda run: (run / "release/generator.msgpack").write_bytes(b"x"), "damaged"),
        (lambda run: (run / "release/generator.msgpack").unlink(), "train it first"),
        (lambda run: shutil.rmtree(run), "not a directory"),
        (lambda run: directory_at(run / "private/report/report.html"), "is a directory"),
    ],
)
def test_mistakes_are_one_line(run, capsys, change, message):
    change(run)
    assert make_report([str(run)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1


def test_a_run_scored_by_a_protocol_alone_says_so_beside_one_that_is_not(scored, tmp_path, capsys):
    by_protocol = tmp_path / "by_protocol"
    shutil.copytree(scored, by_protocol)

    def only_dpac(found):
        for part in ("gen2real", "real2gen", "fidelity"):
            found.pop(part, None)

    edit_json(by_protocol / "private/scores.json", only_dpac)
    assert make_comparison([str(scored), str(by_protocol), f"--out={tmp_path / 'compare.html'}"]) == 0
    first, second = capsys.readouterr().out.split("\n\n")[:2]
    own, other = first.splitlines()[2:4]
    assert other.endswith("by dpac")
    assert "by dpac" not in own
    assert re.search(r"[0-9]\.[0-9] ± [0-9]", other)  # its accuracy stands in the same table
    assert str(by_protocol) in second


def test_scores_of_a_protocol_alone_fill_the_pages(scored, scores, tmp_path, capsys):
    def only_dpac(found):
        dpac = {**found["protocols"]["dpac"], "gen2real": {"cnn": scores["gen2real"]["cnn"]}}
        dpac |= {"num_images": 60_000, "fidelity": {"classifier": {"fid": 3.5, "recall": 0.61, "num_images": 10_000.0}}}
        dpac |= {"remarks": ["after a paper", "differs: in its images", "NOT the protocol's 60000 images"]}
        kept = {k: v for k, v in found.items() if k == "generator_sha256"}
        found.clear()
        found.update(kept, protocols={"dpac": dpac})

    edit_json(scored / "private/scores.json", only_dpac)
    page = tmp_path / "compare.html"
    assert make_comparison([str(scored), f"--out={page}"]) == 0
    text = capsys.readouterr().out
    first = text.split("\n\n")[0].splitlines()
    assert first[0].endswith("by the protocol dpac")
    assert "60,000 (FID: 10,000)" in first[2]
    assert first[3:5] == ["differs: in its images", "NOT the protocol's 60000 images"]
    assert "after a paper" not in text
    assert page.read_text().count("differs: in its images") == 1
    assert make_report([str(scored)]) == 0
    private = (scored / "private/report/report.html").read_text()
    assert "no scores by class" not in private
    assert "in percent; by the protocol dpac." in private


@pytest.fixture
def several(scored, run, finished_run, tmp_path):
    """A scored run, one without noise, one that claims to be of MNIST, and one that is not finished."""
    noiseless, mnist = tmp_path / "noiseless", tmp_path / "mnist"
    for copy in (noiseless, mnist):
        shutil.copytree(scored, copy)
    edit_json(noiseless / "release/privacy.json", lambda p: p.update(guarantee=False, epsilon="inf"))
    edit_json(noiseless / "release/config.json", lambda c: c["config"]["privacy"].update(epsilon=123.5))
    edit_json(mnist / "release/config.json", lambda c: c["config"]["data"].update(name="mnist"))
    edit_json(mnist / "release/config.json", lambda c: c["spec"].update(image_size=28))
    (tmp_path / "empty").mkdir()
    shutil.copytree(scored, tmp_path / "torn")
    (tmp_path / "torn/private/scores.json").write_text('{"protocols": {"dpac": []}}')
    return scored, noiseless, mnist, tmp_path / "empty", tmp_path / "torn"


def test_runs_are_compared_by_data_set_with_published_numbers(several, scores, tmp_path, capsys):
    page = tmp_path / "compare.html"
    assert make_comparison([*map(str, several), f"--out={page}"]) == 0
    text = capsys.readouterr().out
    digits, protocol, settings, mnist = text.split("\n\n")[:4]
    assert digits.splitlines()[0].startswith("digits, 8×8")
    assert protocol.splitlines()[0].endswith("by the protocol dpac")
    assert "MLP" in protocol
    assert "MLP" not in digits
    assert settings.splitlines()[0].endswith("settings that differ")
    assert len(settings.splitlines()) == 3  # the title, the head, and the one setting
    assert "123.5" in settings
    assert mnist.startswith("mnist, 28×28")
    assert re.search(rf"{several[1]} +∞ +1e-05 +NOT PRIVATE", digits)
    assert f"{100 * scores['gen2real']['cnn']['accuracy']:.1f} ± 1.1" in digits
    assert re.search(r"left out: .*empty: .*no finished run.*train it first", text)
    assert re.search(r"left out: .*torn: .*scores.json is damaged", text)
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    head = digits.splitlines()[1]
    assert head.index("FID") < head.index("Recall") < head.index("real2gen")
    assert digits.count("0.42") == 2
    of_digits, of_mnist = page.read_text().split('class="card"')[1:]
    assert (len(pictures(of_digits)), len(pictures(of_mnist))) == (2, 1)
    assert "arXiv" not in of_digits
    assert "no noise" in of_digits
    differing = of_digits.partition("Settings that differ")[2].partition("</table>")[0]
    assert "123.5" in differing
    assert differing.count("<tr") == 2  # the head, and the one setting
    assert "Settings that differ" not in of_mnist
    for anchor in ANCHORS:
        assert (f"{100 * anchor.accuracy:.1f}<" in of_mnist) or anchor.data != "mnist"
    assert "arXiv 2210.09929" in of_mnist


def test_nothing_to_compare_is_one_line(tmp_path, capsys):
    assert make_comparison([str(tmp_path / "nowhere"), f"--out={tmp_path / 'c.html'}"]) == 2
    assert re.fullmatch(r"error: nothing to compare: .*nowhere is not a directory.*\n", capsys.readouterr().err)
    assert not (tmp_path / "c.html").exists()


MEASURE = """
<script>
addEventListener('load', () => {
  const found = [...document.querySelectorAll('iframe')].map(frame => {
    const page = frame.contentDocument, width = frame.clientWidth, wrong = [];
    const say = (what, e) => wrong.push(what + ' ' + e.tagName + '.' + (e.getAttribute('class') || '') + ' ' +
                                        e.textContent.slice(0, 40));
    for (const e of page.querySelectorAll('body *')) {
      const head = e.closest('thead');  // on a phone there for screen readers only
      if (head && getComputedStyle(head).position == 'absolute') continue;
      const box = e.getBoundingClientRect(), svg = e.ownerSVGElement;
      if (svg && e.tagName == 'text') {
        const room = svg.getBoundingClientRect();
        if (box.left < room.left - 2 || box.right > room.right + 2 || box.bottom > room.bottom + 2) say('clipped', e);
      } else if (!svg) {
        if (box.left < -0.5 || box.right > width + 0.5) say('wide', e);
        const inline = getComputedStyle(e).display == 'inline';
        if (!inline && e.clientWidth && e.scrollWidth > e.clientWidth + 1) say('over', e);
        if (e.tagName == 'IMG' && !e.naturalWidth) say('broken', e);
      }
    }
    return {width, scroll: page.documentElement.scrollWidth, paper: getComputedStyle(page.body).backgroundColor, wrong};
  });
  document.querySelector('pre').textContent = JSON.stringify(found);
});
</script>
"""


@pytest.mark.skipif(BROWSER is None, reason="no Chromium")
def test_pages_fit_a_phone_and_a_desk_in_light_and_in_dark(several, tmp_path):
    names = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
    pages = [report(several[0]), report(several[0], release=True), compare(several, out=tmp_path / "compare.html").page]
    edit_json(several[0] / "release/config.json", lambda c: c["spec"].update(class_names=names))
    pages.append(report(several[0], out=tmp_path / "long names.html"))
    wide = tmp_path / "wide.html"
    wide.write_text(pages[0].read_text().replace("</main>", '<div style="width: 1300px">x</div></main>'))
    cases = [(page, width, scheme) for page in pages for width in (390, 1280) for scheme in ("light", "dark")]
    cases.append((wide, 1280, "light"))
    frames = "".join(
        f'<iframe style="border: 0; height: 800px; width: {width}px; color-scheme: {scheme}" '
        f'srcdoc="{html.escape(page.read_text())}"></iframe>'
        for page, width, scheme in cases
    )
    (tmp_path / "frames.html").write_text(f"<!doctype html><meta charset=utf-8><pre></pre>{frames}{MEASURE}")
    shown = subprocess.run(
        [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
         f"--user-data-dir={tmp_path / 'browser'}", "--window-size=1400,900", "--dump-dom",
         (tmp_path / "frames.html").as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    ).stdout  # fmt: skip
    found = json.loads(html.unescape(re.search(r"<pre>(.*?)</pre>", shown, re.DOTALL).group(1)))
    assert len(found) == len(cases)
    cases.pop()
    assert any(what.startswith("wide DIV") for what in found.pop()["wrong"])  # it would be seen
    papers = {"light": set(), "dark": set()}
    for (page, width, scheme), measured in zip(cases, found, strict=True):
        assert measured["width"] == width
        assert measured["scroll"] <= width, page
        assert measured["wrong"] == [], (page, width)
        papers[scheme].add(measured["paper"])
    assert len(papers["light"]) == len(papers["dark"]) == 1
    assert papers["light"] != papers["dark"]


def test_the_relations_of_reports_are_those_of_the_schema():
    schema = json.loads(resources.files("efsgd_jax.runs").joinpath("privacy.schema.json").read_text(encoding="utf-8"))
    assert schema["properties"]["neighbouring_relation"]["enum"] == [
        ZERO_OUT, ZERO_OUT.replace(IMAGE, PERSON), REPLACE, BLANK_REGION,
    ]  # fmt: skip
    assert schema["properties"]["unit"]["enum"] == [IMAGE, PERSON, REGION]
