"""Photographs that are named as made from one photograph, and names that only look so."""

import re
import string
import uuid
from collections.abc import Callable, Iterator
from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bldml.dataset.duplicates.cameras import is_camera_name
from bldml.dataset.duplicates.names import find_sources, source_name

DICE = Random(16)


def dice(n: int, letters: str = "0123456789abcdef") -> str:
    return "".join(DICE.choice(letters) for _ in range(n))


def a_uuid() -> str:
    return str(uuid.UUID(int=DICE.getrandbits(128)))


def marked(base: str, marks: str, suffix: str = ".jpg") -> list[str]:
    """Names with each of the marks, which are divided by |; `*` stands for the base."""
    return [f"{mark.replace('*', base) if '*' in mark else base + mark}{suffix}" for mark in marks.split("|")]


WORDS = (
    "|_aug1|_augmented_3|-rot90|_rotated|_flip|_mirror|_bright|_noise|_crop|_resized|_640x480|_rotated_90|_flip_h|_rot-15"
    "|_hflip|_bright1.2|_flip_horizontal|_horizontal_flip|_gaussian_noise|_brightness_0.8|_zoom_in|_center_crop|.aug.3"
    "|_vflip_r30|_hflip_r270|_bounding_box_2|_ShiftScaleRotate|_RandomBrightnessContrast|_MotionBlur|.transformed|_solarized"
    "|_random_crop_2|_flippedHorizontally|_rot90_flip|_low_light|_rotated_by_15|_crop_3|aug_*|flip_*|rot90_*|aug_3_*"
)
LIBRARIES = (  # classes of Albumentations, imgaug and torchvision
    "|_HorizontalFlip|_RandomRotate90|_HueSaturationValue|_RGBShift|_CoarseDropout|_GridDistortion|_ISONoise|_ToGray"
    "|_RandomSunFlare|_PiecewiseAffine|_SafeRotate|_MultiplicativeNoise|_Fliplr|_AdditiveGaussianNoise|_SaltAndPepper"
    "|_AddToHueAndSaturation|_LinearContrast|_ShearX|_TrivialAugmentWide|_AugMix|_ColorJitter|_RandomErasing"
)
OTHERS = (  # words that no rule knows: the original is there
    "|_sam|_viz|_json|_web|-min|_4x|_x2|_LI|-Pano| (Large)| (1 of 1)|-DESKTOP-AB12CD3|_h|_v|_r90|_r180|_b|_0f3a9c1d"
    "|-COLLAGE|_fog|_any new word"
)
SCHEMES: dict[str, Callable[[str], list[str]]] = {
    "Roboflow": lambda leaf: [f"{leaf}_jpg.rf.{dice(n)}.jpg" for n in (20, 32, 40)],
    "Roboflow, newer": lambda leaf: [f"{leaf}_JPG_jpg.rf.{dice(20, string.ascii_letters)}.jpg" for _ in range(3)],
    "Roboflow and originals": lambda leaf: [f"{leaf}.jpg", f"{leaf}_jpeg.rf.{dice(32)}.jpg"],
    "Roboflow, video": lambda leaf: [f"{leaf}_mp4-{i}_jpg.rf.{dice(32)}.jpg" for i in range(3)],
    "Augmentor": lambda leaf: [f"{leaf}.jpg"] + [f"BLD_original_{leaf}.jpg_{a_uuid()}.jpg" for _ in range(3)],
    "Keras": lambda leaf: [f"aug_{re.sub('[^0-9]', '', leaf)}_{DICE.randrange(10**7)}.jpeg" for _ in range(4)],
    "Keras, name as prefix": lambda leaf: [f"{leaf}.jpg"] + [f"{leaf}_0_{DICE.randrange(10**4)}.png" for _ in range(6)],
    "words": lambda leaf: marked(leaf, WORDS),
    "libraries": lambda leaf: marked(leaf, LIBRARIES),
    "originals and words of others": lambda leaf: marked(leaf, OTHERS),
    "glued": lambda leaf: marked(leaf, "|Flip|Rotated|copy|Mirror"),
    "before the name": lambda leaf: marked(leaf, "|h_flip_*|horizontal_flip_*|augmented_image_2_*|vertical_flip_*"),
    "before the original": lambda leaf: marked(leaf, f"|0_*|1_*|new_*|{dice(6)}a1__*"),
    "names drawn by programs": lambda leaf: [f"{leaf}.jpg", f"{leaf}_{dice(6)}a1.jpg", f"{leaf}_{a_uuid()}.jpg"],
    "sizes": lambda leaf: marked(leaf, "|-1024x768|-scaled|-150x150|_thumb|_small|@2x|640px-*"),
    "tiles": lambda leaf: [f"{leaf}_r{r}_c{c}.png" for r in (0, 128) for c in (64, 128)],
    "tiles from 0": lambda leaf: [f"{leaf}_{r}_{c}.png" for r in range(3) for c in range(3)],
    "tiles in pixels": lambda leaf: [f"{leaf}_{y}_{x}.png" for y in (0, 512) for x in (0, 512)],
    "x and y": lambda leaf: [f"{leaf}_x{x}_y{y}.png" for y in (100, 300) for x in (100, 300)],
    "named tiles": lambda leaf: marked(leaf, "_tile_3_4|_tile_3_5|_patch12|-part2|tile_0_1_*"),
    "SAHI": lambda leaf: [f"{leaf}_{x}_0_{x + 512}_512.png" for x in (0, 410)],
    "DOTA": lambda leaf: [f"{leaf}__1__{x}___0.png" for x in (0, 410)],
    "QuPath": lambda leaf: [f"{leaf} [d=1,x={x},y=0,w=512,h=512].png" for x in (0, 410)],
    "copies": lambda leaf: marked(
        leaf, "| - Copy| copy 2|Copy of *| (Kopie)| - コピー| - Cópia|_copy1| (3rd copy)| - نسخة"
    ),
    "conflicts": lambda leaf: marked(leaf, "| (Ana's conflicted copy 2024-06-01)|.sync-conflict-20240601-123000-AB"),
    "editors": lambda leaf: marked(leaf, "|-Edit|-Edit-2|-Enhanced-NR|_edited|-bearbeitet|~2|_DxO|-topaz-denoise"),
    "other languages": lambda leaf: marked(leaf, "| gedreht|_gespiegelt|-recadrée|_modified"),
    "SuperAnnotate": lambda leaf: marked(leaf, ".jpg___fuse|.jpg___lores|"),
    "Edge Impulse": lambda leaf: [f"{leaf}.jpg.{dice(8, string.ascii_lowercase)}.jpg" for _ in range(3)],
    "frames of players": lambda leaf: marked(
        leaf, ".mp4#t=0.133333|.mp4#t=2.4|.MOV.0012|.mp4_snapshot_00.12|.mp4_20240601_123001.000|_mp4_frame3|_2.5s"
    ),
    "scenes": lambda leaf: marked(leaf, "-Scene-001-01|-Scene-001-02|-Scene-012-01|-out001"),
    "Label Studio": lambda leaf: [f"{leaf}.jpg", f"{dice(7)}a-{leaf}.jpg", f"{dice(7)}b-{leaf}.jpg"],
    "frames": lambda leaf: marked(leaf, "_frame_0001|_frame_0002|-frame12|.mp4_000123"),
    "numbers and originals": lambda leaf: marked(leaf, "|_1|_2|_3"),
    "numbers in brackets": lambda leaf: marked(leaf, "| (1)| (2)"),
    "PlantVillage": lambda leaf: [
        f"{uuid.uuid5(uuid.NAMESPACE_DNS, leaf)}___RS_HL 1000{mark}.JPG"
        for mark in ("", "_90deg", "_flipTB", "_new30degFlipLR", "_new200degFlipTB", "_newPixel25", "_final_masked")
    ],
}
CAMERAS: dict[str, Callable[[int], list[str]]] = {
    "crops": lambda n: [f"IMG_{n}_{part}.JPG" for part in range(1, 5)],
    "crops of a phone": lambda n: [f"20240601_12{n // 60 % 60:02d}{n % 60:02d}_{part}.jpg" for part in (1, 2)],
    "iPhone": lambda n: [*marked(f"IMG_{n}", "| 2|(1)| (Edited)|-edited"), f"IMG_E{n}.JPG", f"IMG_{n}.HEIC"],
    "HEIC and JPEG": lambda n: [f"IMG_{n}.HEIC", f"IMG_{n}.JPG"],
    "crops of YOLO": lambda n: marked(f"IMG_{n}", "|2|3|4"),
    "Lightroom": lambda n: marked(f"DSC0{n}", "|-2|-Edit|-HDR"),
    "Pixel": lambda n: marked(
        f"PXL_20240601_12{n // 60 % 60:02d}{n % 60:02d}123",
        "|.MP|.PORTRAIT-01.COVER|.PORTRAIT-02.ORIGINAL|~2|_exported_1024|-edited|(1)",
    ),
    "Samsung": lambda n: marked(f"20240601_12{n // 60 % 60:02d}{n % 60:02d}", "|(0)|~2|_edit_123456789012|-01"),
    "video": lambda n: [f"MVI_{n}_{i:0{4 + n % 3}d}.png" for i in range(4)],
    "video by hand": lambda n: [f"video{n}_{i:04d}.png" for i in range(4)],
    "video of a phone": lambda n: [f"VID_20240601_12{n // 60 % 60:02d}{n % 60:02d}_{i:04d}.png" for i in range(4)],
}
STYLES = ("leaf{}", "leaf_{}", "Leaf-{}", "my leaf no. {}", "{}")


def divided(sources: list[list[str]]) -> list[list[str]]:
    """Return the sources whose files are not all in one group, or share one with another source."""
    names = [name for files in sources for name in files]
    groups = {names[i]: group for group in find_sources(names).groups for i in group}
    found = [{groups.get(name, name) for name in files} for files in sources]
    return [
        files
        for files, own in zip(sources, found, strict=True)
        if len(own) > 1 or sum(bool(own & other) for other in found) > 1
    ]


# A number alone after one of these marks would say nothing.
NEED_LETTERS = ("Keras", "Label Studio", "words", "named tiles", "before the name", "before the original", "libraries")


@pytest.mark.parametrize(
    ("scheme", "style"), [(a, b) for a in SCHEMES for b in STYLES if b != "{}" or a not in NEED_LETTERS]
)
def test_files_of_one_photograph_are_joined(scheme: str, style: str) -> None:
    sources = [[f"BLD/{name}" for name in SCHEMES[scheme](style.format(100 + 37 * i))] for i in range(24)]
    assert divided(sources) == []


@pytest.mark.parametrize("scheme", CAMERAS)
def test_files_of_one_shot_are_joined(scheme: str) -> None:
    for folders in (["BLD"], ["train/BLD", "val/BLD", "test/BLD"]):
        sources = [
            [f"{folders[k % len(folders)]}/{name}" for k, name in enumerate(CAMERAS[scheme](3000 + 37 * i))]
            for i in range(24)
        ]
        assert divided(sources) == []


def numbered(pattern: str, *counts: int) -> Iterator[str]:
    """Fill the fields of a pattern with all combinations of numbers from 1 on."""
    if not counts:
        yield pattern
        return
    for i in range(1, counts[0] + 1):
        yield from numbered(pattern.replace("{}", str(i), 1).replace("{4}", f"{i:04d}", 1), *counts[1:])


APART = {
    "numbers": [f"BLD/{style.format(i)}.jpg" for style in STYLES for i in range(1, 200)],
    "numbers in brackets": ["BLD/leaf.jpg", *numbered("BLD/leaf ({}).jpg", 500)],
    "frames of a camera": [f"BLD/{p}{i}.JPG" for p in ("IMG_", "DSC0", "P101", "100_") for i in range(3060, 3300)],
    "numbers of trees": [*numbered("BLD/tree{}_{}.jpg", 19, 3)],
    "two leaves": ["BLD/tree1_1.jpg", "BLD/tree1_2.jpg", "BLD/tree2_1.jpg"],
    "trees, branches, leaves": [*numbered("BLD/tree{}_{}_{}.jpg", 8, 3, 3)],
    "plants in plots": [*numbered("BLD/plot{}_row{}_col{}.jpg", 4, 45, 4)],
    "site, plant, leaf": [*numbered("BLD/s{}_p{}_l{}.jpg", 3, 20, 3)],
    "days": [*numbered("BLD/2024-06-1{}_{}.jpg", 9, 8), *numbered("BLD/20240601_{4}.jpg", 99)],
    "plants on days": [*numbered("BLD/plant{}_2024-06-1{}.jpg", 20, 8)],
    "WhatsApp": [*numbered("BLD/IMG-20240601-WA{4}.jpg", 300)],
    "times": [f"BLD/{p}12{s}{m:02d}{s}30{e}.jpg" for m in range(60) for p, s, e in (
        ("20240601_", "", ""), ("2024-06-01 ", ".", ""), ("WP_20140601_", "_", "_Pro"), ("DJI_20240601", "", "_0001_D"),
    )],
    "agriculture": [*numbered("BLD/crop_{}.jpg", 300), *numbered("BLD/healthy_crop_{}.jpg", 300)],
    "few of a crop": [*numbered("BLD/healthy_crop_{}.jpg", 5), *numbered("BLD/leaf{}.jpg", 40)],
    "sun and shade": [f"BLD/tree{t}_{side}_{n}.jpg" for t in range(20) for side in ("sun", "shade") for n in range(3)],
    "both sides": [f"BLD/leaf{i}_{side}.jpg" for i in range(60) for side in ("front", "back")],
    "two phones": [f"BLD/IMG_{i}_tree{tree}.jpg" for i in range(1000, 1040) for tree in (1, 2)],
    "two places": [f"BLD/{place}leaf{i}.jpg" for i in range(1, 40) for place in ("", "north_", "glass_", "small_")],
    "leaves of trees": [f"BLD/{tree}leaf{i:03d}.jpg" for i in range(1, 20) for tree in ("", "tree1_", "tree2_")],
    "a word of each": [f"BLD/leaf{i}_{'dark' if i % 2 else 'light'}.jpg" for i in range(60)],
    "identifiers": [f"BLD/{a_uuid()}.jpg" for _ in range(99)] + [f"BLD/{dice(32)}.jpg" for _ in range(99)]
    + [f"BLD/{dice(8)}.jpg" for _ in range(99)]
    + [f"BLD/id_{dice(5, string.digits)}_{dice(5, string.digits)}.jpg" for _ in range(99)],
    "PlantVillage": [f"BLD/{a_uuid()}___RS_HL {i}.JPG" for i in range(1000, 1100)],
    "two classes": [f"{c}/{n}{i}.jpg" for i in range(1000, 1100) for n in ("leaf", "IMG_") for c in ("BLD", "No_BLD")],
    "marks alone": ["BLD/(1).jpg", "BLD/copy.jpg", "BLD/edited.jpg", "BLD/.jpg", "BLD/_flip.jpg", "BLD/rot90.jpg"],
}  # fmt: skip


@pytest.mark.parametrize("names", APART.values(), ids=APART)
def test_other_names_are_not_joined(names: list[str]) -> None:
    assert find_sources(names).groups == ()


def test_one_photograph_of_nearly_all_is_none() -> None:
    """The augmentation gave all the same name, so the names do not tell what they were made from."""
    assert find_sources([f"BLD/aug_0_{DICE.randrange(10**7)}.jpg" for _ in range(300)]).groups == ()
    assert find_sources([f"BLD/leaf1_aug{i}.jpg" for i in range(300)]).groups == ()


def test_the_original_of_one_name_is_enough() -> None:
    names = [f"BLD/leaf{i}.jpg" for i in range(100, 140)] + ["BLD/leaf107_web.jpg"]
    names += [f"BLD/tree{i}_{side}.jpg" for i in range(9) for side in ("north", "south")]
    assert find_sources(names).groups == ((7, 40),)


@pytest.mark.parametrize("copy", ["{} (2)", "{}-01", "{}_2", "{} - Copy (2)", "{}_aug_1"])
@pytest.mark.parametrize("style", ["tree 3 leaf {}", "plot_2_plant_{}"])
def test_numbers_of_originals_are_no_counts(style: str, copy: str) -> None:
    """`tree 3 leaf 12 (2)` is of `tree 3 leaf 12`, which is no part of `tree 3 leaf`."""
    originals = [style.format(3011 + 37 * number) for number in range(24)]
    names = [f"BLD/{name}.jpg" for one in originals for name in (one, copy.format(one))]
    assert find_sources(names).groups == tuple((2 * number, 2 * number + 1) for number in range(24))


def test_numbers_are_asked_about() -> None:
    found = find_sources([*numbered("BLD/leaf{}_{}.jpg", 48, 21)]).beginnings
    assert found is not None
    assert found.title() == "1,008 names share 48 beginnings, 21 each: parts of one photograph?"
    for pattern in (
        "tree{}_leaf{}.jpg",
        "tree{}_{}.jpg",
        "tree {} ({}).jpg",
        "tree{}_{}_{}.jpg",
        "plot{}_row{}_col{}.jpg",
    ):
        names = [*numbered(pattern, *(9, 8, 7)[: pattern.count("{}")])]
        asked = find_sources(names).beginnings
        assert asked is not None
        begins = [re.search(asked.expression, name) for name in names]
        assert len({match[1] for match in begins if match}) == asked.count == 9
    for names in (APART["numbers"], APART["two leaves"], APART["frames of a camera"], APART["times"]):
        assert find_sources(names).beginnings is None


def test_parts_sorted_into_two_classes() -> None:
    parts = [("BLD", 1), ("No_BLD", 2), ("BLD", 3), ("No_BLD", 4)]
    names = [f"{folder}/IMG_{n}_{part}.jpg" for n in range(3000, 3010) for folder, part in parts]
    assert [len(group) for group in find_sources(names).groups] == [4] * 10
    # Where a part is in both folders, they have photographs of the same names.
    again = [*names, "No_BLD/IMG_3000_1.jpg"]
    assert max(len(group) for group in find_sources(again).groups) == 3
    # A UUID or a time is unique.
    for base in (a_uuid(), "20240601_123000"):
        assert find_sources([f"BLD/{base}_flip.jpg", f"No_BLD/{base}.jpg"]).groups == ((0, 1),)
    assert find_sources(["BLD/leaf7_flip.jpg", "No_BLD/leaf7.jpg"]).groups == ()


BASES = st.from_regex(r"[A-Za-z]{1,6}[-_ ]?[0-9]{1,4}", fullmatch=True)
MARKS = st.sampled_from(
    [
        f"_jpg.rf.{dice(32)}", "_90deg", "_flipLR", "_new30degFlipLR", " - Copy", " - Copy (2)", " copy", "_copy",
        "~2", "-edited", "_aug1", "_rot90", "_flip", "_crop_3", "-1024x768", "_patch12", "_frame_0001", "_mp4-12",
        "_r128_c64",
    ]
)  # fmt: skip


@given(BASES, st.lists(MARKS, max_size=4))
@example("face0012", ["-edited"])  # as long as the random beginning that Label Studio writes
@example("face0012", ["-1024x768", "_flip"])
def test_any_marks_in_any_order_lead_to_the_source(base: str, marks: list[str]) -> None:
    assert source_name(f"BLD/{base}{''.join(marks)}.jpg") == source_name(f"{base}.png") == base.casefold()


@given(st.lists(st.from_regex(r"[a-z]{1,4}[-_ ]?[0-9]{1,3}([-_][0-9]{1,2})?", fullmatch=True), max_size=20))
def test_order_does_not_matter(names: list[str]) -> None:
    def joined(given_names: list[str]) -> set[frozenset[str]]:
        return {frozenset(given_names[i] for i in group) for group in find_sources(given_names).groups}

    unique = sorted({f"BLD/{name}.jpg" for name in names})
    assert joined(unique) == joined(unique[::-1])
    assert all(len(group) > 1 for group in joined(unique))


def test_names_of_cameras() -> None:
    for name in ("img_0012", "dsc00012", "pxl_20240601_123000123", "2024-06-01 12.30.00", "20240601_123000_001"):
        assert is_camera_name(name)
    for name in ("leaf_0012", "0012", "img_0012_2", "20240601_123000_1", "img-20240601-wa0003", "20240601"):
        assert not is_camera_name(name)
