"""Image files: compared with nibabel and Pillow, damaged in every way, and written back."""

from __future__ import annotations

import gzip
import hashlib
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image

from gyri import images, nifti, pictures
from gyri.errors import DataError

AFFINE = np.array([[0.0, -1.5, 0.0, 30.0], [2.0, 0.0, 0.0, -20.0], [0.0, 0.1, 3.0, 5.0], [0.0, 0.0, 0.0, 1.0]])


def volume(shape: tuple[int, ...] = (5, 6, 7), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(100, 30, shape)


def save(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE, kind: type = nib.Nifti1Image) -> Path:
    nib.save(kind(array, affine), path)
    return path


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "A.NII.GZ"])
def test_nifti_as_nibabel_reads_it(tmp_path: Path, dtype: str, name: str) -> None:
    plain = save(tmp_path / "plain.nii", volume().astype(dtype))
    path = tmp_path / name
    path.write_bytes(gzip.compress(plain.read_bytes()) if name.lower().endswith("gz") else plain.read_bytes())
    values, affine = images.load(path)
    reference = nib.load(plain)
    assert values.dtype == np.float32 and values.flags.c_contiguous
    assert np.array_equal(values[0], reference.get_fdata().astype(np.float32))
    assert np.allclose(affine, reference.affine)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_byte_order_slope_and_offset(tmp_path: Path, order: str, kind: type) -> None:
    image = kind(volume().astype(np.int16), AFFINE, kind.header_class(endianness=order))
    image.header.set_slope_inter(0.25, -7)
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"x" * 40))
    image.to_filename(tmp_path / "a.nii.gz")
    values, affine = images.load(tmp_path / "a.nii.gz")
    reference = nib.load(tmp_path / "a.nii.gz")
    assert np.allclose(values[0], reference.get_fdata(), rtol=1e-6)
    assert np.allclose(affine, reference.affine)
    assert images.header(tmp_path / "a.nii.gz")["format"] == ("nifti1" if kind is nib.Nifti1Image else "nifti2")


@pytest.mark.parametrize(
    ("shape", "channels", "grid"), [((5, 6), 1, (5, 6, 1)), ((5, 6, 7, 1), 1, (5, 6, 7)), ((5, 6, 7, 3), 3, (5, 6, 7))]
)
def test_dimensions(tmp_path: Path, shape: tuple[int, ...], channels: int, grid: tuple[int, ...]) -> None:
    stored = volume(shape).astype(np.float32)
    path = save(tmp_path / "a.nii.gz", stored)
    values, _ = images.load(path)
    assert values.shape == (channels, *grid)
    assert np.array_equal(values, np.moveaxis(stored.reshape((*grid, channels)), -1, 0))
    facts = images.header(path)
    assert (facts["channels"], tuple(facts["shape"]), facts["dimensions"]) == (channels, grid, len(shape))


def test_one_volume_of_four(tmp_path: Path) -> None:
    stored = volume((4, 3, 2, 4)).astype(np.float32)
    path = save(tmp_path / "a.nii.gz", stored)
    for index in range(4):
        assert np.array_equal(images.load(path, index)[0][0], stored[..., index])
    with pytest.raises(DataError, match="4 volumes"):
        images.load(path, 4)
    # a 3D label map beside 4D images has nothing to choose
    assert images.load_labels(save(tmp_path / "l.nii", volume()), 3)[0].shape == (5, 6, 7)


def test_vector_and_rgb_nifti(tmp_path: Path) -> None:
    vector = volume((4, 3, 2, 1, 3)).astype(np.float32)
    assert np.array_equal(images.load(save(tmp_path / "v.nii", vector))[0], np.moveaxis(vector[..., 0, :], -1, 0))
    rgb = np.zeros((4, 3, 2), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    rgb["G"] = 7
    values, _ = images.load(save(tmp_path / "c.nii", rgb))
    assert values.shape == (3, 4, 3, 2) and (values[1] == 7).all() and (values[0] == 0).all()


def test_truncated_anywhere_is_refused(tmp_path: Path) -> None:
    for name in ("a.nii", "a.nii.gz"):
        whole = save(tmp_path / name, volume().astype(np.float32)).read_bytes()
        for length in (0, 1, 3, 100, 347, 350, len(whole) // 2, len(whole) - 9, len(whole) - 1):
            (tmp_path / name).write_bytes(whole[:length])
            with pytest.raises(DataError):
                images.load(tmp_path / name)


def test_truncation_is_seen_when_only_the_first_volume_is_wanted(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii.gz", volume((8, 8, 8, 6)).astype(np.float32))
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match="a whole file"):
        images.load(path, 0)


def test_damage_inside_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii.gz", volume((8, 8, 8)).astype(np.float32))
    content = bytearray(path.read_bytes())
    content[-6] ^= 1  # the checksum
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match="damaged"):
        images.load(path)


def header_of(shape: tuple[int, ...]) -> bytes:
    head = nib.Nifti1Header()
    head.set_data_shape(shape)
    head["magic"], head["vox_offset"] = b"n+1", 352
    return head.binaryblock + bytes(4)


def test_a_small_file_cannot_fill_the_memory(tmp_path: Path) -> None:
    # the header announces 128 GiB: refused before memory is taken
    (tmp_path / "lie.nii.gz").write_bytes(gzip.compress(header_of((32000, 32000, 32)) + bytes(1000)))
    with pytest.raises(DataError, match="too few"):
        images.load(tmp_path / "lie.nii.gz")
    # the header announces 8 voxels and 64 MiB follow: refused without reading them all
    (tmp_path / "bomb.nii.gz").write_bytes(gzip.compress(header_of((2, 2, 2)) + bytes(64 << 20)))
    with pytest.raises(DataError, match="after the last voxel"):
        images.load(tmp_path / "bomb.nii.gz")
    # a picture of 100 bytes that announces 40000 x 40000 pixels
    chunk = b"IHDR" + struct.pack(">IIBBBBB", 40000, 40000, 8, 0, 0, 0, 0)
    import zlib

    (tmp_path / "bomb.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk)) + bytes(12)
    )
    with pytest.raises(DataError):
        images.load(tmp_path / "bomb.png")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("text.nii.gz", b"this is no image"),
        ("zero.nii", bytes(4000)),
        ("text.png", b"this is no image"),
        ("text.tif", b"this is no image"),
        ("scan.mgz", b""),
        ("scan", b""),
    ],
)
def test_what_is_no_image_is_refused_with_four_parts(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    for action in (images.load, images.load_labels, images.header):
        with pytest.raises(DataError) as caught:
            action(tmp_path / name)
        problem = caught.value.problems[0]
        assert name in problem.where and problem.got and problem.expected and problem.remedy


def test_missing_file_and_complex_voxels(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        images.load(tmp_path / "gone.nii.gz")
    save(tmp_path / "c.nii", volume().astype(np.complex64))
    with pytest.raises(DataError, match="complex64"):
        images.load(tmp_path / "c.nii")


def test_broken_affines_are_facts_not_crashes(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", volume().astype(np.float32))
    content = bytearray(path.read_bytes())
    struct.pack_into("<hh", content, 252, 1, 0)  # only a qform, with an impossible quaternion
    struct.pack_into("<fff", content, 256, 5.0, 5.0, 5.0)
    path.write_bytes(bytes(content))
    facts = images.header(path)
    assert facts["qform_code"] == 1 and facts["qform"] is None and facts["affine"] is None and facts["orientation"] == ""
    with pytest.raises(DataError, match="qform"):
        images.load(path)
    singular = save(tmp_path / "s.nii", volume().astype(np.float32))
    content = bytearray(singular.read_bytes())
    struct.pack_into("<hh", content, 252, 0, 1)
    struct.pack_into("<12f", content, 280, *([0.0] * 12))
    singular.write_bytes(bytes(content))
    assert images.header(singular)["orientation"] == ""
    assert images.load(singular)[0].shape == (1, 5, 6, 7)


PICTURES = [".png", ".tif", ".bmp", ".ppm"]


@pytest.mark.parametrize("suffix", PICTURES)
def test_colour_pictures(tmp_path: Path, suffix: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 9, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / f"a{suffix}")
    values, affine = images.load(tmp_path / f"a{suffix}", spacing_mm=(0.2, 0.3))
    assert values.shape == (3, 9, 4, 1)  # columns are X, rows are Y
    assert np.array_equal(values[..., 0].transpose(2, 1, 0), pixels)
    assert np.allclose(affine, np.diag([0.2, 0.3, 1, 1]))
    facts = images.header(tmp_path / f"a{suffix}")
    assert (facts["shape"], facts["channels"], facts["dimensions"]) == ([9, 4, 1], 3, 2)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "I;16", "P", "RGBA"])
def test_modes_of_png(tmp_path: Path, mode: str) -> None:
    random = np.random.default_rng(0)
    shape = (4, 9, len(mode)) if mode in ("LA", "RGBA") else (4, 9)
    pixels = random.integers(0, 2 if mode == "1" else 60000 if mode == "I;16" else 200, shape)
    if mode == "1":
        picture = Image.fromarray(pixels.astype(bool))
    elif mode == "P":
        picture = Image.fromarray(pixels.astype(np.uint8))
        picture.putpalette([value for index in range(256) for value in (index, 255 - index, 3)])
    else:
        picture = Image.fromarray(pixels.astype(np.uint16 if mode == "I;16" else np.uint8))
    picture.save(tmp_path / "a.png")
    assert Image.open(tmp_path / "a.png").mode == mode
    values, _ = images.load(tmp_path / "a.png")
    assert len(values) == images.header(tmp_path / "a.png")["channels"] == (3 if mode in ("P", "RGBA") else 1)
    found = values[..., 0].transpose(2, 1, 0)
    if mode == "P":
        assert np.array_equal(found[..., 0], pixels) and np.array_equal(found[..., 1], 255 - pixels)
        assert np.array_equal(images.load_labels(tmp_path / "a.png")[0][..., 0].T, pixels)
    else:
        assert np.array_equal(found, pixels.reshape(4, 9, -1)[..., : len(values)])


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_tiff_layouts(tmp_path: Path, dtype: str, planar: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 200, (4, 9, 3)).astype(dtype)
    stored = pixels if planar == "contig" else np.moveaxis(pixels, -1, 0)
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", planarconfig=planar)
    assert np.array_equal(images.load(tmp_path / "a.tif")[0][..., 0].transpose(2, 1, 0), pixels)


def test_tiff_compressed_by_lzw_and_of_several_pages(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 200, (4, 9, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "lzw.tif", compression="tiff_lzw")
    assert np.array_equal(images.load(tmp_path / "lzw.tif")[0][..., 0].transpose(2, 1, 0), pixels)
    stack = np.random.default_rng(1).integers(0, 200, (3, 4, 9), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "stack.tif", stack, photometric="minisblack")
    with pytest.raises(DataError, match="3 pages"):
        images.load(tmp_path / "stack.tif")
    assert np.array_equal(images.load(tmp_path / "stack.tif", 2)[0][0, ..., 0].T, stack[2])


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
def test_truncated_pictures_are_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(DataError):
        images.load(path)


def test_labels_keep_their_values_unrounded(tmp_path: Path) -> None:
    stored = np.array([[[0.0, 1.0, 1.5, -2.0, np.nan]]], dtype=np.float32)
    values, affine = images.load_labels(save(tmp_path / "a.nii", stored))
    assert np.array_equal(values, stored, equal_nan=True) and np.allclose(affine, AFFINE)
    grey = np.repeat(np.arange(12, dtype=np.uint8).reshape(3, 4, 1), 3, axis=2)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    assert np.array_equal(images.load_labels(tmp_path / "grey.png")[0][..., 0].T, grey[..., 0])
    grey[0, 0, 1] = 99
    Image.fromarray(grey).save(tmp_path / "colour.png")
    with pytest.raises(DataError, match="one label value"):
        images.load_labels(tmp_path / "colour.png")


@pytest.mark.parametrize("top", [3, 300, 70000])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("shape", [(5, 6, 7), (5, 6)])
def test_label_maps_come_back_on_the_same_grid(tmp_path: Path, top: int, kind: type, shape: tuple[int, ...]) -> None:
    like = save(tmp_path / "like.nii.gz", volume(shape).astype(np.float32), kind=kind)
    labels = np.random.default_rng(0).integers(0, top, (*shape, 1)[:3])
    labels.flat[0] = top
    images.save_labels(tmp_path / "map.nii.gz", labels, images.load(like)[1], like)
    read, affine = images.load_labels(tmp_path / "map.nii.gz")
    assert np.array_equal(read, labels) and np.array_equal(affine, images.load(like)[1])
    one, other = images.header(like), images.header(tmp_path / "map.nii.gz")
    for key in ("format", "shape", "dimensions", "sform", "qform", "sform_code", "qform_code", "unit", "spacing_mm"):
        assert one[key] == other[key], key
    assert nib.load(tmp_path / "map.nii.gz").shape == shape


def test_label_maps_are_the_same_bytes_and_carry_no_texts(tmp_path: Path) -> None:
    image = nib.Nifti1Image(volume().astype(np.float32), AFFINE)
    image.header["descrip"], image.header["aux_file"], image.header["db_name"] = b"Jane Doe", b"secret", b"born 1970"
    image.header["intent_name"] = b"name"
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"Jane Doe"))
    nib.save(image, tmp_path / "like.nii.gz")
    labels = np.random.default_rng(0).integers(0, 3, (5, 6, 7))
    digests = set()
    for name in ("one.nii.gz", "other.nii.gz"):
        images.save_labels(tmp_path / name, labels, AFFINE, tmp_path / "like.nii.gz")
        digests.add(hashlib.sha256((tmp_path / name).read_bytes()).hexdigest())
    assert len(digests) == 1
    written = gzip.decompress((tmp_path / "one.nii.gz").read_bytes())
    assert b"Jane" not in written and b"secret" not in written
    head = nib.load(tmp_path / "one.nii.gz").header
    assert not any(bytes(head[key]).strip(b"\0") for key in ("descrip", "aux_file", "db_name", "intent_name"))
    assert not head.extensions
    assert (tmp_path / "one.nii.gz").read_bytes()[3:8] == bytes(5)  # neither a name nor a time in the gzip header


@pytest.mark.parametrize(("like", "name"), [("a.png", "m.png"), ("a.jpg", "m.png"), ("a.tif", "m.tif")])
@pytest.mark.parametrize("top", [2, 1000])
def test_label_maps_of_pictures(tmp_path: Path, like: str, name: str, top: int) -> None:
    Image.fromarray(np.zeros((4, 9, 3), np.uint8)).save(tmp_path / like)
    labels = np.random.default_rng(0).integers(0, top, (9, 4, 1))
    labels.flat[0] = top
    assert images.map_suffix(like) == Path(name).suffix
    images.save_labels(tmp_path / name, labels, np.eye(4), tmp_path / like)
    assert np.array_equal(images.load_labels(tmp_path / name)[0], labels)
    once = (tmp_path / name).read_bytes()
    images.save_labels(tmp_path / name, labels, np.eye(4), tmp_path / like)
    assert (tmp_path / name).read_bytes() == once


def test_label_maps_that_do_not_fit_are_a_mistake(tmp_path: Path) -> None:
    like = save(tmp_path / "like.nii.gz", volume().astype(np.float32))
    good = np.zeros((5, 6, 7), int)
    for labels, affine, name in (
        (good[:-1], AFFINE, "m.nii.gz"),
        (good, AFFINE + 1, "m.nii.gz"),
        (good, AFFINE, "m.png"),
        (good - 1, AFFINE, "m.nii.gz"),
        (good + 0.5, AFFINE, "m.nii.gz"),
    ):
        with pytest.raises(ValueError, match="m"):
            images.save_labels(tmp_path / name, labels, affine, like)
    assert list(tmp_path.iterdir()) == [like]


def make_row(folder: Path) -> tuple[dict[str, str], dict[str, object]]:
    for index, name in enumerate(("t1", "t2", "l", "m")):
        save(folder / f"{name}.nii.gz", volume(seed=index).astype(np.float32))
    row = {"image_id": "x", "image_t1w": "t1.nii.gz", "image_t2w": "t2.nii.gz", "label": "l.nii.gz", "mask": "m.nii.gz"}
    row["sha256_file"], row["sha256_labels"] = images.row_digests(row, folder)
    facts = {"root": str(folder), "channels": ["t1w", "t2w"], "channel_files": {"t1w": ["t1w"], "t2w": ["t2w"]}}
    return row, facts


def test_a_row_with_two_channels(tmp_path: Path) -> None:
    row, facts = make_row(tmp_path)
    values, affine = images.load_row(row, facts)
    assert np.array_equal(values, np.stack([volume(seed=index).astype(np.float32) for index in range(2)]))
    assert np.allclose(affine, AFFINE)
    # a row of a table behaves like a dictionary
    assert np.array_equal(images.load_row(pd.DataFrame([row]).iloc[0], facts)[0], values)
    missing = images.load_row({**row, "image_t1w": ""}, facts)[0]
    assert missing.shape == values.shape and (missing[0] == 0).all() and np.array_equal(missing[1], values[1])
    with pytest.raises(DataError, match="at least one channel"):
        images.load_row({**row, "image_t1w": "", "image_t2w": ""}, facts)


def test_channels_on_different_grids_or_of_other_number_are_refused(tmp_path: Path) -> None:
    row, facts = make_row(tmp_path)
    save(tmp_path / "t2.nii.gz", volume((5, 6, 8)).astype(np.float32))
    with pytest.raises(DataError, match="register"):
        images.load_row(row, facts)
    save(tmp_path / "t2.nii.gz", volume().astype(np.float32), AFFINE + np.diag([0.01, 0, 0, 0]))
    with pytest.raises(DataError, match="register"):
        images.load_row(row, facts)
    save(tmp_path / "t2.nii.gz", volume((5, 6, 7, 4)).astype(np.float32))
    with pytest.raises(DataError, match="4 channels"):
        images.load_row(row, facts)


def test_a_changed_file_is_refused_by_name(tmp_path: Path) -> None:
    row, _ = make_row(tmp_path)
    images.verify_row(row, tmp_path)
    single = {"image_id": "x", "image_t1w": "t1.nii.gz", "mask": "", "sha256_labels": ""}
    single["sha256_file"] = hashlib.sha256((tmp_path / "t1.nii.gz").read_bytes()).hexdigest()
    images.verify_row(single, tmp_path)
    for name in ("t2.nii.gz", "l.nii.gz", "m.nii.gz"):
        before = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(before + b"\0")
        with pytest.raises(DataError, match=name):
            images.verify_row(row, tmp_path)
        (tmp_path / name).write_bytes(before)
    for name in ("t1.nii.gz", "m.nii.gz"):
        (tmp_path / name).unlink()
    with pytest.raises(DataError) as caught:
        images.verify_row(row, tmp_path)
    assert len(caught.value.problems) == 2


def test_columns() -> None:
    columns = ["image_id", "image_t1w", "label_region", "label", "mask", "image_flair", "age", "sha256_labels"]
    assert images.channel_columns(columns) == ["image_t1w", "image_flair"]
    assert images.label_columns(columns) == ["label", "label_region"]
    assert images.stem_of("a/b.c.nii.gz") == "b.c"


@pytest.mark.real_data
def test_hippocampus_as_nibabel_reads_it(hippocampus: Path) -> None:
    for path in sorted((hippocampus / "imagesTr").glob("*.nii.gz"))[::20]:
        values, affine = images.load(path)
        reference = nib.load(path)
        assert np.array_equal(values[0], reference.get_fdata().astype(np.float32))
        assert np.array_equal(affine, reference.affine)


def test_modules_below_do_not_import_nibabel_when_loaded() -> None:
    import subprocess
    import sys

    code = "import sys; from gyri import images; assert not {'nibabel', 'PIL', 'tifffile', 'pandas'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(Path(nifti.__file__).parents[1])}).returncode == 0
    assert pictures.TIFF
