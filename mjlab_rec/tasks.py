"""Says where tasks and their registry are, to code that imports mjlab's from here."""

raise ImportError(
    "There is no mjlab_rec.tasks. The registry, mjlab.tasks.registry, is mjlab_rec.registry. Tasks"
    " live in packages of their own and register there: copy the folder of a task of mjlab into a"
    " package, and rename mjlab to mjlab_rec in its imports."
)
