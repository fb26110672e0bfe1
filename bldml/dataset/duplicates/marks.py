"""Marks that exports, editors and augmenters add to the name of a photograph, and the name without them."""

import re
import unicodedata
from typing import Literal, NamedTuple, get_args

NameEvidence = Literal["", "syntax", "operation", "grid", "number"]  # "" for a name without marks, then strongest first
RANK: tuple[NameEvidence, ...] = get_args(NameEvidence)

_IMAGE = r"(?:jpe?g|jfif|png|bmp|webp|tiff?|hei[cf]|avif|gif|dng|cr[23]|nef|arw|raw|psd|xcf|svg)"
_VIDEO = r"(?:mp4|mov|avi|mkv|m4v|3gp|webm|m2?ts|mpe?g|wmv|insv|lrv)"
_HEX = "[0-9a-f]"
_UUID = rf"{_HEX}{{8}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{12}}"
# "copy" and "edited" in the languages of Windows, macOS, Linux desktops and Google Photos.
_COPY = (
    r"(?:copy|copie|c[oó]pia|kopie|kopi[aoi]?|kopya|m[aá]solat|salinan|αντίγραφο"
    r"|копи[яі]|копія|副本|拷[贝貝]|コピー|복사본|نسخة|bản sao|สำเนา|kopio)"
)
_OF = r"(?:of|von|de|di|van|af|av|z)"
_EDITED = (
    r"(?:edited|edit|bearbeitet|modifi(?:ed|[ée]e?)|editad[oa]|modificat[oa]|bewerkt|edytowane|redigeret|redigerad"
    r"|effects)"
)

_DIRECTION = (
    r"(?:hor(?:iz(?:ontal(?:ly)?)?)?|vert(?:ical(?:ly)?)?|left|right|up|down|top|bottom|cent(?:er|re)|in|out|both|by"
    r"|random|low|high|colou?r|motion|median|salt|pepper|and|sp|gauss(?:ian)?|cc?w|(?:counter)?clockwise)"
)
_DETAIL = rf"(?:[-_. ]?(?:[-+]?\d{{1,4}}(?:[.,]\d+)?|deg(?:rees)?|lr|tb|ud|{_DIRECTION}|(?<=[-_. ])[hvxy](?![a-z])))"
# Classes of Albumentations, imgaug and torchvision, as far as they are no words that people use for leaves and plots.
_CLASSES = (
    r"huesaturationvalue|rgbshift|(?:coarse|grid|pixel|channel)dropout|(?:grid|optical)distortion|grid(?:shuffle|mask)|isonoise"
    r"|imagecompression|channelshuffle|to(?:gr[ae]y|sepia|rgb)|random[a-z]{3,}|emboss|piecewiseaffine|saferotate|fancypca"
    r"|(?:glass|median|advanced)blur|multiplicativenoise|superpixels|defocus|spatter|morphological|multiply|snowflakes"
    r"|additive(?:gaussian|laplace|poisson)noise|addto(?:hue|saturation|brightness)\w*|contrastnormalization|cropandpad"
    r"|(?:linear|sigmoid|log)contrast|(?:shear|translate)[xy]|saltandpepper|edgedetect|(?:auto|rand|trivial)augment(?:wide)?"
    r"|augmix"
)
_WORDS = (
    r"(?:aug(?:ment(?:ed|ation)?)?s?|rot(?:at(?:ed?|ion))?|turned|mirror(?:ed)?|transposed?"
    r"|(?:[hv]{1,2}[-_]?)?flip(?:ped|(?:[hv]|lr|ud|tb)(?![a-z]))?(?:[-_]r\d{1,3}(?!\d))?"
    r"|bright(?:ness|en(?:ed)?|er)?|dark(?:en(?:ed)?|er)?|light|contrast|nois[ey]|blur(?:red|ry)?|sharp(?:en(?:ed)?)?"
    r"|crop(?:ped)?|zoom(?:ed)?|shift(?:ed)?|shear(?:ed)?|translat(?:ed?|ion)|skew(?:ed)?|scaled?|resized?|upscaled?"
    r"|downscaled?|enhanced?|hue|sat(?:uration)?|gamma|clahe|equali[sz]ed?|gr[ae]y(?:scale)?|jitter(?:ed)?|elastic"
    r"|distort(?:ed|ion)?|warp(?:ed)?|perspective|affine|cutout|cutmix|mixup|eras(?:ed?|ing)|dropout|normali[sz]ed|padded"
    r"|synth(?:etic)?|mask(?:ed)?|seg(?:mented|mentation)?|overlay|annotated|removebg(?:[-_]preview)?|no[-_]?bg"
    r"|bg[-_]?removed|rembg|denoise[-\w]*|gigapixel\w*|topaz\w*|dxo\w*|hdr|orig(?:inal)?|thumb(?:nail)?|preview"
    r"|compressed|optimi[sz]ed|converted|small|medium|large|lowres|hires|transform(?:ed)?|solari[sz]ed?|posteri[sz]ed?"
    r"|invert(?:ed)?|rgba|upscayl|waifu2x|realesrgan[-\w]*|snapseed|luminar|picsart|photoshop|darktable|rawtherapee"
    r"|gedreht|gespiegelt|zugeschnitten|recadr[ée]e?|tourn[ée]e?|recortad[oa]|girad[oa]|ruotat[oa]|ritagliat[oa]"
    rf"|{_CLASSES})"
)
_PIECES = (
    r"(?:(?:tile|patch|part|piece|chip|slice|quad(?:rant)?|window|roi|crop|bbox|bounding[-_ ]?box|obj(?:ect)?"
    r"|det(?:ection)?)s?)"
)
_SYNTAX = re.compile(
    rf"^{_COPY}(?: ?\(\d{{1,3}}\))? {_OF} "  # Copy of x, Copy (2) of x, Kopie von x
    rf"|(?: ?[-–—_] ?| ){_COPY}(?: ?\(?\d{{1,3}}\)?)?$"  # x - Copy (2), x copy 2, x_copy
    rf"|(?: |の|의 |的){_COPY}(?: ?\d{{1,3}})?$"
    rf"| ?\((?:another |\d+\w\w )?{_COPY}(?: \d{{1,3}})?\)$"  # x (copy), x (3rd copy): Linux desktops
    r"| ?\([^()]*conflicted copy[^()]*\)$|\.sync-conflict-[-\w]+$"  # Dropbox, Nextcloud; Syncthing
    rf"| ?\({_EDITED}\)$|[-_ ]{_EDITED}(?:[-_]\d{{1,15}}|\(\d\))?$"  # x (Edited), x_edited; Samsung: x_edit_123456789
    r"|-enhanced(?:-[a-z]{2})*(?:-\d{1,2})?$"  # Lightroom: x-Enhanced-NR
    r"|(?<=.)~\d{1,2}$"  # Android: x~2
    r"|(?<=^pxl_\d{8}_\d{9})[._~].*$"  # Pixel: x.MP, x.PORTRAIT-01.COVER, x_exported_1024
    rf"|(?:[._]{_IMAGE})*\.rf\.[0-9a-z]{{6,64}}$"  # Roboflow: x_jpg.rf.<hash>
    rf"|[._]{_VIDEO}[-_ ]?(?:frame)?[-_ ]?\d{{1,7}}$"  # frames of a video: x_mp4-12
    rf"|\.{_VIDEO}[-_. #@\[](?=.*\d)[-_. #@=:\[\]\w]+$"  # and x.mp4#t=2.5, x.MOV.0012, x.mp4_snapshot_00.12
    r"|(?<=.)[-_. ](?:fra?me?[-_ ]?\d+(?:_t\d+(?:\.\d+)?)?|f\d{3,})$"
    rf"|^.*?_original_(?=.)|\.{_IMAGE}_{_UUID}$"  # Augmentor: class_original_x.jpg_<uuid>
    r"|^_groundtruth_\(\d+\)_[^_]+_(?=.)"  # the same of masks
    r"|(?<=.)_(?:\d{1,3}deg|flip(?:lr|tb)|new\d+deg\w*|newpixel\w*|final_masked)$"  # PlantVillage and its augmentation
    rf"|(?:\.{_IMAGE})?___(?:fuse|save|pixel|objects|lores|thumb|huge)$"  # SuperAnnotate
    rf"|^(?!(?:19|20)\d{{6}}-){_HEX}{{8}}-(?!{_HEX}{{4}}-)(?=.*[a-z])"  # Label Studio: 3f2a1b9c-x, but no face0012-flip
    rf"(?!(?:{_COPY}|{_EDITED}|\d{{3,5}}x\d{{3,5}}|(?:{_WORDS})+\d*|{_PIECES}\d*)(?![a-z0-9]))"
    r"|(?<=.)[-_ ]\(?\d{3,5}x\d{3,5}\)?$|^\d{2,4}px-|(?<=\d)-scaled$|@[23]x$"  # sizes: WordPress, Wikimedia
    r"|(?<=\d)__\d(?:\.\d+)?__\d+___\d+$|(?<=\d)_\d+_\d+_\d{3,}_\d{3,}$| \[(?:[a-z]=[\d.]+,?)+\]$"  # DOTA, SAHI, QuPath
    rf"|\.{_IMAGE}(?:\?[-\w=&]*|[-_.][0-9a-z]{{6,64}})?$"  # x.jpg.png, x.jpg?1642.jpg, x.jpg.2k8fm3a1.jpg
)
_OPERATION = re.compile(
    rf"[-_. ]+(?:{_DIRECTION}[-_. ]?)*(?:{_WORDS})+{_DETAIL}*$|[-_. ]+{_PIECES}[-_ ]?\d+(?:[-_x,]\d+)*$"
    rf"|[-_]{_IMAGE}$|[-_.]out\d{{0,4}}$|[-_]scene[-_]?\d+(?:-\d+)?$|[-_ ]\d+(?:\.\d+)?(?:ms|s(?:ec)?)$"
    # "small_tree_3" may be another tree than "tree_3".
    r"|^(?!(?:small|medium|large|light|dark|bright)[-_ ])"
    rf"(?:(?:{_DIRECTION}|[hv]{{1,2}})[-_ ])?{_WORDS}(?:[-_ ](?:image|img|photo))?(?:[-_ ]?\d{{1,3}})?[-_ ]+(?=[a-z])"
    r"|^(?:tile|crop|roi)(?:[-_ ]?\d+)+[-_ ]+(?=[a-z])"  # rot90_x
)
_GRID = re.compile(
    r"[-_. ]+(?:r(?:ow)?[-_=]?\d+[-_, ]*c(?:ol(?:umn)?)?[-_=]?\d+|c(?:ol(?:umn)?)?[-_=]?\d+[-_, ]*r(?:ow)?[-_=]?\d+"
    r"|x[-_=]?\d+[-_, ]*y[-_=]?\d+(?:[-_, ]*w[-_=]?\d+[-_, ]*h[-_=]?\d+)?|y[-_=]?\d+[-_, ]*x[-_=]?\d+)$"
)
_GLUED = re.compile(rf"(?<=\d)(?:{_COPY}|(?:{_WORDS})+)\d{{0,3}}$")  # leaf7copy, leaf7Flip
_GLUED_TAIL = re.compile(r"(?<=\d)[a-z]{3,}\d{0,3}$")
_SEPARATOR = re.compile(r"[-–—_. ~@(\[の의的]")  # a mark begins with one, or is at the beginning of the name
_MARKS: tuple[tuple[re.Pattern[str], NameEvidence], ...] = (
    (_SYNTAX, "syntax"),
    (_OPERATION, "operation"),
    (_GRID, "grid"),
    (_GLUED, "operation"),
)
_PLAIN = re.compile(r"[^\W\d_]*[-_ ]?\d*")  # most names: no mark fits, so none has to be tried
RANDOM = rf"{_UUID}|(?=\d*[a-f])(?=[a-f]*\d){_HEX}{{6,64}}"  # what programs draw to make a name unique
UNIQUE = re.compile(rf"{_UUID}|(?<!{_HEX})(?=\d*[a-f])(?=[a-f]*\d){_HEX}{{16,}}|(?:19|20)\d{{6}}[-_]?\d{{6}}")
"""What no two photographs have in their names by chance."""
_PHONE_EDITED = re.compile(r"^img_e(?=\d{4}$)")


class ParsedName(NamedTuple):
    """A name without its marks."""

    source: str  # name of the photograph that the file was made from
    evidence: NameEvidence  # the weakest of its marks
    part: str  # which part of it the file is, as far as the name says


def _first_match(pattern: re.Pattern[str], stem: str) -> re.Match[str] | None:
    """Return the first match of a pattern; a search would take three times as long, because it tries every position."""
    if pattern is _GLUED:
        tail = _GLUED_TAIL.search(stem)
        return pattern.match(stem, tail.start()) if tail else None
    found = pattern.match(stem)
    starts = (separator.start() for separator in _SEPARATOR.finditer(stem))
    return found or next((match for start in starts if (match := pattern.match(stem, start))), None)


def parse_name(stem: str) -> ParsedName:
    """Take the marks off a name without folder and suffix, in small letters."""
    evidence: NameEvidence = ""
    part, found = "", not _PLAIN.fullmatch(stem)
    while found:
        found = False
        for pattern, kind in _MARKS:
            match = _first_match(pattern, stem)
            if match and match[0] and (bare := stem[: match.start()] + stem[match.end() :]):
                stem, evidence, found = bare, max(evidence, kind, key=RANK.index), True
                part = f"{match[0]}{part}" if kind != "syntax" else part
                break
    bare = _PHONE_EDITED.sub("img_", stem)
    return ParsedName(bare, evidence or ("syntax" if bare != stem else ""), part)


def plain_stem(name: str) -> str:
    """Return a file's name without folder and suffix, case-folded, in Unicode form NFC."""
    file = unicodedata.normalize("NFC", name.rpartition("/")[2])
    return (file.rpartition(".")[0] or file).casefold()
