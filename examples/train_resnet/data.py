"""Labelled pictures: scikit-learn's handwritten digits, CIFAR-10, splits and mini-batches."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR10_FOLDER = "cifar-10-batches-bin"
CIFAR10_RECORDS = 10_000  # in each of the six files
RECORD_BYTES = 1 + 3 * 32 * 32  # a label, then the red, the green and the blue plane, row by row


class DataError(Exception):
    """The data cannot be used; the message says which file, what was found and what was expected."""


@dataclass(frozen=True)
class Pictures:
    """Pictures and their labels; an index or slice selects some of both.

    Attributes:
      images: uint8, `[count, height, width, channels]`.
      labels: int32, `[count]`.
    """

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: slice | np.ndarray) -> "Pictures":
        return Pictures(self.images[index], self.labels[index])


@dataclass(frozen=True)
class Dataset:
    """Three disjoint parts: to train on, to choose by, and to state the result on.

    Attributes:
      name: what it is called in the report.
      classes: the classes' names, by label.
      train: pictures that the network is trained on.
      validation: pictures that optimizer, learning rate and schedule are chosen by.
      test: pictures that nothing was chosen by.
    """

    name: str
    classes: tuple[str, ...]
    train: Pictures
    validation: Pictures
    test: Pictures

    def mean_and_std(self) -> tuple[np.ndarray, np.ndarray]:
        """Each channel's mean and standard deviation over the training pictures."""
        # Moments of a uint8 histogram are exact and need no float copy of the data.
        levels = np.arange(256)
        histograms = [np.bincount(channel.ravel(), minlength=256) for channel in np.moveaxis(self.train.images, -1, 0)]
        shares = np.stack([histogram / histogram.sum() for histogram in histograms])
        mean = shares @ levels
        variance = shares @ levels**2 - mean**2
        return mean.astype(np.float32), np.sqrt(np.maximum(variance, 1e-6)).astype(np.float32)


def digits() -> Dataset:
    """Scikit-learn's 1797 handwritten digits, 8x8 pixels in 17 shades: 60 % train, 20 % validation, 20 % test."""
    pixels, labels = map(np.asarray, load_digits(return_X_y=True))
    pictures = Pictures(pixels.reshape(-1, 8, 8, 1).astype(np.uint8), labels.astype(np.int32))
    rest, test = stratified_split(pictures, held_out=0.2)
    train, validation = stratified_split(rest, held_out=0.25)
    return Dataset("handwritten digits (scikit-learn)", tuple("0123456789"), train, validation, test)


def cifar10(folder: Path, subset: int | None = None, records: int = CIFAR10_RECORDS) -> Dataset:
    """CIFAR-10 (Krizhevsky 2009) from its official binary files; a tenth of the training pictures validates.

    Args:
      folder: holds `data_batch_1.bin` to `data_batch_5.bin` and `test_batch.bin`, or `cifar-10-batches-bin` with them.
      subset: read only the first `subset` training and the first `subset` test pictures; None: all.
      records: pictures in each file.

    Raises:
      DataError: a file is missing, has another size, or holds a label above 9.
    """
    if (folder / CIFAR10_FOLDER).is_dir():
        folder = folder / CIFAR10_FOLDER
    parts = [read_records(folder / f"data_batch_{i}.bin", records) for i in range(1, 6)]
    images, labels = (np.concatenate([getattr(part, name) for part in parts]) for name in ("images", "labels"))
    train, validation = stratified_split(Pictures(images, labels)[:subset], held_out=0.1)
    test = read_records(folder / "test_batch.bin", records)[:subset]
    return Dataset("CIFAR-10", CIFAR10_CLASSES, train, validation, test)


def read_records(path: Path, records: int = CIFAR10_RECORDS) -> Pictures:
    """One file of CIFAR-10's binary layout: `records` times a label byte and 3072 bytes of red, green and blue.

    Raises:
      DataError: the file is missing, has another size, or holds a label above 9.
    """
    size = records * RECORD_BYTES
    expected = f"expected {size:,} bytes ({records:,} records of {RECORD_BYTES:,})"
    try:
        content = np.fromfile(path, np.uint8)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}; {expected}") from error
    if content.size != size:
        raise DataError(f"{path}: found {content.size:,} bytes, {expected}")
    content = content.reshape(records, RECORD_BYTES)
    labels = content[:, 0].astype(np.int32)
    if labels.max(initial=0) >= len(CIFAR10_CLASSES):
        wrong = int(np.argmax(labels >= len(CIFAR10_CLASSES)))
        raise DataError(f"{path}: record {wrong} has label {labels[wrong]}, expected 0 to {len(CIFAR10_CLASSES) - 1}")
    planes = content[:, 1:].reshape(records, 3, 32, 32)
    return Pictures(np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), labels)


def stratified_split(pictures: Pictures, held_out: float) -> tuple[Pictures, Pictures]:
    """Splits off the share `held_out`, in which every class has its share; the same split in every run.

    Raises:
      DataError: there are too few pictures for every class to be in both parts.
    """
    try:
        kept, held = train_test_split(
            np.arange(len(pictures)), test_size=held_out, stratify=pictures.labels, random_state=0
        )
    except ValueError as error:
        raise DataError(f"{len(pictures)} pictures cannot be split class by class: {error}") from error
    return pictures[np.sort(kept)], pictures[np.sort(held)]


def shuffled_batches(pictures: Pictures, size: int, rng: np.random.Generator) -> Iterator[Pictures]:
    """One epoch: mini-batches of exactly `size` pictures in random order, without the remainder."""
    order = rng.permutation(len(pictures))
    for start in range(0, len(pictures) - size + 1, size):
        yield pictures[order[start : start + size]]


def padded_batches(pictures: Pictures, size: int) -> Iterator[Pictures]:
    """All pictures in order, in batches of exactly `size`; the last is filled up with pictures labelled -1."""
    for start in range(0, len(pictures), size):
        batch = pictures[start : start + size]
        missing = size - len(batch)
        images = np.pad(batch.images, [(0, missing), (0, 0), (0, 0), (0, 0)])
        yield Pictures(images, np.pad(batch.labels, (0, missing), constant_values=-1))
