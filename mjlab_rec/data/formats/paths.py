"""Where channels lie in a file in which a path is either a dataset or a group, never both."""

from __future__ import annotations

from collections.abc import Callable, Iterable


def dataset_paths(
    names: Iterable[str], wish: Callable[[str], str] = str, taken: Iterable[str] = ()
) -> dict[str, str]:
    """A path of its own for each name: the name itself wherever that is possible.

    What would lie below another dataset lies next to it: with ``obs/actor`` a dataset,
    ``obs/actor/joints`` is at ``obs/actor.joints``. If that exists as well, a dot is added. The
    order of the names does not matter, so that readers find the paths from the names alone.

    Args:
        names: Names of what has a dataset.
        wish: The path that a name should have.
        taken: Paths that are not to be used, nor anything below them.
    """
    datasets, groups = set(taken), set()
    found = {}
    for name in sorted(names, key=lambda name: (wish(name).count("/"), name)):
        path, *rest = wish(name).split("/")
        above = set()
        for key in rest:
            if path in datasets:
                path = f"{path}.{key}"
            else:
                above.add(path)
                path = f"{path}/{key}"
        while path in datasets or path in groups:
            path += "."
        datasets.add(path)
        groups |= above
        found[name] = path
    return found
