"""Says what there is instead of mjlab's base class of viewers."""

raise ImportError(
    "There is no mjlab_rec.viewer.base. A viewer is any object with the methods of"
    " mjlab_rec.viewer.playback.Viewer, and Playback is the loop that calls it."
)
