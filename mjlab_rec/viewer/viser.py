"""Says what there is instead of mjlab's viewer in the browser."""

raise ImportError(
    "There is no mjlab_rec.viewer.viser. The viewer in the browser is"
    " mjlab_rec.viewer.make_viewer('web', env), with Playback."
)
