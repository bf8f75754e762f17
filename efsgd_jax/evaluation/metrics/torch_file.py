"""Reads the tensors of a PyTorch file without PyTorch, and without executing code that its pickle may refer to."""

import io
import pickle
import zipfile
from collections import OrderedDict
from typing import IO, Any, NamedTuple

import numpy as np

from efsgd_jax.data.validate import one_line
from efsgd_jax.errors import UserError

# Before version 1.6, PyTorch files began with this number, pickled. Later files are zip archives.
MAGIC = 0x1950A86A20F9469CFC6C
# PyTorch's classes of storages -> NumPy's types, little-endian.
DTYPES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
}


class _Tensor(NamedTuple):
    """A tensor's place in a storage that is not read yet; offset and strides are in elements."""

    storage: tuple[str, str, int]  # dtype, key, number of elements
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Unpickler(pickle.Unpickler):
    """An unpickler that constructs only dictionaries and tensors: it refuses every other name in the pickle."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return self._tensor
        if module == "torch" and name in DTYPES:
            return DTYPES[name]
        raise UserError(f"it refers to {module}.{name}, which no file of weights needs and which could run code")

    def persistent_load(self, pid: Any) -> tuple[str, str, int]:
        kind, dtype, key, _, length, *_ = pid
        if kind != "storage" or dtype not in DTYPES.values():
            raise ValueError(f"unknown storage {pid!r}")
        return dtype, str(key), int(length)

    def _tensor(self, storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _Tensor:
        return _Tensor(storage, int(offset), tuple(map(int, shape)), tuple(map(int, strides)))


def read_state_dict(content: bytes, file: object) -> dict[str, np.ndarray]:
    """Reads a state dict as ``torch.save`` writes it: a zip archive, or the format of PyTorch before version 1.6.

    Args:
      content: the content of the file.
      file: name of the file, for messages.

    Returns:
      The tensors by name, as read-only arrays.

    Raises:
      UserError: the file is damaged, holds anything but a dictionary of tensors, or refers to any other code.
    """
    try:
        tensors, storages = (_read_zip if content[:2] == b"PK" else _read_legacy)(content)
        return {name: _array(tensor, storages) for name, tensor in tensors.items()}
    except UserError as error:
        raise UserError(f"{file} cannot be used: {one_line(error)}; get the file from its source") from error
    except Exception as error:  # a damaged pickle can fail in any way
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise UserError(f"{file} is damaged, or no PyTorch file ({reason}); get it again") from error


def _load(file: IO[bytes]) -> dict[str, _Tensor]:
    tensors = _Unpickler(file).load()
    if not isinstance(tensors, dict):
        raise UserError(f"it holds a {type(tensors).__name__}, not a state dict")
    for name, value in tensors.items():
        if not (isinstance(name, str) and isinstance(value, _Tensor)):
            raise UserError(f"its entry {name!r} is a {type(value).__name__}, not a tensor")
    return tensors


def _read_zip(content: bytes) -> tuple[dict[str, _Tensor], dict[str, bytes]]:
    archive = zipfile.ZipFile(io.BytesIO(content))
    pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise ValueError(f"{len(pickles)} members named data.pkl")
    folder = pickles[0].removesuffix("data.pkl")
    if f"{folder}byteorder" in archive.namelist() and archive.read(f"{folder}byteorder") != b"little":
        raise ValueError("its numbers are big-endian")
    tensors = _load(archive.open(pickles[0]))
    members = [name for name in archive.namelist() if name.startswith(f"{folder}data/")]
    return tensors, {name.removeprefix(f"{folder}data/"): archive.read(name) for name in members}


def _read_legacy(content: bytes) -> tuple[dict[str, _Tensor], dict[str, bytes]]:
    """Reads the format before PyTorch 1.6.

    The file has five pickles: magic number, version, properties of the system, tensors, and keys of the storages. Each
    storage follows, in the order of the keys: its number of elements, then the elements.
    """
    file = io.BytesIO(content)
    if _Unpickler(file).load() != MAGIC:
        raise ValueError("no magic number")
    _version, system = (_Unpickler(file).load() for _ in range(2))
    if not system["little_endian"]:
        raise ValueError("its numbers are big-endian")
    tensors = _load(file)
    sizes = {tensor.storage[1]: np.dtype(tensor.storage[0]).itemsize for tensor in tensors.values()}
    storages = {}
    for key in _Unpickler(file).load():
        length = int.from_bytes(file.read(8), "little") * sizes[key]
        storages[key] = file.read(length)
    return tensors, storages


def _array(tensor: _Tensor, storages: dict[str, bytes]) -> np.ndarray:
    dtype, key, length = tensor.storage
    flat = np.frombuffer(storages[key], dtype)
    if flat.size != length:
        raise ValueError(f"storage {key} has {flat.size} numbers instead of {length}")
    steps = [(side - 1) * stride for side, stride in zip(tensor.shape, tensor.strides, strict=True)]
    if min((tensor.offset, *tensor.shape, *tensor.strides)) < 0 or tensor.offset + sum(steps) >= flat.size:
        raise ValueError(f"a tensor of shape {tensor.shape} reaches outside of its storage {key}")
    strides = [stride * flat.itemsize for stride in tensor.strides]
    return np.lib.stride_tricks.as_strided(flat[tensor.offset :], tensor.shape, strides, writeable=False)
