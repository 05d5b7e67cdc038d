"""Says how videos are recorded, to code that imports mjlab's wrapper from here."""

raise ImportError(
    "There is no mjlab_rec.utils.wrappers: an environment records videos itself. Put a"
    " VideoRecorderCfg (mjlab_rec.recorders) into ManagerBasedRlEnvCfg.recorders, or call"
    " env.start_recording() in mid-run."
)
