"""Boosters for few trips at a time: all trees of one trip are walked side by side in numpy.

XGBoost prepares itself anew for each call, and then walks one tree after another, waiting for the
memory at each node: 2.5 ms for one trip and 930 trees, where this takes 0.1 ms. Beyond some dozens
of trips XGBoost is faster. What comes out is the same to the bit: the same comparisons of the same
float32, summed in the order of the trees.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import xgboost as xgb

__all__ = ["Trees"]

# Objectives whose prediction is the sum over the trees, and no function of it.
_SUMS = frozenset(
    ["reg:squarederror", "reg:absoluteerror", "reg:pseudohubererror", "reg:quantileerror"]
)
_ROUNDS = 20  # that are read at once: no more JSON at a time than other threads can wait for
_ROWS = 16  # that are walked at once: what they touch of the trees fits a processor's cache


class Trees:
    """The trees of some boosters over the same dense columns.

    Parameters
    ----------
    boosters : sequence of xgboost.Booster
        Of trees with numerical splits, each trained on ``width`` columns; make them with `of`.
    """

    def __init__(self, boosters: "Sequence[xgb.Booster]") -> None:
        parts = [(output, tree, base) for output, tree, base in _trees_of(boosters)]
        parts.sort(key=lambda part: part[0])  # stable: an output's trees stay in their order
        trees = [tree for _, tree, _ in parts]
        sizes = [len(tree["left_children"]) for tree in trees]
        self._roots = np.cumsum([0, *sizes[:-1]]).astype(np.int32)
        first = np.repeat(self._roots, sizes)

        def joined(name: str, kind: type) -> np.ndarray:
            return np.concatenate([np.asarray(tree[name], kind) for tree in trees])

        left, right = joined("left_children", np.int32), joined("right_children", np.int32)
        leaf = left < 0
        if not np.array_equal(right[~leaf], left[~leaf] + 1):
            raise ValueError("a node's children do not lie side by side")
        width = self._width = boosters[0].num_features()
        # A leaf leads to itself: nothing is greater than or equal to NaN.
        self._left = np.where(leaf, np.arange(len(left), dtype=np.int32), left + first)
        self._value = joined("split_conditions", np.float32)
        self._threshold = np.where(leaf, np.float32(np.nan), self._value)
        # What is missing goes left as -inf, or right as inf, which stands in a second copy.
        right_by_default = joined("default_left", np.int8) == 0
        self._column = joined("split_indices", np.int32) + width * right_by_default
        self._column = np.where(leaf, 0, self._column).astype(np.int32)
        outputs = np.array([output for output, _, _ in parts])
        ends = np.flatnonzero(np.diff(outputs, append=-1)) + 1
        self._slices = [slice(a, b) for a, b in zip([0, *ends[:-1]], ends, strict=True)]
        self._base = np.array([parts[end - 1][2] for end in ends], np.float32)
        self._depth = self._deepest()

    @classmethod
    def of(cls, boosters: "Sequence[xgb.Booster]") -> "Trees | None":
        """The boosters' trees, or None where they are of a kind that is not walked here."""
        try:
            return cls(boosters)
        except (ValueError, KeyError):
            return None

    def predict(self, X: np.ndarray) -> np.ndarray:
        """What the boosters say, as ``Booster.predict`` does.

        Parameters
        ----------
        X : array of float32, shape (rows, columns)
            NaN where a value is missing.

        Returns
        -------
        ndarray of float32, shape (rows, outputs)
            The outputs of the first booster, then those of the next.
        """
        said = np.empty((len(X), len(self._base)), np.float32)
        for start in range(0, len(X), _ROWS):
            part = X[start : start + _ROWS]
            leaves = self._leaves(part)
            for output, trees in enumerate(self._slices):
                # Sums in the trees' order, one float32 after another, are what XGBoost makes.
                leaves[:, trees.start] += self._base[output]
                sums = np.add.accumulate(leaves[:, trees], axis=1)
                said[start : start + len(part), output] = sums[:, -1]
        return said

    def _leaves(self, X: np.ndarray) -> np.ndarray:
        """The value of the leaf that each row comes to in each tree; (rows, trees)."""
        missing = np.isnan(X)
        low, high = np.where(missing, -np.inf, X), np.where(missing, np.inf, X)
        values = np.concatenate([low, high], axis=1, dtype=np.float32).ravel()
        node = np.tile(self._roots, len(X))
        row = np.repeat(np.arange(len(X), dtype=np.int32) * (2 * self._width), len(self._roots))
        for _ in range(self._depth):
            column = self._column.take(node)
            if len(X) > 1:
                column += row
            right = values.take(column) >= self._threshold.take(node)
            node = self._left.take(node)
            node += right
        return self._value.take(node).reshape(len(X), -1)

    def _deepest(self) -> int:
        depth, nodes = 0, self._roots
        while True:
            inner = nodes[self._left[nodes] != nodes]
            if not len(inner):
                return depth
            nodes = np.concatenate([self._left[inner], self._left[inner] + 1])
            depth += 1


def _trees_of(boosters: "Sequence[xgb.Booster]") -> Iterator[tuple[int, Mapping[str, Any], float]]:
    """Each tree with the output that it adds to, over all boosters, and that output's base.

    Raises
    ------
    ValueError
        If a booster is of a kind that is not walked here.
    """
    import orjson

    first = 0
    for booster in boosters:
        best = booster.attr("best_iteration")
        rounds = int(best) + 1 if best is not None else booster.num_boosted_rounds()
        outputs = 0
        for start in range(0, rounds, _ROUNDS):
            piece = booster[start : min(start + _ROUNDS, rounds)]
            learner = orjson.loads(piece.save_raw("json"))["learner"]
            bases = orjson.loads(learner["learner_model_param"]["base_score"])
            model = learner["gradient_booster"]["model"]
            if learner["objective"]["name"] not in _SUMS or not isinstance(bases, list):
                raise ValueError("not the sum of its trees")
            outputs = len(bases)
            for output, tree in zip(model["tree_info"], model["trees"], strict=True):
                if any(tree["split_type"]) or int(tree["tree_param"]["size_leaf_vector"]) != 1:
                    raise ValueError("splits by category, or leaves with more than one value")
                yield first + output, tree, bases[output]
        first += outputs
