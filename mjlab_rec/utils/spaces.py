"""Says what there is instead of mjlab's spaces."""

raise ImportError(
    "There is no mjlab_rec.utils.spaces: spaces are Gymnasium's, from gymnasium.spaces; to batch"
    " them there is gymnasium.vector.utils.batch_space."
)
