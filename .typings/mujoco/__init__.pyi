# MuJoCo comes without types for its compiled modules: take every name of it as known, of any type.
from typing import Any

def __getattr__(name: str) -> Any: ...
