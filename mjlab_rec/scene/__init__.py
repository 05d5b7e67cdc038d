"""The scene: ground, entities and sensors in one model."""

from mjlab_rec.scene.scene import Scene as Scene
from mjlab_rec.scene.scene import SceneCfg as SceneCfg
