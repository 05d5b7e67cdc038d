"""Says what there is instead of mjlab's coloured messages."""

raise ImportError(
    "There is no mjlab_rec.utils.logging: messages go to Python's logging, under 'mjlab_rec'. Use"
    " logging.getLogger(__name__).info(...)."
)
