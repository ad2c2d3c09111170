"""Inserts payments to the budget into a parsed template where Jinja offers no hook.

Bodies that may run many times (loops, macros, blocks) begin with a payment for their text.
Comparisons and expressions that build values become calls of filters in `template_filters`, whose
names begin with an underscore. A template that calls these filters itself only pays more.
"""

# ruff: noqa: N802 (the methods are named by jinja2)

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from jinja2 import TemplateAssertionError, nodes
from jinja2.visitor import NodeTransformer

from webllm.text.template_operations import MAX_INT_BITS

_Body = TypeVar("_Body", nodes.For, nodes.Macro, nodes.CallBlock, nodes.Block, nodes.FilterBlock)


class BudgetRewriter(NodeTransformer):
    """Rewrites a template's syntax tree in place."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        node = self._pay_for_body(node)
        if node.test is not None:
            node.test = nodes.And(_payment(0, node), node.test, lineno=node.lineno)
        return node

    def visit_Macro(self, node: nodes.Macro) -> nodes.Node:
        return self._pay_for_body(node)

    def visit_CallBlock(self, node: nodes.CallBlock) -> nodes.Node:
        return self._pay_for_body(node)

    def visit_Block(self, node: nodes.Block) -> nodes.Node:
        return self._pay_for_body(node)

    def visit_FilterBlock(self, node: nodes.FilterBlock) -> nodes.Node:
        return self._pay_for_body(node)

    def visit_ScopedEvalContextModifier(self, node: nodes.ScopedEvalContextModifier) -> nodes.Node:
        raise TemplateAssertionError("autoescape is not allowed in chat templates", node.lineno)

    def visit_Const(self, node: nodes.Const) -> nodes.Node:
        if isinstance(node.value, int) and node.value.bit_length() > MAX_INT_BITS:
            raise TemplateAssertionError("a number is too large", node.lineno)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _filtered(nodes.List(node.nodes, lineno=node.lineno), "_concat")

    def visit_List(self, node: nodes.List) -> nodes.Node:
        self.generic_visit(node)
        return node if _is_constant(node) else _filtered(node, "_flat")

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:
        self.generic_visit(node)
        for pair in node.items:
            if not isinstance(pair.key, nodes.Const):
                pair.key = _filtered(pair.key, "_key")
        return _filtered(node, "_flat")

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        self.generic_visit(node)
        return node if node.ctx != "load" or _is_constant(node) else _filtered(node, "_flat")

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        self.generic_visit(node)
        sides = [node.expr, *(operand.expr for operand in node.ops)]
        pairs = zip(sides, sides[1:], node.ops, strict=False)
        if all(_is_cheap(left, right, operand.op) for left, right, operand in pairs):
            return node
        args: list[nodes.Expr] = []
        for operand in node.ops:
            args += nodes.Const(operand.op, lineno=node.lineno), operand.expr
        return _filtered(node.expr, "_compare", args)

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        self.generic_visit(node)
        if isinstance(node.arg, nodes.Slice):
            node.node = _filtered(node.node, "_flat")
        return node

    def _pay_for_body(self, node: _Body) -> _Body:
        num_chars = sum(len(data.data) for data in node.find_all(nodes.TemplateData))
        num_chars += sum(len(str(const.value)) for const in node.find_all(nodes.Const))
        self.generic_visit(node)
        node.body.insert(0, nodes.ExprStmt(_payment(num_chars, node), lineno=node.lineno))
        return node


def _is_constant(node: nodes.Node) -> bool:
    """Returns whether `node` is constant: the body around it pays for its constants."""
    if isinstance(node, nodes.List | nodes.Tuple):
        return all(map(_is_constant, node.items))
    return isinstance(node, nodes.Const)


def _is_cheap(left: nodes.Expr, right: nodes.Expr, name: str) -> bool:
    """Returns whether one side is constant: then its length bounds the cost of comparing."""
    return _is_constant(right) or (_is_constant(left) and name not in ("in", "notin"))


def _payment(num_chars: int, node: nodes.Node) -> nodes.Expr:
    return _filtered(nodes.Const(num_chars, lineno=node.lineno), "_spend")


def _filtered(node: nodes.Expr, name: str, args: Sequence[nodes.Expr] = ()) -> nodes.Expr:
    return nodes.Filter(node, name, list(args), [], None, None, lineno=node.lineno)
