"""The two tasks, and the measures by which their models are scored and compared. Imports nothing.

"classification" means one class per clip (softmax), "tagging" any number of classes per clip (sigmoid).
"""

# The scores of a split in an evaluation.
MEASURES = {"classification": ("mAP", "accuracy", "macro_f1"), "tagging": ("mAP", "mAUC", "d_prime")}
TASKS = tuple(MEASURES)

# What models are compared by, as in the deck: accuracy for ESC-50 and RAVDESS, mAP for AudioSet.
HEADLINE = {"classification": "accuracy", "tagging": "mAP"}

# None predicts the most probable class. The value for tagging is ours.
F1_THRESHOLD = {"classification": None, "tagging": 0.5}

MAX_CLASSES = 100_000  # (ours) classes are scored one by one

# (ours) How far probabilities of classification may sum from 1: those of bfloat16 networks are not exact, and
# those of a csv file are rounded.
SUM_TOLERANCE = 0.01
ROUNDING = 1e-3  # (ours) how far above 1 a single probability may be
