"""Says what there is instead of mjlab's renderer of pictures."""

raise ImportError(
    "There is no mjlab_rec.viewer.offscreen_renderer. env.render() draws a picture, a"
    " VideoRecorderCfg in ManagerBasedRlEnvCfg.recorders records videos, and"
    " mjlab_rec.sim.renderer.make_renderer makes a renderer."
)
