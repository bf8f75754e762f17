"""Posed views of a scene as files: ``transforms.json`` in the form of NeRF-synthetic (Blender), and pictures."""

import json
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from PIL import Image

from efsgd_jax.data.decode import decode_image
from efsgd_jax.errors import UserError
from efsgd_jax.files import atomic, write_json
from efsgd_jax.protect.nerf import Views

# Names of the list of views, and of that of held-out views.
LISTS, HELD_OUT = ("transforms.json", "transforms_train.json"), "transforms_test.json"
# Fewest views, the smallest side of a picture, and the most pixels of all views together, which take minutes.
FEWEST, SMALLEST, MOST_PIXELS = 4, 8, 2**17
# The longest name of a file or directory, and of a picture's whole path, in bytes: disks take 255 or a little more,
# and the name of a temporary file is longer than that of its file.
LONGEST_NAME, LONGEST_PATH = 200, 1000
# The longest focal length in pixels; cameras with a longer one see parallel rays, as far as float32 can tell.
LONGEST_FOCAL = 1e6
# Without a list of held-out views, every so many-th view is one.
EVERY = 8
# Cameras whose axes are this near to parallel do not say where the scene is.
PARALLEL = 1e-3


class Capture(NamedTuple):
    """Posed views.

    Attributes:
      pictures: uint8 ``[N, H, W, 3]``.
      poses: float64 ``[N, 4, 4]``, camera to world; a camera looks along its -z, and y is up.
      angle: the horizontal angle of view in radians.
      files: the path of each picture below the directory, with its ending.
    """

    pictures: np.ndarray
    poses: np.ndarray
    angle: float
    files: tuple[str, ...]

    def at(self, index: np.ndarray) -> "Capture":
        """Some of the views."""
        files = tuple(self.files[i] for i in index)
        return Capture(self.pictures[index], self.poses[index], self.angle, files)


class Frame(NamedTuple):
    """A ball with the scene: the point that all cameras look at, and half of their mean distance to it."""

    centre: np.ndarray
    radius: float


def read_capture(path: str | Path) -> tuple[Capture, Capture | None]:
    """Reads ``transforms.json`` (or ``transforms_train.json``) and its pictures.

    Transparent pixels become white, except in 16-bit grey pictures, which are scaled to 8 bits.

    Returns:
      The views, and those of ``transforms_test.json`` if there is one, which are held out.

    Raises:
      UserError: a file is missing or unreadable, a view has no pose or one that is not a rotation and a shift,
        pictures differ in size or are too small, or there are fewer than ``FEWEST`` views or too many pixels.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        raise UserError(f"{root} is not a directory; name one that has {LISTS[0]} and pictures")
    lists = [root / name for name in LISTS if (root / name).is_file()]
    if not lists:
        raise UserError(f"{root} has no {LISTS[0]}; a capture lists its pictures and their cameras there")
    capture = _read_list(root, lists[0])
    count, height, width, _ = capture.pictures.shape
    if count < FEWEST:
        views = "1 view" if count == 1 else f"{count} views"
        raise UserError(f"{lists[0]} has {views}; a NeRF needs more to learn a scene from, here at least {FEWEST}")
    if count * height * width > MOST_PIXELS:
        raise UserError(
            f"{root} has {count} views of {width}x{height}; all together may have {MOST_PIXELS} pixels, so that it "
            f"takes minutes: make the pictures smaller, or list fewer"
        )
    frame_of(capture, lists[0])
    if not (root / HELD_OUT).is_file():
        return capture, None
    held_out = _read_list(root, root / HELD_OUT)
    if held_out.pictures.shape[1:] != capture.pictures.shape[1:] or held_out.angle != capture.angle:
        raise UserError(f"{root / HELD_OUT} has another size or camera_angle_x than {lists[0].name}; use the same")
    return capture, held_out


def split(capture: Capture, held_out: Capture | None) -> tuple[np.ndarray, Capture]:
    """The views to train on, as indices, and held-out ones: every ``EVERY``-th, from the first, if none are given."""
    index = np.arange(len(capture.files))
    if held_out is not None:
        return index, held_out
    return index[index % EVERY != 0], capture.at(index[index % EVERY == 0])


def frame_of(capture: Capture, where: str | Path = "the capture") -> Frame:
    """The ball that a NeRF of these views fills: its centre is nearest to the axes of all cameras.

    Args:
      capture: the views.
      where: the file that lists them, for the errors.

    Raises:
      UserError: the cameras look in the same direction, or stand at one point.
    """
    axes, places = -capture.poses[:, :3, 2], capture.poses[:, :3, 3]
    across = np.eye(3) - axes[:, :, None] * axes[:, None]
    total = across.sum(axis=0)
    if np.linalg.eigvalsh(total)[0] < PARALLEL * len(axes):
        raise UserError(f"{where}: all cameras look in the same direction; a capture has views from around its scene")
    centre = np.linalg.solve(total, np.einsum("nij,nj->i", across, places))
    distance = float(np.linalg.norm(places - centre, axis=1).mean())
    if np.ptp(places, axis=0).max() < PARALLEL * max(distance, PARALLEL):
        raise UserError(f"{where}: all cameras stand at one point; a capture has views from around its scene")
    return Frame(centre, distance / 2)


def to_views(capture: Capture, frame: Frame) -> Views:
    """Views in the frame of a NeRF: the ball has radius 1 around the origin."""
    poses = capture.poses[:, :3].copy()
    poses[:, :, 3] = (poses[:, :, 3] - frame.centre) / frame.radius
    focal = _focal(capture.angle, capture.pictures.shape[2])
    colours = jnp.asarray(capture.pictures / 255, jnp.float32)
    return Views(colours, jnp.asarray(poses, jnp.float32), jnp.asarray(focal, jnp.float32))


def write_capture(directory: str | Path, capture: Capture) -> None:
    """Writes ``transforms.json`` and the pictures as PNG files, under the names in ``capture.files``."""
    root = Path(directory)
    for file, picture in zip(capture.files, capture.pictures, strict=True):
        with atomic(root / file) as temporary:
            Image.fromarray(picture).save(temporary, format="PNG")
    frames = [
        {"file_path": f"./{file}", "transform_matrix": pose.tolist()}
        for file, pose in zip(capture.files, capture.poses, strict=True)
    ]
    write_json(root / LISTS[0], {"camera_angle_x": capture.angle, "frames": frames})


def _read_list(root: Path, path: Path) -> Capture:
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))
        frames, angle = listed["frames"], listed["camera_angle_x"]
    except (OSError, ValueError, RecursionError) as error:  # the last for lists in lists, a thousand deep
        raise UserError(f"cannot read {path} ({error}); it must be JSON") from error
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} has no frames or no camera_angle_x; both are needed, as in NeRF-synthetic") from error
    if isinstance(angle, bool) or not isinstance(angle, int | float) or not 0 < angle < np.pi:
        raise UserError(f"{path}: camera_angle_x is {angle!r}; it is an angle in radians, above 0 and below pi")
    if not isinstance(frames, list) or not frames:
        raise UserError(f"{path} lists no frames; each view is one")
    files, poses, pictures = [], [], []
    for i, frame in enumerate(frames):
        place = f"{path}, frame {i}"
        files.append(_file(frame, root, place))
        poses.append(_pose(frame, place))
        pictures.append(_picture(root / files[-1], place))
        if pictures[-1].shape != pictures[0].shape:
            (h, w, _), (height, width, _) = pictures[-1].shape, pictures[0].shape
            raise UserError(f"{place}: {files[-1]} is {w}x{h}, {files[0]} is {width}x{height}; all need the same size")
    if min(pictures[0].shape[:2]) < SMALLEST:
        height, width, _ = pictures[0].shape
        raise UserError(f"{path}: pictures are {width}x{height}; the smallest side is {SMALLEST} pixels")
    focal = _focal(angle, pictures[0].shape[1])
    if not focal <= LONGEST_FOCAL:
        raise UserError(
            f"{path}: camera_angle_x is {angle!r}, a focal length of {focal:g} pixels, and at most {LONGEST_FOCAL:g} "
            f"are possible; give the angle in radians"
        )
    names = [PurePosixPath(file).with_suffix(".png").as_posix() for file in files]
    twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if twice is not None:
        raise UserError(f"{path} has two frames with the picture {twice}; each view needs its own")
    for name in names:
        inside = next((str(parent) for parent in PurePosixPath(name).parents if str(parent) in names), None)
        if inside is not None:
            raise UserError(
                f"{path} has the pictures {name} and {inside}, once their endings are .png, and that cannot be both "
                f"a picture and a directory; give one another name"
            )
    return Capture(np.stack(pictures), np.stack(poses), float(angle), tuple(names))


def _focal(angle: float, width: int) -> float:
    """The focal length in pixels, which is infinite for the smallest angles."""
    tangent = np.tan(angle / 2)
    return width / 2 / float(tangent) if tangent > width / np.finfo(np.float64).max else np.inf


def _file(frame: Any, root: Path, place: str) -> str:
    name = frame.get("file_path") if isinstance(frame, dict) else None
    if not isinstance(name, str) or not name:
        raise UserError(f"{place} has no file_path, which names its picture")
    path = PurePosixPath(name)
    if not name.isprintable():
        raise UserError(
            f"{place}: file_path is {name[:40]!a}, with characters that cannot be printed; rename the picture"
        )
    if max(map(_bytes, path.parts), default=0) > LONGEST_NAME or _bytes(name) > LONGEST_PATH:
        raise UserError(
            f"{place}: file_path has {_bytes(name)} bytes ({name[:20]!r}...); a name may have {LONGEST_NAME}, a path "
            f"{LONGEST_PATH}: rename the picture"
        )
    if path.is_absolute() or ".." in path.parts:
        raise UserError(f"{place}: file_path is {name!r}; it must lie below {root}")
    # NeRF-synthetic leaves the ending out.
    return path.as_posix() if (root / path).is_file() else f"{path.as_posix()}.png"


def _bytes(name: str) -> int:
    return len(name.encode())


def _pose(frame: dict[str, Any], place: str) -> np.ndarray:
    if "transform_matrix" not in frame:
        raise UserError(f"{place} has no pose (transform_matrix); it is the camera's 4x4 matrix")
    try:
        pose = np.array(frame["transform_matrix"], np.float64)
    except (ValueError, TypeError, OverflowError):
        pose = np.zeros(0)
    if pose.shape != (4, 4) or not np.isfinite(pose).all():
        raise UserError(f"{place}: the pose (transform_matrix) is not a 4x4 matrix of numbers")
    turn = pose[:3, :3]
    if not np.allclose(turn @ turn.T, np.eye(3), atol=1e-3) or np.linalg.det(turn) < 0:
        raise UserError(f"{place}: the left 3x3 part of the pose (transform_matrix) is not a rotation")
    return pose


def _picture(path: Path, place: str) -> np.ndarray:
    try:
        with Image.open(path) as image:
            if image.mode in ("I", "F"):
                raise UserError(f"{place}: {path} has 32 bits per pixel; save it with 8 bits, in grey or in colours")
            if image.mode.startswith("I;16"):  # convert would make all values above 255 white
                return decode_image(path.read_bytes(), str(path), None, 3).pixels
            coloured = image.convert("RGBA")
            white = Image.new("RGBA", image.size, (255, 255, 255, 255))
            return np.asarray(Image.alpha_composite(white, coloured).convert("RGB"))
    except UserError:  # is a ValueError
        raise
    except FileNotFoundError as error:
        raise UserError(f"{place}: there is no picture {path}") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"{place}: cannot read {path} ({error}); is it a picture?") from error
