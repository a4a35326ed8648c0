"""Files as cameras, scanners and instruments write them, and as people keep them."""

import logging
import os
import struct
import subprocess
import sys
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from vaestudy import data
from vaestudy.data import decode
from vaestudy.data.decode import Recipe, decode_all, list_images


@pytest.fixture
def album(tmp_path):
    root = tmp_path / "album"
    root.mkdir()
    return root


def shown(root, side=16):
    """Every file of a folder by its name, as bytes (3, side, side); None for what is skipped."""
    files = list_images(root)
    storage, details = decode_all("album", root, files, Recipe(side), root.parent / "cache")
    return {name: None if k in details["unreadable"] else storage[k].numpy() for k, name in enumerate(files)}


def tiff(path, pixels, bits, photometric=1, sample_format=1):
    """A grey little-endian TIFF of one strip, with the tags that PIL would not write."""
    height, width = pixels.shape
    if bits == 12:
        pairs = pixels.reshape(-1, 2).astype(int)
        packed = [(a >> 4, (a & 15) << 4 | b >> 8, b & 255) for a, b in pairs]
        content = np.array(packed, dtype=np.uint8).tobytes()
    else:
        content = pixels.astype({16: "<u2", 32: "<f4" if sample_format == 3 else "<u4"}[bits]).tobytes()
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 0, 277: 1, 278: height}
    tags |= {279: len(content), 339: sample_format}
    tags[273] = 8 + 2 + 12 * len(tags) + 4
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    path.write_bytes(b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + b"\0\0\0\0" + content)


def test_wide_pixels_run_from_their_black_to_their_white(album):
    ramp = np.repeat(np.arange(16) * 4369, 16).reshape(16, 16)  # 0 to 65,535
    Image.fromarray(ramp.astype(np.uint16)).save(album / "png16.png")
    tiff(album / "tiff16.tif", ramp, 16)
    tiff(album / "white_is_zero.tif", 65535 - ramp, 16, photometric=0)
    tiff(album / "tiff12.tif", np.repeat(np.arange(16) * 273, 16).reshape(16, 16), 12)
    (album / "pgm16.pgm").write_bytes(b"P5 16 16 65535\n" + ramp.astype(">u2").tobytes())
    (album / "pgm12.pgm").write_bytes(b"P5 16 16 4095\n" + (ramp // 16).astype(">u2").tobytes())
    tiff(album / "float.tif", ramp, 32, sample_format=3)
    tiff(album / "int32.tif", ramp * 1000, 32)
    found = shown(album)
    assert found.pop("float.tif") is None
    assert found.pop("int32.tif") is None
    for name, picture in found.items():
        np.testing.assert_array_equal(picture[:, :, 0], [[k * 17 for k in range(16)]] * 3, err_msg=name)


@pytest.mark.parametrize("mode", ["P", "CMYK", "YCbCr", "LAB"])
def test_red_is_red_in_every_mode(album, mode):
    picture = Image.new("RGB", (16, 16), (200, 40, 40))
    if mode == "LAB":
        profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        picture = ImageCms.profileToProfile(picture, *profiles, outputMode="LAB")
    else:
        picture = picture.convert(mode)
    picture.save(album / "a.tif")
    found = shown(album)["a.tif"].astype(int).mean(axis=(1, 2))
    np.testing.assert_allclose(found, [200, 40, 40], atol=12)


def test_pixels_of_one_bit_and_of_32_are_shown_by_their_own_white(album):
    grey = Image.new("L", (16, 16), 87)
    grey.convert("1").save(album / "bit.png")
    grey.convert("I").save(album / "wide.tif")
    found = shown(album)
    assert set(np.unique(found["bit.png"])) == {0, 255}
    assert (found["wide.tif"] == 0).all()  # 87 of 65,535


@pytest.mark.parametrize("suffix", ["jpg", "tif"])
def test_every_exif_orientation_is_put_upright(album, suffix):
    corner = Image.new("L", (16, 16))
    corner.paste(255, (0, 0, 8, 4))
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # orientation: the transposition that a camera made
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        method = back.get(orientation)
        turned = corner if method is None else corner.transpose(Image.Transpose(method))
        turned.convert("RGB").save(album / f"{orientation}.{suffix}", exif=exif, quality=100)
    for name, picture in shown(album).items():
        assert np.abs(picture[0].astype(int) - np.asarray(corner)).max() < 60, name


def test_animations_show_their_first_frame_and_alpha_lies_on_white(album):
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    for suffix in ("gif", "png", "webp", "tif"):
        frames[0].save(album / f"a.{suffix}", save_all=True, append_images=frames[1:])
    Image.new("RGBA", (16, 16), (0, 0, 0, 0)).save(album / "clear.webp")
    Image.new("LA", (16, 16), (0, 0)).save(album / "clear.png")
    Image.new("L", (16, 16), 7).save(album / "keyed.png", transparency=7)
    found = shown(album)
    for name in ("clear.webp", "clear.png", "keyed.png"):
        assert (found.pop(name) == 255).all()
    for name, picture in found.items():
        assert np.abs(picture[:, 8, 8].astype(int) - (255, 0, 0)).max() < 4, name


def test_colours_are_managed_by_the_profile_and_a_damaged_profile_does_no_harm(album):
    picture = Image.new("RGB", (16, 16), (120, 200, 80))
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    # A camera whose red is what others call blue: the primaries of sRGB change places, and its name goes.
    swapped = srgb.replace(b"rXYZ", b"....").replace(b"bXYZ", b"rXYZ").replace(b"....", b"bXYZ")
    swapped = swapped.replace(b"s\0R\0G\0B", b"c\0a\0m\0e").replace(b"sRGB built", b"came built")
    for name, profile in (("srgb", srgb), ("swapped", swapped), ("damaged", srgb[:200])):
        picture.save(album / f"{name}.png", icc_profile=profile)
    found = {name: [int(level) for level in pixels[:, 0, 0]] for name, pixels in shown(album).items()}
    assert found["srgb.png"] == found["damaged.png"] == [120, 200, 80]
    assert np.abs(np.array(found["swapped.png"]) - [80, 200, 120]).max() <= 2


def test_a_damaged_note_about_the_camera_is_no_damage_to_the_image(album):
    Image.new("RGB", (16, 16), "red").save(album / "a.png", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    assert (shown(album)["a.png"][0] == 255).all()


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def bomb(width, height):
    """A PNG of a few bytes that claims to be huge."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def test_what_is_no_image_or_a_trap_is_skipped_by_name_and_the_rest_is_used(album, caplog):
    Image.new("RGB", (200, 200), "red").save(album / "good.jpg")
    whole = (album / "good.jpg").read_bytes()
    (album / "text.jpg").write_text("a letter")
    (album / "page.png").write_text("<!DOCTYPE html><html>quota exceeded</html>")
    (album / "script.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    (album / "bomb.png").write_bytes(bomb(60_000, 60_000))
    (album / "large.png").write_bytes(bomb(10_000, 10_000))  # only a warning of PIL's, and cut short
    (album / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (album / "raw.nef").write_bytes(whole)  # PIL would take its thumbnail for the photograph
    (album / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic")
    (album / "nowhere.jpg").symlink_to(album / "gone.jpg")
    os.mkfifo(album / "pipe.jpg")
    with caplog.at_level(logging.WARNING), warnings.catch_warnings():
        warnings.simplefilter("error")
        found = shown(album)
    assert [name for name, picture in found.items() if picture is not None] == ["good.jpg"]
    assert "skipped 10 of 11 images" in caplog.text
    assert "bomb.png, cut.jpg, large.png, nowhere.jpg, page.png" in caplog.text


def test_loops_of_links_end_and_links_are_followed(album, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for folder in (album, elsewhere):
        Image.new("L", (16, 16), 9).save(folder / "a.png")
    (elsewhere / "back").symlink_to(album)
    (elsewhere / "self").symlink_to(elsewhere)
    (album / "more").symlink_to(elsewhere)
    (album / "b.png").symlink_to(elsewhere / "a.png")
    assert list_images(album) == ["a.png", "b.png", "more/a.png"]


def grey(path, value, times=None):
    """An image without compression: its size says nothing about its value."""
    Image.new("L", (16, 16), value).save(path, compress_level=0)
    if times:
        os.utime(path, times)


def test_folders_whose_files_share_names_sizes_and_times_never_meet(tmp_path):
    seen = []
    for name, value in (("one", 50), ("two", 200)):
        (tmp_path / name).mkdir()
        grey(tmp_path / name / "a.png", value, times=(1e9, 1e9))
        seen.append(shown(tmp_path / name)["a.png"][0, 0, 0])
    assert seen == [50, 200]
    assert shown(tmp_path / "one")["a.png"][0, 0, 0] == 50


def test_a_file_repainted_in_place_is_seen_even_with_its_old_times(album):
    for value in (50, 200, 90):
        grey(album / "a.png", value, times=(1e9, 1e9))
        assert (shown(album)["a.png"] == value).all()


def test_a_moved_folder_is_found_again_by_its_content(album, tmp_path, monkeypatch):
    grey(album / "a.png", 50)
    shown(album)
    album.rename(tmp_path / "moved")
    monkeypatch.setattr(decode, "decode", lambda *_: pytest.fail("decoded again"))
    assert (shown(tmp_path / "moved")["a.png"] == 50).all()


def test_bytes_are_read_once_while_nothing_changes(album, monkeypatch):
    grey(album / "a.png", 50)
    monkeypatch.setattr(decode, "SETTLED", -1)  # as if the file had changed long ago
    first = decode.content_digest(album, ["a.png"], album.parent)
    monkeypatch.setattr("hashlib.file_digest", lambda *_: pytest.fail("read again"))
    assert decode.content_digest(album, ["a.png"], album.parent) == first


def test_a_script_without_a_main_guard_gets_its_images(album, tmp_path):
    for number in range(40):
        grey(album / f"{number:02d}.png", number)
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\nfrom vaestudy import data\nfrom vaestudy.data import decode\n"
        "decode.processes = lambda paths: 2\n"
        "print('started')\nprint(len(data.load('folder', image_size=16, data_dir=sys.argv[1])))\n"
    )
    said = subprocess.run([sys.executable, script, album], capture_output=True, text=True, timeout=120, check=True)
    expected = len(data.load("folder", image_size=16, data_dir=album))
    assert said.stdout.split() == ["started", str(expected)]


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="only Linux binds processes to cores")
def test_cores_are_those_that_this_process_may_use(monkeypatch):
    monkeypatch.setattr(decode, "POOL_PAYS", 0)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    assert decode.processes([]) == 1
