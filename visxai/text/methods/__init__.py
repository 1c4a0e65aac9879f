"""The methods for texts, one file each, discovered by listing this folder.

names()                         the names of all methods
load("lime(samples=200)")       a method from its spec string
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from visxai.errors import ArgumentError, UnknownName
from visxai.methods._names import folded
from visxai.spec import defined, listed, parse, split_specs
from visxai.text.methods.base import TextMethod

__all__ = ["TextMethod", "find", "load", "load_all", "names"]

# Names that other libraries give to these methods, without capitals and signs.
OTHERS = {
    "ig": "integrated_gradients",
    "layerintegratedgradients": "integrated_gradients",
    "gradientxinput": "input_x_gradient",
    "saliency": "gradient_norm",
    "occlusion": "leave_one_out",
    "loo": "leave_one_out",
    "shap": "partition_shap",
    "rollout": "attention_rollout",
}


@cache
def names() -> tuple[str, ...]:
    """List the names of all methods for texts, sorted, without importing their files."""
    return listed(__path__)


@cache
def find(name: str) -> type[TextMethod]:
    """Look up the class of a method by its name, or by its name in another library.

    Raises:
        UnknownName: No method for texts has that name; the error lists the choices.
    """
    spelt = {**{folded(one): one for one in names()}, **OTHERS}
    known = name if name in names() else spelt.get(folded(name))
    if known is None:
        raise UnknownName("method for texts", name, names())
    return defined(__name__, known, TextMethod)  # type: ignore[type-abstract]


def load(spec: str | TextMethod) -> TextMethod:
    """Load a method from its spec string: a name, or a name with keyword arguments.

    Args:
        spec: The spec string; a method is returned as it is.

    Raises:
        UnknownName: The method or an option doesn't exist.
        ArgumentError: The spec can't be parsed, or an option's value is not allowed.
    """
    if isinstance(spec, TextMethod):
        return spec
    name, member, options = parse(spec, "method", "lime(samples=200)")
    if member:
        raise UnknownName("method for texts", f"{name}:{member}", names())
    return find(name).of(options)


def load_all(given: str | TextMethod | Sequence[str | TextMethod]) -> tuple[TextMethod, ...]:
    """Load one method or several, also from one string with commas between them.

    Raises:
        ArgumentError: No method is given, or a spec is wrong.
    """
    single = [given] if isinstance(given, TextMethod) else given
    specs = split_specs(single) if isinstance(single, str) else list(single)
    if not specs:
        raise ArgumentError("expected at least one method, got none: try 'integrated_gradients'")
    return tuple(load(one) for one in specs)
