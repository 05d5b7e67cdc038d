"""Noise for observations: what to draw, and models that keep a bias for an episode."""

from mjlab_rec.utils.noise.noise_cfg import ConstantNoiseCfg as ConstantNoiseCfg
from mjlab_rec.utils.noise.noise_cfg import GaussianNoiseCfg as GaussianNoiseCfg
from mjlab_rec.utils.noise.noise_cfg import NoiseCfg as NoiseCfg
from mjlab_rec.utils.noise.noise_cfg import NoiseModelCfg as NoiseModelCfg
from mjlab_rec.utils.noise.noise_cfg import (
    NoiseModelWithAdditiveBiasCfg as NoiseModelWithAdditiveBiasCfg,
)
from mjlab_rec.utils.noise.noise_cfg import UniformNoiseCfg as UniformNoiseCfg
from mjlab_rec.utils.noise.noise_model import NoiseModel as NoiseModel
from mjlab_rec.utils.noise.noise_model import (
    NoiseModelWithAdditiveBias as NoiseModelWithAdditiveBias,
)
