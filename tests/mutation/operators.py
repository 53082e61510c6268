"""Which small changes are made: some of Cosmic Ray's, and two of our own.

Code for arrays chooses and reduces by calls, which Cosmic Ray leaves alone.
"""

import re

import cosmic_ray.plugins
from cosmic_ray.operators.operator import Example, Operator

OTHERS = {
    "maximum": "minimum",
    "minimum": "maximum",
    "max": "min",
    "min": "max",
    "argmax": "argmin",
    "argmin": "argmax",
    "any": "all",
    "all": "any",
    "sum": "mean",
    "mean": "sum",
    "floor": "ceil",
    "zeros": "ones",
    "ones": "zeros",
}
# Of arithmetic to arithmetic and of sets to sets: a shift of floats ends in a TypeError at once,
# which says nothing about tests. `is` and `not` of arrays likewise.
USED = re.compile(
    r"(AddNot|ExceptionReplacer|NumberReplacer|ZeroIterationForLoop"
    r"|ReplaceAndWithOr|ReplaceOrWithAnd|ReplaceFalseWithTrue|ReplaceTrueWithFalse"
    r"|ReplaceBreakWithContinue|ReplaceContinueWithBreak"
    r"|ReplaceBinaryOperator_(Add|Sub|Mul|Div|FloorDiv|Mod|Pow)_(Add|Sub|Mul|Div)"
    r"|ReplaceBinaryOperator_Bit(And|Or|Xor)_Bit(And|Or|Xor)"
    r"|ReplaceComparisonOperator_(Eq|NotEq|Lt|LtE|Gt|GtE)_(Eq|NotEq|Lt|LtE|Gt|GtE)"
    r"|ReplaceComparisonOperator_(Is_IsNot|IsNot_Is)"
    r"|ReplaceUnaryOperator_Delete_(Invert|Not|USub))"
)


class SwapBranches(Operator):
    """`where(a, b, c)` becomes `where(a, c, b)`."""

    def mutation_positions(self, node):
        if _called(node) == "where" and len(_arguments(node)) == 5:
            yield node.start_pos, node.end_pos

    def mutate(self, node, index):
        arguments = _arguments(node)
        arguments[2], arguments[4] = arguments[4], arguments[2]
        return node

    @classmethod
    def examples(cls):
        return (Example("jnp.where(a, b, c)", "jnp.where(a, c, b)"),)


class ReplaceCall(Operator):
    """A function or method becomes its counterpart: see `OTHERS`."""

    def mutation_positions(self, node):
        if node.type == "name" and node.value in OTHERS and _is_called(node):
            yield node.start_pos, node.end_pos

    def mutate(self, node, index):
        node.value = OTHERS[node.value]
        return node

    @classmethod
    def examples(cls):
        return (Example("jnp.maximum(a, b)", "jnp.minimum(a, b)"),)


def _arguments(trailer):
    """The nodes between the brackets of a call, with their commas."""
    inner = trailer.children[1]
    return inner.children if inner.type == "arglist" else [inner]


def _called(node):
    """The name before the brackets, if `node` is these."""
    if node.type != "trailer" or node.children[0].value != "(":
        return None
    before = node.get_previous_sibling()
    leaf = None if before is None else before.get_last_leaf()
    return None if leaf is None or leaf.type != "name" else leaf.value


def _is_called(name):
    attribute = name.parent.type == "trailer"
    if not attribute and OTHERS[name.value] not in ("max", "min", "any", "all"):
        return False  # `mean` and the like are no names without a module
    node = name.parent if attribute else name
    after = node.get_next_sibling()
    return after is not None and after.type == "trailer" and after.children[0].value == "("


def operators():
    """{name: an operator}."""
    found = {}
    for name in cosmic_ray.plugins.operator_names():
        short = name.removeprefix("core/")
        if USED.fullmatch(short):
            found[short] = cosmic_ray.plugins.get_operator(name)()
    return found | {"SwapBranches": SwapBranches(), "ReplaceCall": ReplaceCall()}
