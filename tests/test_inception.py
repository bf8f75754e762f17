"""InceptionV3 for FID: its layout, its numbers, and files of weights, good, damaged and malicious."""

import hashlib
import os
import pickle
import re
import types

import numpy as np
import pytest
from random_inception import random_state_dict, write_legacy, write_zip

from efsgd_jax.errors import UserError
from efsgd_jax.evaluation.metrics import inception, inception_weights, load_inception
from efsgd_jax.evaluation.metrics.inception_weights import FILE, published_shapes, to_flax
from efsgd_jax.evaluation.metrics.torch_file import read_state_dict

WRITERS = {"zip": write_zip, "legacy": write_legacy}


def images(channels=3):
    """Three of different sizes of contrast; larger than a chunk of two."""
    x = np.random.default_rng(0).integers(0, 256, (3, 20, 20, channels))
    return (x // np.array([1, 4, 40]).reshape(3, 1, 1, 1)).astype(np.uint8)


@pytest.fixture(scope="module")
def state_dict():
    return random_state_dict(0)


@pytest.fixture(scope="module")
def network(state_dict, tmp_path_factory):
    return load_inception(write_legacy(state_dict, tmp_path_factory.mktemp("weights") / "random.pth"))


def test_layout_is_the_published_one():
    shapes = published_shapes()
    assert sum(name.endswith(".conv.weight") for name in shapes) == 94
    assert len(shapes) == 94 * 5 + 2
    # 4 bytes each are 86,791 less than the published file has.
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == 23_885_392
    assert shapes["Conv2d_1a_3x3.conv.weight"] == (32, 3, 3, 3)
    assert shapes["Mixed_5b.branch5x5_2.conv.weight"] == (64, 48, 5, 5)
    assert shapes["Mixed_6a.branch3x3.conv.weight"] == (384, 288, 3, 3)
    assert shapes["Mixed_6c.branch7x7dbl_4.conv.weight"] == (160, 160, 7, 1)
    assert shapes["Mixed_7a.branch7x7x3_2.bn.running_var"] == (192,)
    assert shapes["Mixed_7c.branch3x3dbl_3b.conv.weight"] == (384, 384, 3, 1)
    assert shapes["fc.weight"] == (1008, 2048)


KNOWN_MEANS = [0.745213, 1.019353, 1.207170]
KNOWN_VALUES = [
    [0.012304, 0.454099, 3.011123, 0.129425, 0.453883],
    [0.103173, 0.617152, 3.400644, 0.131641, 0.459459],
    [0.120473, 0.740393, 3.911865, 0.147210, 0.667983],
]


def test_features_are_those_that_pytorch_fid_computed(network):
    """``test_network_is_that_of_pytorch_fid`` computes the same numbers where pytorch-fid is installed."""
    features = network.features(images())
    assert features.shape == (3, 2048)
    np.testing.assert_allclose(features.mean(axis=1), KNOWN_MEANS, atol=1e-4)
    np.testing.assert_allclose(features[:, ::500], KNOWN_VALUES, atol=1e-4)
    assert not network.published


@pytest.mark.slow
def test_probabilities_are_a_softmax_and_chunks_and_gray_images_change_nothing(network, state_dict, monkeypatch):
    gray = images(channels=1)
    features, probabilities = network.features_and_probabilities(gray)
    logits = features @ state_dict["fc.weight"].T
    want = np.exp(logits - logits.max(axis=1, keepdims=True))
    np.testing.assert_allclose(probabilities, want / want.sum(axis=1, keepdims=True), rtol=1e-3)
    assert probabilities.shape == (3, 1008)
    monkeypatch.setattr(inception, "CHUNK", 2)
    np.testing.assert_allclose(network.features(np.repeat(gray, 3, axis=-1)), features, atol=1e-5)
    np.testing.assert_allclose(network.probabilities(gray), probabilities, atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 8, 8), (2, 8, 8, 4), (0, 8, 8, 3)])
def test_unusable_images_are_refused(network, shape):
    with pytest.raises(UserError, match=re.escape(f"uint8 images of shape {shape}; use uint8")):
        network.features(np.zeros(shape, np.uint8))
    with pytest.raises(UserError, match="float32 images"):
        network.features(np.zeros((2, 8, 8, 3), np.float32))


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_tensors_survive_both_formats(write, tmp_path):
    rng = np.random.default_rng(0)
    tensors = {
        "a.weight": rng.normal(size=(2, 3, 4, 5)).astype(np.float32),
        "b": rng.normal(size=7),
        "count": np.array(3),
    }
    got = read_state_dict(write(tensors, tmp_path / "x.pth").read_bytes(), "x.pth")
    assert list(got) == list(tensors)
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(got[name], tensor)
        assert got[name].dtype == tensor.dtype


def test_a_view_with_strides_of_its_own_is_read_as_such(tmp_path):
    x = np.arange(12, dtype=np.float32)
    view = types.SimpleNamespace(dtype=x.dtype, itemsize=4, size=12, shape=(3, 4), strides=(4, 12), tobytes=x.tobytes)
    got = read_state_dict(write_zip({"x": view}, tmp_path / "x.pth").read_bytes(), "x.pth")
    np.testing.assert_array_equal(got["x"], x.reshape(4, 3).T)
    view.strides = (8, 12)
    with pytest.raises(UserError, match=r"shape \(3, 4\) reaches outside"):
        read_state_dict(write_zip({"x": view}, tmp_path / "x.pth").read_bytes(), "x.pth")


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_damaged_file_is_one_line(write, tmp_path):
    content = write({"x": np.ones(50, np.float32)}, tmp_path / "x.pth").read_bytes()
    for length in range(0, len(content), 7):
        with pytest.raises(UserError, match=r"^x\.pth is damaged, or no PyTorch file \(.*\); get it again$"):
            read_state_dict(content[:length], "x.pth")


class Malicious:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
@pytest.mark.parametrize("attack", [(os.mkdir, "{}"), (eval, "__import__('os').mkdir({!r})")])
def test_code_in_a_pickle_is_refused_and_does_not_run(write, attack, tmp_path, monkeypatch):
    trace = tmp_path / "trace"
    payload = pickle.dumps({"x": Malicious(attack[0], attack[1].format(str(trace)))}, protocol=2)
    monkeypatch.setattr("random_inception.pickled", lambda *_, **__: payload)
    content = write({}, tmp_path / "x.pth").read_bytes()
    with pytest.raises(UserError, match=r"x\.pth cannot be used: it refers to \w+\.(mkdir|eval), which no file"):
        read_state_dict(content, "x.pth")
    assert not trace.exists()
    pickle.loads(payload)
    assert trace.exists()  # it would have


@pytest.mark.parametrize(("value", "message"), [([1], "it holds a list"), ({"x": 1}, "its entry 'x' is a int")])
def test_a_file_of_something_else_is_refused(value, message, tmp_path, monkeypatch):
    monkeypatch.setattr("random_inception.pickled", lambda *_, **__: pickle.dumps(value, protocol=2))
    for write in WRITERS.values():
        with pytest.raises(UserError, match=message):
            read_state_dict(write({}, tmp_path / "x.pth").read_bytes(), "x.pth")


def changed(name, value):
    tensors = {key: np.broadcast_to(np.float32(1), shape) for key, shape in published_shapes().items()}
    tensors[name] = value
    return {key: tensor for key, tensor in tensors.items() if tensor is not None}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("Mixed_6b.branch1x1.bn.bias", None, "lacks 1 of the 472 tensors .* such as Mixed_6b.branch1x1.bn.bias; use"),
        ("AuxLogits.fc.bias", np.ones(1000), "has beyond them 1 .* such as AuxLogits.fc.bias; use"),
        ("fc.weight", np.ones((1000, 2048)), r"fc.weight has shape \(1000, 2048\); .* has \(1008, 2048\)"),
        ("fc.bias", np.full(1008, np.nan), "fc.bias .float64. has values that are no finite floats"),
        ("Conv2d_1a_3x3.bn.running_var", np.full(32, -1.0), "running_var has a variance of -1"),
    ],
)
def test_another_network_is_refused(name, value, message):
    with pytest.raises(UserError, match=f"^x.pth.*{message}"):
        to_flax(changed(name, value), "x.pth")


def test_counters_of_batches_are_allowed():
    to_flax(changed("Conv2d_1a_3x3.bn.num_batches_tracked", np.array(7)), "x.pth")


def test_without_weights_and_connection_the_message_says_where_to_put_them(tmp_path, monkeypatch):
    monkeypatch.setenv("EFSGD_JAX_DATA", str(tmp_path))
    monkeypatch.setattr(inception_weights, "URL", "http://127.0.0.1:9/")
    cached = tmp_path / "inception" / FILE
    for _ in range(2):
        with pytest.raises(
            UserError, match=r"downloading them failed .*; with a copy of \S+ at hand, put it there"
        ) as error:
            load_inception()
        assert "\n" not in str(error.value)
        cached.parent.mkdir(exist_ok=True)
        cached.write_bytes(b"another file")  # whose checksum is wrong
    with pytest.raises(UserError, match=r"cannot read InceptionV3's weights from .*absent\.pth"):
        load_inception(tmp_path / "absent.pth")
    monkeypatch.setattr(inception_weights, "SHA256", hashlib.sha256(b"another file").hexdigest())
    with pytest.raises(UserError, match=f"{FILE} is damaged"):  # it has been found and read
        load_inception()


def test_published_weights_are_known_by_their_checksum(state_dict, tmp_path, monkeypatch):
    file = write_zip(state_dict, tmp_path / "x.pth")
    monkeypatch.setattr(inception_weights, "SHA256", hashlib.sha256(file.read_bytes()).hexdigest())
    assert load_inception(file).published


@pytest.fixture
def peer(state_dict, monkeypatch):
    """pytorch-fid's network, with random weights."""
    torch = pytest.importorskip("torch")
    module = pytest.importorskip("pytorch_fid.inception")
    weights = {name: torch.from_numpy(tensor) for name, tensor in state_dict.items()}
    monkeypatch.setattr(module, "load_state_dict_from_url", lambda *_, **__: weights)
    return module


def test_network_is_that_of_pytorch_fid(peer, network):
    import torch

    for x in (images(), images()[:, :7, :11], np.repeat(np.repeat(images(), 20, axis=1), 20, axis=2)):
        with torch.no_grad():
            inputs = torch.from_numpy(x).permute(0, 3, 1, 2).float() / 255
            want = peer.InceptionV3().eval()(inputs)[0][:, :, 0, 0].numpy()
        np.testing.assert_allclose(network.features(x), want, atol=1e-4)


@pytest.mark.parametrize("new_format", [True, False])
def test_files_that_pytorch_writes_are_read(peer, network, new_format, tmp_path):
    import torch

    model = peer.fid_inception_v3()
    assert {k: tuple(v.shape) for k, v in model.state_dict().items() if "num_batches" not in k} == published_shapes()
    torch.save(model.state_dict(), tmp_path / "x.pth", _use_new_zipfile_serialization=new_format)
    other = load_inception(tmp_path / "x.pth")
    np.testing.assert_allclose(other.features(images()), network.features(images()), atol=1e-6)


def test_pytorch_reads_what_these_tests_write(tmp_path):
    torch = pytest.importorskip("torch")
    tensors = {"x": np.arange(6, dtype=np.float32).reshape(2, 3)}
    for write in WRITERS.values():
        got = torch.load(write(tensors, tmp_path / "x.pth"), weights_only=True)
        np.testing.assert_array_equal(got["x"].numpy(), tensors["x"])
