"""Says where scripts are, to code that imports mjlab's scripts from here."""

raise ImportError(
    "There is no mjlab_rec.scripts. Run the scripts as commands of mjlab-rec, or from the folder"
    " scripts/ of the repository; their code is in mjlab_rec.commands."
)
