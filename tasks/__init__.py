"""The tasks of mjlab_rec: one folder each, which registers its ids."""

from mjlab_rec.registry import import_subpackages

import_subpackages(__name__)
