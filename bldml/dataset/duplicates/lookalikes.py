"""Find photographs that may show one leaf or scene again: turned by any angle, cropped, as tiles, with a caption.

This is a heuristic, and weaker than near duplicates: somebody must look at what it finds. Comparing all pairs would
take days, so an index of visual words (Sivic and Zisserman 2003) proposes a few candidates for each photograph, and
only these are compared. A word is a pair of cells, one for each half of a descriptor (Babenko and Lempitsky 2012).
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import sparse

from bldml.dataset.duplicates.keypoints import Floats, Keypoints, Overlay, lay_over, products

CANDIDATES = (16, 8)
"""Most photographs that are compared with each photograph and with its mirror image: those that resemble the whole of
it, and further ones that resemble it off its rim, because captions in one typeface resemble each other."""
FREQUENT = (30, 0.03)
"""A word that more photographs have, as a number and as a fraction of all, proposes no candidates."""
COMMON = (30, 0.25)
"""A keypoint whose word more photographs have is taken for a part of a ruler or background, and is not compared."""
LEAST_INLIERS = 8
LEAST_AGREEMENT = 0.85
LEAST_IN_WINDOW = 0.6
LEAST_STRENGTH = 0.18
"""Least agreement times proportion of keypoints that agree.

Among the candidates of 500 coffee leaves different leaves reach 0.09, and of 1,000 drawn leaves 0.17."""

_CENTRES = 256  # cells per half of a descriptor, so that a word is a number of 16 bits
_SAMPLE = (640, 32)  # photographs, and descriptors of each, that the cells are made from
_ROUNDS = 8  # of k-means
_NEAREST = 2  # cells that each half belongs to
_CHUNK = 512  # photographs whose candidates are searched at once
_SHARED = 0.02  # least similarity of the words of two photographs that are compared


Words = npt.NDArray[np.uint16]  # (m, _NEAREST**2), of m keypoints


@dataclass(frozen=True)
class LookAlike:
    """Two photographs that look like pictures of one leaf or scene, which is no proof that they are."""

    a: int  # index of a photograph
    b: int  # index of the other, a < b
    kind: Literal["keypoints", "features"]  # how they were found
    strength: float  # to sort by, 0 to 1; of one kind only
    points: int = 0  # keypoints of both that agree with one turn, zoom and shift; 0 if found by features
    mirrored: bool = False


def find_lookalikes(
    described: Sequence[Keypoints],
    asked: Sequence[int] | None = None,
    progress: Callable[[], object] = lambda: None,
) -> list[LookAlike]:
    """Find look-alikes by keypoints within one collection, sorted by a, then b.

    Of many photographs that all look alike, each is paired with some of the others.

    Args:
        described: Results of `describe_keypoints` for all photographs.
        asked: Indexes of the photographs whose look-alikes are searched among all; None for all.
        progress: Called after each photograph asked.
    """
    import cv2  # noqa: F401  # before the limit, which holds for what is loaded
    from threadpoolctl import threadpool_limits

    # The matrices are so small that several threads only wait for each other, and for others on a busy machine.
    with threadpool_limits(1, user_api="blas"):
        return _search(described, asked, progress)


def _search(
    described: Sequence[Keypoints], asked: Sequence[int] | None, progress: Callable[[], object]
) -> list[LookAlike]:
    index = _Index.of(described)
    if index is None:
        return []
    found: dict[tuple[int, int], LookAlike] = {}
    tried: set[tuple[int, int, bool]] = set()
    for i, partners, mirrored in index.candidates(range(len(described)) if asked is None else asked):
        query = index.distinctive(i).mirrored() if mirrored else index.distinctive(i)
        for j in partners:
            a, b = min(i, j), max(i, j)
            if (a, b, mirrored) in tried or (a, b) in found:
                continue
            tried.add((a, b, mirrored))
            laid = lay_over(query, index.distinctive(j))
            if laid is not None and is_alike(laid):
                found[a, b] = LookAlike(a, b, "keypoints", round(_strength(laid), 3), laid.inliers, mirrored)
        if mirrored:
            progress()
    return [found[pair] for pair in sorted(found)]


def is_alike(laid: Overlay) -> bool:
    """Return whether one photograph lies over the other so well that somebody should look."""
    agree = laid.agreement >= LEAST_AGREEMENT and laid.weakest >= LEAST_IN_WINDOW
    return agree and laid.inliers >= LEAST_INLIERS and _strength(laid) >= LEAST_STRENGTH


def _strength(laid: Overlay) -> float:
    return laid.agreement * laid.proportion


@dataclass(frozen=True)
class _Index:
    """Which photographs have which words."""

    described: Sequence[Keypoints]
    centres: tuple[Floats, Floats]  # of the cells, for each half of a descriptor
    own: list[Words]  # of the keypoints of each photograph
    weights: Floats  # of each word; rare ones weigh more, frequent ones nothing
    by_word: sparse.csr_array  # the weighted words of all photographs, (words, photographs)
    common: npt.NDArray[np.bool_]  # the words that are taken for a ruler or background

    @classmethod
    def of(cls, described: Sequence[Keypoints]) -> "_Index | None":
        """Return the index; None if there are too few keypoints for one."""
        centres = _centres(described)
        if centres is None:
            return None
        own = [_words(one.descriptors, centres) for one in described]
        table = _table(own, len(centres[0]) * len(centres[1]))
        n, having = len(described), np.bincount(table.indices, minlength=table.shape[1])
        frequent, common = (having > max(least, fraction * n) for least, fraction in (FREQUENT, COMMON))
        weights = np.where(frequent, 0, np.log(max(n, 2) / np.maximum(having, 1)))
        return cls(described, centres, own, weights, _weighted(table, weights).T.tocsr(), common)

    def distinctive(self, i: int) -> Keypoints:
        """Return a photograph's description without common keypoints."""
        return self.described[i].only(~self.common[self.own[i][:, 0]])

    def candidates(self, asked: Sequence[int]) -> Iterator[tuple[int, list[int], bool]]:
        """Yield for each photograph those with the most similar words, then, with True, those of its mirror image."""
        for start in range(0, len(asked), _CHUNK):
            chunk = list(asked[start : start + _CHUNK])
            mirrored = [self.described[i].mirrored() for i in chunk]
            similar = self._similar([(self.own[i], self.described[i].off_rim) for i in chunk])
            similar_mirrored = self._similar([(_words(m.descriptors, self.centres), m.off_rim) for m in mirrored])
            for row, i in enumerate(chunk):
                yield i, _most_similar(similar, row, i), False
                yield i, _most_similar(similar_mirrored, row, i), True

    def _similar(self, asked: Sequence[tuple[Words, npt.NDArray[np.bool_]]]) -> list[sparse.csr_array]:
        """Return how similar the words of all keypoints, and of some, are to those of all photographs.

        Each is (asked, photographs).
        """
        parts = [words for words, _ in asked], [words[chosen] for words, chosen in asked]
        return [_weighted(_table(part, len(self.weights)), self.weights) @ self.by_word for part in parts]


def _most_similar(similarities: Sequence[sparse.csr_array], row: int, itself: int) -> list[int]:
    """Return the photographs that come first by each similarity, each once."""
    chosen = [itself]
    for similar, most in zip(similarities, CANDIDATES, strict=True):
        part = slice(similar.indptr[row], similar.indptr[row + 1])
        others, value = similar.indices[part], similar.data[part]
        kept = ~np.isin(others, chosen) & (value >= _SHARED)
        others, value = others[kept], value[kept]
        chosen += [int(j) for j in others[np.lexsort((others, -value))[:most]]]
    return chosen[1:]


def _weighted(words: sparse.csr_array, weights: Floats) -> sparse.csr_array:
    """Return weighted words, each row of length 1."""
    words = words.copy()
    words.data = np.asarray(words.data * weights[words.indices], np.float32)
    length = np.sqrt(np.asarray(words.multiply(words).sum(1)).ravel())
    words.data /= np.repeat(np.maximum(length, 1e-6), np.diff(words.indptr)).astype(np.float32)
    words.eliminate_zeros()
    return words


def _words(descriptors: npt.NDArray[np.uint8], centres: tuple[Floats, Floats]) -> Words:
    """Return the words of each keypoint, the nearest first."""
    one, other = (
        np.argpartition(np.square(centre).sum(1) - 2 * products(half, centre), range(_NEAREST), axis=1)[:, :_NEAREST]
        for half, centre in zip(_halves(descriptors), centres, strict=True)
    )
    words = one[:, :, None] * len(centres[1]) + other[:, None, :]
    return words.reshape(len(words), _NEAREST**2).astype(np.uint16)


def _table(words: Sequence[Words], count: int) -> sparse.csr_array:
    """Return which of `count` words each photograph has, 1 for each, (n, count)."""
    columns = [np.unique(each) for each in words]
    ends = np.cumsum([0, *map(len, columns)])
    indices = np.concatenate([*columns, np.zeros(0, np.int32)]).astype(np.int32)
    return sparse.csr_array((np.ones(len(indices), np.float32), indices, ends), shape=(len(columns), count))


def _centres(described: Sequence[Keypoints]) -> tuple[Floats, Floats] | None:
    """Return the cells' centres for each half of a descriptor; None if there are too few keypoints."""
    from scipy.cluster.vq import kmeans2

    photographs, each = _SAMPLE
    generator = np.random.default_rng(0)
    chosen = [described[i].descriptors for i in generator.permutation(len(described))[:photographs]]
    sample = [generator.permutation(values)[:each] for values in chosen]
    values = np.concatenate([*sample, np.zeros((0, 128), np.uint8)])
    count = min(_CENTRES, len(values) // 8)
    if count < 1:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # an empty cell is of no harm
        one, other = (
            kmeans2(half, count, iter=_ROUNDS, minit="points", rng=generator)[0].astype(np.float32)
            for half in _halves(values)
        )
    return one, other


def _halves(descriptors: npt.NDArray[np.uint8]) -> list[npt.NDArray[np.float32]]:
    return [np.ascontiguousarray(half, np.float32) for half in np.hsplit(descriptors, 2)]
