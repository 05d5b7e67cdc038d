"""Looking at an environment: camera settings."""

from mjlab_rec.sim.viewer_config import ViewerConfig as ViewerConfig
