"""Every kind of picture that a data folder may hold: used, converted with a note, or refused with a reason."""

import io
import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms
from tests.horrors import png

from loupe.imaging.facts import measure
from loupe.imaging.files import (
    MOST_BYTES,
    UPRIGHT,
    ImageError,
    atomic_file,
    atomic_folder,
    decoded,
    find_images,
    read_image,
    write_png,
)
from loupe.imaging.resize import Pixels

RGB: Pixels = np.random.default_rng(0).integers(0, 256, (9, 14, 3), np.uint8)
ROWS = b"".join(b"\0" + row.tobytes() for row in RGB)  # as PNG holds them


def save(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)  # type: ignore[arg-type]
    return path


def test_plain_colour_and_gray_come_through_unchanged(tmp_path: Path) -> None:
    colour = read_image(save(tmp_path / "a.png", Image.fromarray(RGB)))
    np.testing.assert_array_equal(colour.pixels, RGB)
    assert colour.notes == ()
    gray = read_image(save(tmp_path / "b.png", Image.fromarray(RGB[..., 0])))
    np.testing.assert_array_equal(gray.pixels, RGB[..., 0])
    np.testing.assert_array_equal(gray.rgb, np.repeat(RGB[..., :1], 3, axis=2))
    assert gray.notes == ()


def test_transparency_is_composited_on_white(tmp_path: Path) -> None:
    rgba = np.dstack([RGB, np.zeros((9, 14), np.uint8)])
    rgba[:4, :, 3] = 255
    rgba[4, :, 3] = 51
    loaded = read_image(save(tmp_path / "a.png", Image.fromarray(rgba)))
    np.testing.assert_array_equal(loaded.pixels[:4], RGB[:4])
    np.testing.assert_allclose(loaded.pixels[4], RGB[4] * 0.2 + 255 * 0.8, atol=1)
    assert (loaded.pixels[5:] == 255).all()
    assert loaded.notes == ("RGBA composited on white",)


def test_gray_with_transparency_stays_gray(tmp_path: Path) -> None:
    la = np.dstack([RGB[..., 0], np.full((9, 14), 255, np.uint8)])
    loaded = read_image(save(tmp_path / "a.png", Image.fromarray(la)))
    np.testing.assert_array_equal(loaded.pixels, RGB[..., 0])
    assert loaded.notes == ("LA composited on white",)


def test_palettes_are_expanded(tmp_path: Path) -> None:
    picture = Image.fromarray(np.array([[0, 1], [2, 0]], np.uint8), mode="P")
    picture.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    loaded = read_image(save(tmp_path / "a.png", picture))
    np.testing.assert_array_equal(loaded.pixels[0], [[255, 0, 0], [0, 255, 0]])
    assert loaded.notes == ("palette expanded to RGB",)
    loaded = read_image(save(tmp_path / "b.png", picture, transparency=0))
    np.testing.assert_array_equal(loaded.pixels[0], [[255, 255, 255], [0, 255, 0]])
    assert loaded.notes == ("palette expanded to RGBA", "RGBA composited on white")


def test_sixteen_bit_gray_is_scaled(tmp_path: Path) -> None:
    samples = np.array([[0, 128, 129, 257, 65535, 32768]], np.uint16)
    loaded = read_image(save(tmp_path / "a.png", Image.fromarray(samples)))
    np.testing.assert_array_equal(loaded.pixels, [[0, 0, 1, 1, 255, 128]])
    assert loaded.notes == ("16-bit gray scaled to 8 bits",)
    loaded = read_image(save(tmp_path / "b.png", Image.fromarray(samples), transparency=32768))
    np.testing.assert_array_equal(loaded.pixels, [[0, 0, 1, 1, 255, 255]])
    assert loaded.notes == ("16-bit gray scaled to 8 bits", "LA composited on white")


def test_sixteen_bit_colour_is_said_to_be_reduced(tmp_path: Path) -> None:
    path = tmp_path / "deep.png"
    path.write_bytes(png(2, 1, 16, 2, b"\0" + struct.pack(">6H", 0, 65535, 32768, 256, 512, 65280)))
    loaded = read_image(path)
    np.testing.assert_array_equal(loaded.pixels, [[[0, 255, 128], [1, 2, 255]]])
    assert loaded.notes == ("16-bit colour reduced to 8 bits",)


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    cmyk = Image.new("CMYK", (4, 4), (255, 0, 0, 0))
    loaded = read_image(save(tmp_path / "a.tif", cmyk))
    assert loaded.pixels.shape == (4, 4, 3)
    np.testing.assert_array_equal(loaded.pixels[0, 0], [0, 255, 255])
    assert loaded.notes == ("CMYK converted to RGB",)


def test_bilevel_becomes_gray(tmp_path: Path) -> None:
    loaded = read_image(save(tmp_path / "a.png", Image.new("1", (3, 2), 1)))
    np.testing.assert_array_equal(loaded.pixels, np.full((2, 3), 255))
    assert loaded.notes == ("bilevel expanded to gray",)


@pytest.mark.parametrize("kind", ["png", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(10))
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "webp" else {}
    loaded = read_image(save(tmp_path / f"a.{kind}", Image.fromarray(RGB), exif=exif, **options))
    quarters = {3: 2, 6: 3, 8: 1}.get(orientation, 0)  # counter-clockwise
    upright = {2: RGB[:, ::-1], 4: RGB[::-1], 5: RGB.swapaxes(0, 1), 7: RGB[::-1, ::-1].swapaxes(0, 1)}
    np.testing.assert_array_equal(loaded.pixels, upright.get(orientation, np.rot90(RGB, quarters)))
    if kind != "tif":  # whose decoder turns it
        assert loaded.notes == ("turned upright by its EXIF orientation",) * (orientation in UPRIGHT)


def test_a_turned_tiff_of_several_pictures_is_turned_once(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.fromarray(RGB)
    path = save(tmp_path / "a.tif", image, exif=exif, save_all=True, append_images=[image])
    np.testing.assert_array_equal(read_image(path).pixels, np.rot90(RGB, -1))
    found = measure(path)
    assert (found.width, found.height, found.frames) == (9, 14, 2)


DAMAGED_EXIF = {
    "ends before its directory": b"II*\0",
    "is none": b"junk",
    "is empty": b"",
    "ends within its directory": b"II*\0\x08\0\0\0\xff\xff\x12\x01",
    "holds text where a number belongs": b"MM\0*\0\0\0\x08\0\1\x01\x12\0\2\0\0\0\x02" + b"6\0\0\0",
}


@pytest.mark.parametrize("exif", DAMAGED_EXIF.values(), ids=DAMAGED_EXIF)
@pytest.mark.parametrize("kind", ["png", "webp", "jpg"])
def test_damaged_exif_does_not_spoil_a_picture(tmp_path: Path, exif: bytes, kind: str) -> None:
    options = {"lossless": True} if kind == "webp" else {}
    image = Image.fromarray(RGB)
    plain = read_image(save(tmp_path / f"plain.{kind}", image, **options))
    path = save(tmp_path / f"a.{kind}", image, exif=b"Exif\0\0" + exif, **options)
    loaded, found = read_image(path), measure(path)
    np.testing.assert_array_equal(loaded.pixels, plain.pixels)
    assert loaded.notes == ()
    assert (found.decodable, found.orientation) == (True, 1)


def test_text_that_takes_the_place_of_metadata_does_not_spoil_a_picture(tmp_path: Path) -> None:
    for key in (b"exif", b"icc_profile", b"xmp"):  # which Pillow keeps with what it parsed itself
        path = tmp_path / f"{key.decode()}.png"
        path.write_bytes(png(14, 9, 8, 2, ROWS, {b"tEXt": key + b"\0no such thing"}))
        np.testing.assert_array_equal(read_image(path).pixels, RGB)
        assert measure(path).decodable


def test_srgb_profiles_change_nothing_and_others_are_converted(tmp_path: Path) -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    loaded = read_image(save(tmp_path / "a.png", Image.fromarray(RGB), icc_profile=srgb))
    np.testing.assert_array_equal(loaded.pixels, RGB)
    assert loaded.notes == ()
    damaged = read_image(save(tmp_path / "b.png", Image.fromarray(RGB), icc_profile=b"no profile"))
    np.testing.assert_array_equal(damaged.pixels, RGB)
    assert damaged.notes == ("its damaged colour profile ignored",)


def test_the_first_frame_of_an_animation_is_taken(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (6, 6), colour) for colour in ("red", "blue")]
    loaded = read_image(save(tmp_path / "a.gif", frames[0], save_all=True, append_images=frames[1:]))
    assert (loaded.pixels == [255, 0, 0]).all()
    assert loaded.notes[0] == "first of 2 frames taken"


def test_one_pixel_is_a_picture(tmp_path: Path) -> None:
    assert read_image(save(tmp_path / "a.png", Image.new("RGB", (1, 1), "red"))).pixels.tolist() == [[[255, 0, 0]]]


def encoded(kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(RGB).save(stream, kind, **options)  # type: ignore[arg-type]
    return stream.getvalue()


def broken_avif() -> bytes:
    data = encoded("AVIF")
    start = data.index(b"mdat") + 4
    return data[:start] + b"\xff" * 40 + data[start + 40 :]


def broken_chain_of_tiff() -> bytes:
    data = encoded("TIFF")
    (start,) = struct.unpack_from("<I", data, 4)
    (entries,) = struct.unpack_from("<H", data, start)
    after = start + 2 + 12 * entries
    return data[:after] + struct.pack("<I", len(data)) + data[after + 4 :] + bytes(6)  # leads to an empty directory


def text_for_a_tiff_offset() -> bytes:
    data = bytearray(encoded("TIFF"))
    entry = data.index(struct.pack("<HH", 273, 4))  # where the pixels lie
    data[entry + 2 : entry + 4] = struct.pack("<H", 2)
    return bytes(data)


BROKEN = {  # what Pillow gives up on with an error that is not meant for its users
    "RuntimeError of pixels": broken_avif,
    "TypeError of counting frames": broken_chain_of_tiff,
    "TypeError of pixels": text_for_a_tiff_offset,
    "IndexError of a chunk after the pixels": lambda: png(14, 9, 8, 2, ROWS, {b"IDAT": b"", b"iCCP": b""}),
    "TypeError of a transparent colour": lambda: png(14, 9, 8, 2, ROWS, {b"tRNS": b"\0\1\0\1"}),
}


@pytest.mark.parametrize("make", BROKEN.values(), ids=BROKEN)
def test_whatever_a_decoder_raises_becomes_a_refusal(tmp_path: Path, make: Callable[[], bytes]) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(make())
    with pytest.raises(ImageError, match=r"a.png: refused: damaged or truncated \(..+\)") as refusal:
        read_image(path)
    assert str(refusal.value) == f"{path}: {measure(path).error}"


def test_an_interrupt_is_no_damage_and_a_lack_of_memory_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    with pytest.raises(KeyboardInterrupt), decoded(path, encoded("PNG")):
        raise KeyboardInterrupt
    with pytest.raises(ImageError, match="not enough memory"), decoded(path, encoded("PNG")):
        raise MemoryError


SEEDS: dict[str, tuple[str, dict[str, object]]] = {
    **{kind: (kind, {}) for kind in ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "AVIF")},
    "packed TIFF": ("TIFF", {"compression": "tiff_lzw"}),
    "moving GIF": ("GIF", {"save_all": True, "append_images": [Image.fromarray(RGB[::-1])]}),
    "moving WEBP": ("WEBP", {"save_all": True, "append_images": [Image.fromarray(RGB[::-1])]}),
}


@pytest.mark.parametrize(("kind", "options"), SEEDS.values(), ids=SEEDS)
def test_files_with_wrong_bytes_are_read_or_refused(
    tmp_path: Path, kind: str, options: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10**6)  # wrong sizes are not waited for
    random = np.random.default_rng(0)
    exif = Image.Exif()
    exif[0x0112] = 6
    whole = encoded(kind, **({} if kind in ("BMP", "GIF") else {"exif": exif}), **options)
    path = tmp_path / "a.png"
    for _ in range(80):
        data = bytearray(whole)
        for place in random.integers(0, min(len(data), random.choice([100, len(data)])), random.integers(1, 5)):
            data[place] = random.choice((0, 1, 2, 127, 128, 255, int(random.integers(256))))
        path.write_bytes(data[: random.integers(1, len(data))] if random.random() < 0.1 else data)
        found = measure(path)
        try:
            loaded = read_image(path)
        except ImageError as error:
            assert str(error) == f"{path}: {found.error}"
        else:
            assert found.decodable, found.error
            assert loaded.pixels.shape[:2] == (found.height, found.width)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".gif", ".tif", ".bmp"])
def test_truncated_files_are_refused(tmp_path: Path, suffix: str) -> None:
    whole = save(tmp_path / f"whole{suffix}", Image.fromarray(np.tile(RGB, (12, 12, 1))))
    data = whole.read_bytes()
    for share in (0.02, 0.3, 0.7):
        cut = tmp_path / f"cut{suffix}"
        cut.write_bytes(data[: max(1, int(len(data) * share))])
        with pytest.raises(ImageError, match=f"cut{suffix}: refused: "):
            read_image(cut)


def test_refusals_name_the_file_and_the_reason(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    with pytest.raises(ImageError, match=r"empty.png: refused: the file is empty"):
        read_image(tmp_path / "empty.png")
    (tmp_path / "text.jpg").write_text("this is no picture")
    with pytest.raises(ImageError, match=r"text.jpg: refused: not an image that can be decoded"):
        read_image(tmp_path / "text.jpg")
    save(tmp_path / "float.tif", Image.fromarray(np.zeros((3, 3), np.float32)))
    with pytest.raises(ImageError, match=r"float.tif: refused: floating-point"):
        read_image(tmp_path / "float.tif")
    with pytest.raises(ImageError, match=r"missing.png: refused: .*No such file"):
        read_image(tmp_path / "missing.png")


def test_what_is_no_file_is_refused_and_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ImageError, match=r"pipe.png: refused: no file but a pipe"):
        read_image(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(ImageError, match=r"folder.png: refused: cannot be read \(Is a directory\)"):
        read_image(tmp_path / "folder.png")
    with (tmp_path / "vast.png").open("wb") as stream:
        stream.truncate(MOST_BYTES + 1)
    with pytest.raises(ImageError, match=r"vast.png: refused: over 1024 MiB"):
        read_image(tmp_path / "vast.png")


def test_content_decides_the_decoder_and_none_runs_programs(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.jpg", format="PNG")
    np.testing.assert_array_equal(read_image(tmp_path / "a.jpg").pixels, RGB)
    Image.fromarray(RGB).save(tmp_path / "b.png", format="EPS")
    with pytest.raises(ImageError, match=r"b.png: refused: not an image"):
        read_image(tmp_path / "b.png")


def test_compositing_is_exact_for_every_level_and_opacity(tmp_path: Path) -> None:
    level, opacity = np.meshgrid(np.arange(256), np.arange(256))
    rgba = np.dstack([level, level, level, opacity]).astype(np.uint8)
    loaded = read_image(save(tmp_path / "a.png", Image.fromarray(rgba)))
    exact = (level * opacity + 255 * (255 - opacity)) / 255
    np.testing.assert_array_equal(loaded.pixels[..., 0], np.floor(exact + 0.5))


def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    save(tmp_path / "bomb.png", Image.new("1", (20_000, 20_000)))  # 400 megapixels in 60 kB
    with pytest.raises(ImageError, match=r"bomb.png: refused: over 178 megapixels"):
        read_image(tmp_path / "bomb.png")


def test_find_images_sorts_and_leaves_out_what_is_hidden(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpg", ".hidden.png", "notes.txt", "sub/c.webp", ".git/d.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    assert [path.relative_to(tmp_path).as_posix() for path in find_images(tmp_path)] == ["a.jpg", "b.PNG", "sub/c.webp"]
    with pytest.raises(ImageError, match="no such folder"):
        find_images(tmp_path / "missing")


def test_writing_is_all_or_nothing(tmp_path: Path) -> None:
    write_png(tmp_path / "new" / "a.png", RGB)
    np.testing.assert_array_equal(read_image(tmp_path / "new" / "a.png").pixels, RGB)
    with pytest.raises(RuntimeError), atomic_file(tmp_path / "new" / "a.png") as stream:
        stream.write(b"half")
        raise RuntimeError
    np.testing.assert_array_equal(read_image(tmp_path / "new" / "a.png").pixels, RGB)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.png"]

    (tmp_path / "out.part").mkdir()
    (tmp_path / "out.part" / "left by an interrupted run").touch()
    with atomic_folder(tmp_path / "out") as folder:
        (folder / "one").touch()
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "out") as folder:
        (folder / "two").touch()
        raise RuntimeError
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["one"]
    assert not (tmp_path / "out.part").exists()
