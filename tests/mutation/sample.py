"""All mutants of the modules, and a fixed sample of them."""

import ast
import hashlib
import pathlib
from typing import NamedTuple

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code

from tests.mutation.operators import operators


class Mutant(NamedTuple):
    """One change of one place."""

    module: str  # path from the root
    operator: str
    occurrence: int  # among the operator's places in the module
    line: int
    column: int

    @property
    def place(self):
        """Mutants of one place differ in what they put there only."""
        return self.module, self.operator.split("_")[0], self.line, self.column


def mutants(module: pathlib.Path, source: str) -> list[Mutant]:
    """Every mutant of `module` with the text `source`, apart from those of annotations."""
    ignored = _annotations(source)
    tree = list(ast_nodes(get_ast(source)))
    found = []
    for name, operator in operators().items():
        places = (place for node in tree for place in operator.mutation_positions(node))
        for i, (start, _) in enumerate(places):
            if not any(low <= start < high for low, high in ignored):
                found.append(Mutant(str(module), name, i, *start))
    return found


def sample(all_mutants: list[Mutant], sources: dict[str, str], count: int, seed: int):
    """`count` of them, at most one of a place, in random order: the first ones are a sample, too.

    By the hash of the seed and the changed line, so that work elsewhere leaves a sample as it is.
    """

    def rank(mutant: Mutant) -> str:
        line = sources[mutant.module].splitlines()[mutant.line - 1]
        text = f"{seed} {mutant.module} {mutant.operator} {mutant.column} {line}"
        return hashlib.sha256(text.encode()).hexdigest()

    one_each: dict[tuple, Mutant] = {}
    for mutant in sorted(all_mutants, key=rank):
        one_each.setdefault(mutant.place, mutant)
    # Places weigh alike, however many mutants each has: they are ranked once more, by themselves.
    places = sorted(
        one_each.values(), key=lambda m: rank(m._replace(operator=m.place[1], occurrence=0))
    )
    return places[:count]


def mutated(mutant: Mutant, source: str) -> str:
    """`source` with the change. Raises ValueError where there is nothing to change."""
    changed = mutate_code(source, operators()[mutant.operator], mutant.occurrence)
    if changed is None:
        raise ValueError(f"{mutant} is no mutant of this text")
    return changed


def _annotations(source: str) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """(start, end) of what is for type checkers only, as (line, column)."""
    found = []
    for node in ast.walk(ast.parse(source)):
        for name in ("annotation", "returns"):
            part = getattr(node, name, None)
            if part is not None:
                found.append(_span(part))
        if isinstance(node, ast.If) and getattr(node.test, "id", None) == "TYPE_CHECKING":
            found.append(_span(node))
    return found


def _span(node: ast.AST) -> tuple[tuple[int, int], tuple[int, int]]:
    return (node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset)
