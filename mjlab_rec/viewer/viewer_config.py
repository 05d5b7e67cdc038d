"""The camera settings, under the name that tasks import."""

from mjlab_rec.sim.viewer_config import ViewerConfig as ViewerConfig
