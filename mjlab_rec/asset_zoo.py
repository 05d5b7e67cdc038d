"""Says where robots come from, to code that imports mjlab's robots from here."""

raise ImportError(
    "There is no mjlab_rec.asset_zoo: this package has no robots. EntityCfg(spec_fn=...) takes any"
    " MuJoCo model, such as those of MuJoCo Menagerie. Code that needs mjlab's robots can import"
    " them from a copy of their folder."
)
