"""Finding names by regular expressions, under mjlab's module name."""

from mjlab_rec.utils.string import resolve_matching_names as resolve_matching_names
from mjlab_rec.utils.string import resolve_matching_names_values as resolve_matching_names_values
