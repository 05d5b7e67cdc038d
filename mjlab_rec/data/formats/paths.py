"""Paths of channels in a file, where a path is either a dataset or a group, never both."""

from __future__ import annotations

from collections.abc import Callable, Iterable


def dataset_paths(
    names: Iterable[str], wish: Callable[[str], str] = str, taken: Iterable[str] = ()
) -> dict[str, str]:
    """A unique path for each name: the name itself if possible.

    A dataset that would be below another one is put next to it: if ``obs/actor`` is a dataset,
    ``obs/actor/joints`` is at ``obs/actor.joints``. If that exists as well, a dot is added. The
    order of the names does not matter, so that readers can compute the paths from the names.

    Args:
        names: Names of datasets.
        wish: The preferred path for a name.
        taken: Paths that must not be used, nor anything below them.
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
