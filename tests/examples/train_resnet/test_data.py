import numpy as np
import pytest

from examples.train_resnet.data import (
    RECORD_BYTES,
    DataError,
    Pictures,
    cifar10,
    digits,
    padded_batches,
    read_records,
    shuffled_batches,
    stratified_split,
)

FILES = [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]


def write_cifar10(folder, records=20, seed=0):
    """Random pictures of all classes in CIFAR-10's layout; returns them by file, as written."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    written = {}
    for name in FILES:
        labels = np.arange(records, dtype=np.uint8) % 10
        images = rng.integers(256, size=(records, 32, 32, 3), dtype=np.uint8)
        planes = [[image[..., colour].tobytes() for colour in range(3)] for image in images]
        content = b"".join(bytes([label]) + b"".join(rgb) for label, rgb in zip(labels, planes, strict=True))
        (folder / name).write_bytes(content)
        written[name] = Pictures(images, labels.astype(np.int32))
    return written


def test_records_are_read_as_they_were_written(tmp_path):
    written = write_cifar10(tmp_path)
    for name in FILES:
        read = read_records(tmp_path / name, records=20)
        np.testing.assert_array_equal(read.images, written[name].images)
        np.testing.assert_array_equal(read.labels, written[name].labels)
        assert (read.images.dtype, read.labels.dtype) == (np.uint8, np.int32)


@pytest.mark.parametrize("inner", ["", "cifar-10-batches-bin"])
def test_cifar10_holds_every_picture_once(tmp_path, inner):
    written = write_cifar10(tmp_path / inner)
    data = cifar10(tmp_path, records=20)
    assert (len(data.train), len(data.validation), len(data.test)) == (90, 10, 20)
    np.testing.assert_array_equal(data.test.images, written["test_batch.bin"].images)
    originals = np.concatenate([written[name].images for name in FILES[:5]])
    read = np.concatenate([data.train.images, data.validation.images])
    assert {image.tobytes() for image in read} == {image.tobytes() for image in originals}
    assert np.bincount(data.validation.labels).tolist() == [1] * 10


def test_a_subset_is_the_first_pictures(tmp_path):
    written = write_cifar10(tmp_path, records=120)
    data = cifar10(tmp_path, subset=110, records=120)
    assert (len(data.train), len(data.validation), len(data.test)) == (99, 11, 110)
    read = np.concatenate([data.train.images, data.validation.images])
    first = written["data_batch_1.bin"].images[:110]
    assert {image.tobytes() for image in read} == {image.tobytes() for image in first}
    np.testing.assert_array_equal(data.test.images, written["test_batch.bin"].images[:110])


def test_a_missing_file_is_named(tmp_path):
    write_cifar10(tmp_path)
    (tmp_path / "data_batch_3.bin").unlink()
    with pytest.raises(
        DataError, match=r"data_batch_3\.bin: No such file.*expected 61,460 bytes \(20 records of 3,073"
    ):
        cifar10(tmp_path, records=20)


@pytest.mark.parametrize("size", [0, 20 * RECORD_BYTES - 1, 20 * RECORD_BYTES + 1])
def test_a_file_of_another_size_is_named_with_both_sizes(tmp_path, size):
    write_cifar10(tmp_path)
    (tmp_path / "test_batch.bin").write_bytes(bytes(size))
    with pytest.raises(DataError, match=rf"test_batch\.bin: found {size:,} bytes, expected 61,460 bytes"):
        cifar10(tmp_path, records=20)


def test_a_label_above_nine_is_named_with_its_record(tmp_path):
    write_cifar10(tmp_path)
    path = tmp_path / "data_batch_2.bin"
    content = bytearray(path.read_bytes())
    content[7 * RECORD_BYTES] = 10
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"data_batch_2\.bin: record 7 has label 10, expected 0 to 9"):
        cifar10(tmp_path, records=20)


def test_too_few_pictures_to_split_are_an_error(tmp_path):
    write_cifar10(tmp_path)
    with pytest.raises(DataError, match="12 pictures cannot be split"):
        cifar10(tmp_path, subset=12, records=20)


def test_digits_parts_are_disjoint_and_stratified():
    data = digits()
    parts = data.train, data.validation, data.test
    assert [len(part) for part in parts] == [1077, 360, 360]
    distinct = {image.tobytes() for part in parts for image in part.images}
    assert len(distinct) == 1797  # every digit of the collection is drawn differently
    for part in parts:
        shares = np.bincount(part.labels, minlength=10) / len(part)
        np.testing.assert_allclose(shares, 0.1, atol=0.005)
    assert data.train.images.shape == (1077, 8, 8, 1)
    assert 0 == data.train.images.min() < data.train.images.max() == 16


def test_mean_and_std_are_those_of_the_training_pictures():
    data = digits()
    mean, std = data.mean_and_std()
    np.testing.assert_allclose(mean, data.train.images.mean(axis=(0, 1, 2)), rtol=1e-5)  # computed in float64
    np.testing.assert_allclose(std, data.train.images.std(axis=(0, 1, 2)), rtol=1e-5)


def test_a_split_keeps_pictures_with_their_labels():
    labels = np.repeat(np.arange(10, dtype=np.int32), 30)
    pictures = Pictures(labels.astype(np.uint8).reshape(-1, 1, 1, 1), labels)
    kept, held = stratified_split(pictures, held_out=0.2)
    for part, size in ((kept, 24), (held, 6)):
        np.testing.assert_array_equal(part.images.ravel(), part.labels)
        assert np.bincount(part.labels).tolist() == [size] * 10


def test_shuffled_batches_are_full_and_hold_no_picture_twice():
    pictures = Pictures(np.arange(23, dtype=np.uint8).reshape(-1, 1, 1, 1), np.arange(23, dtype=np.int32))
    epochs = [list(shuffled_batches(pictures, 5, np.random.default_rng(seed))) for seed in (0, 0, 1)]
    drawn = [np.concatenate([batch.labels for batch in epoch]) for epoch in epochs]
    assert all(len(batch) == 5 for epoch in epochs for batch in epoch)
    assert len(set(drawn[0].tolist())) == 20
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert drawn[0].tolist() != drawn[2].tolist()
    np.testing.assert_array_equal(np.concatenate([batch.images for batch in epochs[0]]).ravel(), drawn[0])


def test_padded_batches_hold_every_picture_in_order():
    pictures = Pictures(np.arange(1, 8, dtype=np.uint8).reshape(-1, 1, 1, 1), np.arange(7, dtype=np.int32))
    batches = list(padded_batches(pictures, 3))
    assert np.concatenate([batch.labels for batch in batches]).tolist() == [0, 1, 2, 3, 4, 5, 6, -1, -1]
    assert np.concatenate([batch.images for batch in batches]).ravel().tolist() == [1, 2, 3, 4, 5, 6, 7, 0, 0]
