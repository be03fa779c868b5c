"""Which optional parts of the package are installed."""

import importlib.util


def extra_faults(variable: str, extra: str, *modules: str) -> list[str]:
    """Return the fault of a variable that needs an extra of which a module is not installed. Imports none."""
    if all(map(_is_installed, modules)):
        return []
    return [f"{variable} needs the extra `{extra}`: pip install 'chat-sse[{extra}]'"]


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of a package that it is in
        return False
