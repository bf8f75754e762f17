"""Random weights in the layout of FID's InceptionV3, and PyTorch files of them, written without PyTorch."""

import io
import pickle
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from efsgd_jax.evaluation.metrics.inception_weights import published_shapes
from efsgd_jax.evaluation.metrics.torch_file import MAGIC

STORAGES = {"f4": b"FloatStorage", "f8": b"DoubleStorage", "i8": b"LongStorage"}


def random_state_dict(seed: int) -> dict[str, np.ndarray]:
    """Weights that keep the size of what passes through, and statistics of every batch normalisation of their own."""
    rng = np.random.default_rng(seed)
    tensors = {}
    for name, shape in sorted(published_shapes().items()):
        if name.endswith((".conv.weight", "fc.weight")):
            values = rng.normal(size=shape) * np.sqrt(2.0 / np.prod(shape[1:]))
        elif name.endswith((".bn.weight", ".running_var")):
            values = rng.uniform(0.7, 1.3, shape)
        else:
            values = rng.normal(size=shape) / 10
        tensors[name] = values.astype(np.float32)
    return tensors


def write_zip(tensors: Mapping[str, np.ndarray], path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled(tensors))
        archive.writestr("archive/byteorder", b"little")
        archive.writestr("archive/version", b"3\n")
        for i, tensor in enumerate(tensors.values()):
            archive.writestr(f"archive/data/{i}", tensor.tobytes())
    return path


def write_legacy(tensors: Mapping[str, np.ndarray], path: Path) -> Path:
    with path.open("wb") as file:
        for header in (MAGIC, 1001, {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}):
            pickle.dump(header, file, protocol=2)
        file.write(pickled(tensors, view=pickle.NONE))
        pickle.dump([str(i) for i in range(len(tensors))], file, protocol=2)
        for tensor in tensors.values():
            file.write(struct.pack("<q", tensor.size) + tensor.tobytes())
    return path


def pickled(tensors: Mapping[str, np.ndarray], view: bytes = b"") -> bytes:
    """The pickle of an ordered dictionary of tensors, opcode by opcode: its names exist only where PyTorch does."""
    out = io.BytesIO()
    out.write(pickle.PROTO + b"\x02" + _name(b"collections", b"OrderedDict") + pickle.EMPTY_TUPLE + pickle.REDUCE)
    out.write(pickle.MARK)
    for i, (name, tensor) in enumerate(tensors.items()):
        storage = _name(b"torch", STORAGES[tensor.dtype.str[1:]])
        identity = _text("storage") + storage + _text(str(i)) + _text("cpu") + _number(tensor.size) + view
        strides = tuple(stride // tensor.itemsize for stride in tensor.strides)
        out.write(_text(name) + _name(b"torch._utils", b"_rebuild_tensor_v2") + pickle.MARK)
        out.write(pickle.MARK + identity + pickle.TUPLE + pickle.BINPERSID + _number(0))
        for sizes in (tensor.shape, strides):
            out.write(pickle.MARK + b"".join(map(_number, sizes)) + pickle.TUPLE)
        out.write(pickle.NEWFALSE + _name(b"collections", b"OrderedDict") + pickle.EMPTY_TUPLE + pickle.REDUCE)
        out.write(pickle.TUPLE + pickle.REDUCE)
    out.write(pickle.SETITEMS + pickle.STOP)
    return out.getvalue()


def _name(module: bytes, name: bytes) -> bytes:
    return pickle.GLOBAL + module + b"\n" + name + b"\n"


def _text(text: str) -> bytes:
    return pickle.BINUNICODE + struct.pack("<I", len(text)) + text.encode()


def _number(value: int) -> bytes:
    return pickle.BININT + struct.pack("<i", value)
