"""What the scripts do, and the command ``mjlab-rec`` that an installed package brings."""
